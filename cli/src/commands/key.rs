//! `steelyard key`: keys and how they are kept.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use registry::key::{Key as Open, KeyFile, KeyId, PublicKey, Sealed, SecretKey, Signer, TokenKey, TokenUri};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD, paint};
use crate::{keys, secret};

/// Make keys, show them, and change how they are kept
#[derive(Debug, Args)]
#[command(
    long_about = "Make keys, show them, and change how they are kept.\n\nA key file holds a key that a passphrase opens (Argon2id and \
ChaCha20-Poly1305), a key in the clear, or the name of a key in a PKCS#11 token. Keys that a process uses without a person (peer, log, \
witness) may stay in the clear, log and witness keys may also be sealed, with their passphrase in a file that the setting \
log.passphrase_file names; those that people use should be sealed."
)]
pub(crate) struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    New(New),
    Show(Show),
    Encrypt(Encrypt),
    Decrypt(Decrypt),
    Passphrase(Passphrase),
}

/// Make a new key
///
/// Writes a file that only you may read, and says the public key, which is what goes into a root. The passphrase is asked
/// for at the terminal, or read from the file that --passphrase-file names. With --token the key is made in a PKCS#11
/// token and never leaves it; the file then only names it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard key new anna.key
  steelyard key new log.key --plain
  steelyard key new anna.key --token 'pkcs11:token=anna;object=alba-root?module-path=/usr/lib/softhsm/libsofthsm2.so'")]
struct New {
    /// The file to write; an existing one is never replaced
    file: PathBuf,
    /// In the clear: for a key that a process uses without a person
    #[arg(long, conflicts_with = "token")]
    plain: bool,
    /// In the token that this RFC 7512 URI names
    #[arg(long, value_name = "URI", value_parser = TokenUri::parse)]
    token: Option<TokenUri>,
}

/// Show a key's public half
///
/// What goes into a root, and its identifier as `trust show` and error messages name it. A sealed key needs no
/// passphrase for that, a key in a token its PIN.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard key show keys/root.key")]
struct Show {
    /// The key file
    file: PathBuf,
}

/// Seal a key file with a passphrase
///
/// Replaces the file in one step. Where its bytes lay on the disk, the old key may still be found by whoever has the disk:
/// a key that matters is best made sealed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard key encrypt keys/root.key")]
struct Encrypt {
    /// The key file
    file: PathBuf,
}

/// Put a sealed key file into the clear
///
/// For a key that a process shall use without a person. Replaces the file in one step.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard key decrypt keys/release.key")]
struct Decrypt {
    /// The key file
    file: PathBuf,
}

/// Give a sealed key file another passphrase
///
/// Opens it with the old passphrase and seals it anew, with new salt and today's cost, and replaces the file in one step: either the
/// old one is there or the new one. Both are asked for at the terminal, or read from the files that --passphrase-file (the old
/// one) and --new-passphrase-file name. Copies of the old file still open with the old passphrase.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard key passphrase keys/root.key
  steelyard key passphrase keys/root.key --passphrase-file old.txt --new-passphrase-file new.txt")]
struct Passphrase {
    /// The key file
    file: PathBuf,
    /// The file, readable by you alone, that holds the new passphrase [default: asked for at the terminal]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown<'a> {
    file: &'a Path,
    kept: &'static str,
    public: PublicKey,
    id: KeyId,
}

impl Key {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::New(new) => new.run(context),
            Action::Show(Show { file }) => {
                let read = KeyFile::load(&file)?;
                let public = match read.public() {
                    Some(public) => public,
                    None => keys::open(context, &file)?.public(),
                };
                show(context, &file, kept(&read), public)
            }
            Action::Encrypt(Encrypt { file }) => {
                let KeyFile::Plain(key) = KeyFile::load(&file)? else {
                    return Err(Failure::new(Exit::Busy, format!("{} is not in the clear", file.display())));
                };
                let passphrase = secret::ask(context, "New passphrase", true)?;
                let sealed = KeyFile::Sealed(Sealed::seal(&key, passphrase.as_bytes())?);
                sealed.replace(&file)?;
                show(context, &file, kept(&sealed), key.public())
            }
            Action::Decrypt(Decrypt { file }) => {
                if !matches!(KeyFile::load(&file)?, KeyFile::Sealed(_)) {
                    return Err(Failure::new(Exit::Busy, format!("{} is not sealed", file.display())));
                }
                let Open::Memory(key) = keys::open(context, &file)? else {
                    return Err(Failure::new(Exit::Other, "the key is in a token"));
                };
                let public = key.public();
                let plain = KeyFile::Plain(*key);
                plain.replace(&file)?;
                show(context, &file, kept(&plain), public)
            }
            Action::Passphrase(change) => change.run(context),
        }
    }
}

impl Passphrase {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let file = self.file;
        let KeyFile::Sealed(sealed) = KeyFile::load(&file)? else {
            let message = format!("{} is not sealed, so it has no passphrase", file.display());
            return Err(
                Failure::new(Exit::Busy, message).help("`steelyard key encrypt` seals a key in the clear")
            );
        };
        let old = secret::ask(context, &format!("Passphrase of {}", file.display()), false)?;
        let key = sealed.open(old.as_bytes())?;
        let new = secret::ask_new(self.new_passphrase_file.as_deref())?;
        if *new == *old {
            return Err(Failure::usage("the new passphrase is the old one; nothing was changed"));
        }
        let sealed = KeyFile::Sealed(Sealed::seal(&key, new.as_bytes())?);
        sealed.replace(&file)?;
        show(context, &file, kept(&sealed), key.public())
    }
}

impl New {
    fn run(self, context: &Context) -> Result<(), Failure> {
        if self.file.exists() {
            let message = format!("{} is there already; nothing was changed", self.file.display());
            return Err(Failure::new(Exit::Busy, message));
        }
        let (file, public) = match self.token {
            Some(uri) => {
                let pin = match &uri.pin {
                    Some(pin) => registry::key::read_private(pin)?,
                    None => secret::ask(context, &format!("PIN of the token {}", uri.token), false)?,
                };
                let key = TokenKey::generate(&uri, pin.trim_end())?;
                (KeyFile::Token(uri), key.public())
            }
            None if self.plain => {
                let key = SecretKey::generate()?;
                let public = key.public();
                (KeyFile::Plain(key), public)
            }
            None => {
                let passphrase = secret::ask(context, "New passphrase", true)?;
                let key = SecretKey::generate()?;
                (KeyFile::Sealed(Sealed::seal(&key, passphrase.as_bytes())?), key.public())
            }
        };
        file.save(&self.file)?;
        show(context, &self.file, kept(&file), public)
    }
}

fn kept(file: &KeyFile) -> &'static str {
    match file {
        KeyFile::Plain(_) => "in the clear",
        KeyFile::Sealed(_) => "sealed by a passphrase",
        KeyFile::Token(_) => "in a token",
    }
}

fn show(context: &Context, file: &Path, kept: &'static str, public: PublicKey) -> Result<(), Failure> {
    let id = public.id();
    if context.json {
        return output::json(&Shown { file, kept, public, id });
    }
    output::print(&output::facts(&[
        ("public key", paint(BOLD, format!("{public:?}"))),
        ("identifier", id.to_string()),
        ("kept", kept.to_owned()),
        ("file", file.display().to_string()),
    ]))
}
