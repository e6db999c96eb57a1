//! The keys of roles, read by the command that signs and by nothing else.

use std::path::PathBuf;

use node::api::types::NationEntry;
use registry::key::SecretKey;
use registry::statement::RoleName;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Loads the key for `role` and checks, before any long work, that this nation's root lists it and asks for no more.
pub(crate) async fn load(
    context: &Context,
    client: &Client,
    folder: Option<&PathBuf>,
    role: RoleName,
) -> Result<SecretKey, Failure> {
    let path = match folder {
        Some(folder) => folder.join(format!("{role}.key")),
        None => context.layout.key(role),
    };
    if !path.exists() {
        return Err(Failure::new(Exit::NotFound, format!("the {role} key {} is not there", path.display()))
            .help("name the folder that holds your nation's keys with --keys"));
    }
    let key = SecretKey::load(&path)?;
    let nations: Vec<NationEntry> = client.get("/v1/nations").await?;
    let own = nations.into_iter().find(|nation| nation.own);
    if let Some(own) = own.as_ref().filter(|own| own.expired && role != RoleName::Recall) {
        let message = format!("the root of this nation, `{}`, expired at {}", own.nation, own.expires);
        return Err(Failure::new(Exit::Verification, message).help(
            "nobody believes anything new under it, recalls excepted: make the nation anew with `steelyard init` in another folder, and give allies its nation.json",
        ));
    }
    let entry = own.and_then(|own| {
        let nation = own.nation.clone();
        own.roles.into_iter().find(|entry| entry.role == role.as_str()).map(|entry| (nation, entry))
    });
    let Some((nation, entry)) = entry else {
        return Err(Failure::new(Exit::Other, "this node's own nation has no such role"));
    };
    if !entry.keys.contains(&key.id()) {
        let message = format!("{} is not a {role} key of `{nation}`", path.display());
        return Err(Failure::new(Exit::Verification, message).help(format!(
            "its root lists {}",
            entry.keys.iter().map(|id| id.short()).collect::<Vec<_>>().join(", ")
        )));
    }
    if entry.threshold > 1 {
        let message = format!(
            "`{nation}` requires {} signatures of its {role} keys; this command signs with one",
            entry.threshold
        );
        return Err(Failure::new(Exit::Policy, message));
    }
    Ok(key)
}
