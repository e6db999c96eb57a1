//! The keys of roles, opened by the command that signs and by nothing else.

use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::NationEntry;
use registry::key::{Key, KeyFile, Signer, TokenKey};
use registry::statement::RoleName;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::secret;

/// Where a signing command finds its key, or where it leaves what others shall sign.
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// The folder of your nation's keys [default: keys in the node's folder]
    #[arg(long, value_name = "FOLDER", env = "STEELYARD_KEYS")]
    pub(crate) keys: Option<PathBuf>,
    /// Sign nothing: write what is to be signed into this file, for `steelyard sign`
    #[arg(long, value_name = "FILE")]
    pub(crate) draft: Option<PathBuf>,
}

/// Opens a key file: asks for its passphrase, or for the PIN of the token that it names.
pub(crate) fn open(context: &Context, path: &Path) -> Result<Key, Failure> {
    match KeyFile::load(path)? {
        KeyFile::Plain(key) => Ok(Key::Memory(Box::new(key))),
        KeyFile::Sealed(sealed) => {
            let passphrase = secret::ask(context, &format!("Passphrase of {}", path.display()), false)?;
            Ok(Key::Memory(Box::new(sealed.open(passphrase.as_bytes())?)))
        }
        KeyFile::Token(uri) => {
            let pin = match &uri.pin {
                Some(pin) => registry::key::read_private(pin)?,
                None => secret::ask(context, &format!("PIN of the token {}", uri.token), false)?,
            };
            Ok(Key::Token(Box::new(TokenKey::open(&uri, pin.trim_end())?)))
        }
    }
}

/// This node's own nation, unless its root has ended and `role` needs it.
pub(crate) async fn own(client: &Client, role: RoleName) -> Result<NationEntry, Failure> {
    let nations: Vec<NationEntry> = client.get("/v1/nations").await?;
    let own = nations.into_iter().find(|nation| nation.own);
    let own = own.ok_or_else(|| Failure::new(Exit::Other, "this node does not know its own nation"))?;
    if own.expired && role != RoleName::Recall {
        let message = format!("the root of this nation, `{}`, expired at {}", own.nation, own.expires);
        return Err(Failure::new(Exit::Verification, message).help(
            "nobody believes anything new under it, recalls excepted: sign the next one with `steelyard root rotate`, `root sign` and `root publish`",
        ));
    }
    Ok(own)
}

/// Opens the key for `role` and checks, before any long work, that this nation's root lists it and asks for no more.
pub(crate) async fn load(
    context: &Context,
    client: &Client,
    folder: Option<&PathBuf>,
    role: RoleName,
) -> Result<Key, Failure> {
    let path = match folder {
        Some(folder) => folder.join(format!("{role}.key")),
        None => context.layout.key(role),
    };
    let own = own(client, role).await?;
    let nation = &own.nation;
    let Some(entry) = own.roles.iter().find(|entry| entry.role == role.as_str()) else {
        return Err(Failure::new(Exit::Other, "this node's own nation has no such role"));
    };
    if entry.threshold > 1 {
        let message = format!(
            "`{nation}` requires {} signatures of its {role} keys, and this command signs with one",
            entry.threshold
        );
        return Err(Failure::new(Exit::Policy, message).help(
            "write what is to be signed with --draft FILE; each signer adds an envelope with `steelyard sign FILE --key KEY`, the last one with --submit",
        ));
    }
    if !path.exists() {
        return Err(Failure::new(Exit::NotFound, format!("the {role} key {} is not there", path.display()))
            .help("name the folder that holds your nation's keys with --keys"));
    }
    let key = open(context, &path)?;
    if !entry.keys.contains(&key.id()) {
        let message = format!("{} is not a {role} key of `{nation}`", path.display());
        return Err(Failure::new(Exit::Verification, message).help(format!(
            "version {} of its root lists {}",
            own.version,
            entry.keys.iter().map(|id| id.short()).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(key)
}
