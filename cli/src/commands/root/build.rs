//! From what a person says about keys and thresholds to a root.

use std::path::Path;

use registry::key::{KeyFile, KeyId, PublicKey};
use registry::statement::{RoleKeys, RoleName, Root, RootKey, Statement};

use super::{is_file, role_of};
use crate::failure::{Exit, Failure};

/// Least digits that name a key by its identifier's beginning.
const MIN_PREFIX: usize = 8;

/// `ROLE=KEY`.
#[derive(Debug, Clone)]
pub(super) struct Given {
    role: RoleName,
    key: PublicKey,
}

impl Given {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (role, key) = role_of(text)?;
        Ok(Self { role, key: public(key)? })
    }
}

/// A public key: 64 hexadecimal digits, or a key file that tells it without a secret.
fn public(text: &str) -> Result<PublicKey, String> {
    if is_file(text) {
        let file = KeyFile::load(Path::new(text)).map_err(|error| error.to_string())?;
        return file.public().ok_or_else(|| {
            format!("{text} names a key in a token: `steelyard key show {text}` tells its public half")
        });
    }
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// `ROLE=NUMBER`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Least {
    role: RoleName,
    threshold: usize,
}

impl Least {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (role, number) = role_of(text)?;
        let threshold = number.parse().map_err(|_| format!("`{number}` is no number"))?;
        Ok(Self { role, threshold })
    }
}

/// What happens to a key that the root has.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Another one takes its place in every role.
    Replace { old: String, new: PublicKey },
    /// It leaves a role.
    Remove { role: RoleName, old: String },
}

impl Change {
    pub(super) fn replace(text: &str) -> Result<Self, String> {
        let (old, new) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
        Ok(Self::Replace { old: prefix(old)?, new: public(new)? })
    }

    pub(super) fn remove(text: &str) -> Result<Self, String> {
        let (role, old) = role_of(text)?;
        Ok(Self::Remove { role, old: prefix(old)? })
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.len() >= MIN_PREFIX && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "`{text}` is not the beginning of a key's identifier: at least {MIN_PREFIX} hexadecimal digits"
        ))
    }
}

fn find(root: &Root, prefix: &str) -> Result<KeyId, Failure> {
    let mut found = root.keys.keys().filter(|id| id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(*id),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("the root has no key {prefix}…"))
            .help("`steelyard root show` lists its keys by role")),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several keys begin with {prefix}"))),
    }
}

/// The root with these changes, checked. A role for which keys are given keeps those that it has.
pub(super) fn change(
    mut root: Root,
    changes: &[Change],
    given: &[Given],
    thresholds: &[Least],
) -> Result<Root, Failure> {
    for change in changes {
        match change {
            Change::Replace { old, new } => {
                let old = find(&root, old)?;
                root.keys.insert(new.id(), RootKey::Ed25519 { public: *new });
                for role in root.roles.values_mut() {
                    for id in role.keys.iter_mut().filter(|id| **id == old) {
                        *id = new.id();
                    }
                }
            }
            Change::Remove { role, old } => {
                let old = find(&root, old)?;
                let keys = &mut role_keys(&mut root, *role).keys;
                let before = keys.len();
                keys.retain(|id| *id != old);
                if keys.len() == before {
                    return Err(Failure::new(Exit::NotFound, format!("{} has no role {role}", old.short())));
                }
            }
        }
    }
    for Given { role, key } in given {
        root.keys.insert(key.id(), RootKey::Ed25519 { public: *key });
        let keys = &mut role_keys(&mut root, *role).keys;
        if !keys.contains(&key.id()) {
            keys.push(key.id());
        }
    }
    for Least { role, threshold } in thresholds {
        role_keys(&mut root, *role).threshold = *threshold;
    }
    // A key that no role names any more has no business in the root.
    let Root { keys, roles, .. } = &mut root;
    keys.retain(|id, _| roles.values().any(|role| role.keys.contains(id)));
    let checked = Statement::Root(root.clone());
    checked
        .check()
        .map_err(|error| Failure::usage(error).help("give each role at least one key with --key ROLE=KEY"))?;
    Ok(root)
}

fn role_keys(root: &mut Root, role: RoleName) -> &mut RoleKeys {
    root.roles.entry(role).or_insert_with(|| RoleKeys { keys: Vec::new(), threshold: 1 })
}
