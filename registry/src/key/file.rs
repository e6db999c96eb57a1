//! Key files: a secret in the clear, a sealed one, or the name of one in a token. All have mode 0600.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{KeyError, PublicKey, Sealed, SecretKey, TokenUri, sealed};
use crate::digest::Digest;

/// First line of a key file in the clear.
pub(super) const PLAIN: &str = "steelyard-ed25519-secret-key-v1";
/// A key file is a few short lines; anything larger is something else.
pub const MAX_KEY_FILE: u64 = 4096;

/// What a key file holds.
#[derive(Debug)]
pub enum KeyFile {
    /// A secret key in the clear: for keys that a process uses without a person.
    Plain(SecretKey),
    /// A secret key that a passphrase opens.
    Sealed(Sealed),
    /// Where a key lies in a token.
    Token(TokenUri),
}

impl KeyFile {
    /// Reads a key file's text; says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.lines().next() {
            Some(PLAIN) => {
                let seed = text.strip_prefix(PLAIN).and_then(|rest| Digest::from_hex(rest.trim()).ok());
                let seed = seed.ok_or("its second line must be 64 hexadecimal digits")?;
                Ok(Self::Plain(SecretKey::from_seed(seed.as_bytes())))
            }
            Some(sealed::HEADER) => Sealed::parse(text)
                .map(Self::Sealed)
                .map_err(|part| format!("{part} is not what it should be")),
            Some(line) if line.starts_with("pkcs11:") => TokenUri::parse(text.trim_end()).map(Self::Token),
            _ => Err(format!("its first line must be `{PLAIN}`, `{}` or a `pkcs11:` URI", sealed::HEADER)),
        }
    }

    /// Reads the file at `path`, refusing one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = read_private(path)?;
        Self::parse(&text).map_err(|why| KeyError::NotAKey { path: path.to_owned(), why })
    }

    /// The public key, where it can be told without a passphrase or a PIN.
    pub fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Plain(key) => Some(key.public()),
            Self::Sealed(sealed) => Some(sealed.public()),
            Self::Token(_) => None,
        }
    }

    fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Plain(key) => format!("{PLAIN}\n{}\n", HEXLOWER.encode(key.seed().as_ref())),
            Self::Sealed(sealed) => sealed.to_text(),
            Self::Token(uri) => format!("{uri}\n"),
        })
    }

    /// Writes a new file with mode 0600, durably; an existing file is never replaced.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        write_new(path, self.to_text().as_bytes())?;
        sync_parent(path)
    }

    /// Replaces the file at `path` in one step: either the old one is there or the new one. Where its bytes lay on the disk,
    /// the old one may still be found by whoever has the disk.
    pub fn replace(&self, path: &Path) -> Result<(), KeyError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        write_new(&beside, self.to_text().as_bytes())?;
        fs::rename(&beside, path).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
        sync_parent(path)
    }
}

/// Reads a small file that nobody else may read: a key, a passphrase, a PIN.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    if metadata.len() > MAX_KEY_FILE {
        let why = format!("it has more than {MAX_KEY_FILE} bytes");
        return Err(KeyError::NotAKey { path: path.to_owned(), why });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// Reads a passphrase from such a file: all of it but a line's end behind it, as an editor leaves one.
pub fn read_passphrase(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let text = read_private(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io)
}

fn sync_parent(path: &Path) -> Result<(), KeyError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let io = |source| KeyError::Io { path: parent.to_owned(), source };
    fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)
}
