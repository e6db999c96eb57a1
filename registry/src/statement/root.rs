//! A root: a nation's keys, the roles that they play, and when it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, StatementError, Subject, named_subject};
use crate::digest::Digest;
use crate::envelope::{MAX_ENVELOPES, Role};
use crate::key::{KeyId, PublicKey};
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// Most keys of a root, over all roles.
pub const MAX_KEYS: usize = 128;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Roots.
    Root,
    /// Releases and channels.
    Release,
    /// Attestations about others' releases.
    Attest,
    /// Recalls.
    Recall,
    /// The nation's log.
    Log,
    /// Node certificates.
    Node,
    /// Cosignatures under other nations' logs. The one role that a root may lack: that nation then witnesses nothing.
    Witness,
}

impl RoleName {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Root, Self::Release, Self::Attest, Self::Recall, Self::Log, Self::Node, Self::Witness];

    /// Its name in files and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Release => "release",
            Self::Attest => "attest",
            Self::Recall => "recall",
            Self::Log => "log",
            Self::Node => "node",
            Self::Witness => "witness",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RoleName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{}` is not a role", crate::shorten(text)))
    }
}

/// A public key with its algorithm, so that others can join Ed25519 later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "lowercase")]
pub enum RootKey {
    /// RFC 8032 Ed25519, 32 bytes as hexadecimal.
    Ed25519 {
        /// The public key.
        public: PublicKey,
    },
}

impl RootKey {
    /// The public key.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Ed25519 { public } => *public,
        }
    }
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Identifiers of keys in [`Root::keys`].
    pub keys: Vec<KeyId>,
    /// How many of them must sign.
    pub threshold: usize,
}

/// A nation's root of trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// The nation.
    pub nation: Nation,
    /// 1 for the first, then one more with each rotation.
    pub version: u64,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on nothing new is believed under it.
    pub expires: Timestamp,
    /// The keys by identifier.
    pub keys: BTreeMap<KeyId, RootKey>,
    /// The roles; each must be present but for [`RoleName::Witness`].
    pub roles: BTreeMap<RoleName, RoleKeys>,
    /// The payload digest of the root before; absent in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

impl Root {
    /// The keys and threshold of `name`, as the threshold check takes them.
    pub fn role(&self, name: RoleName) -> Role {
        let (ids, threshold) = match self.roles.get(&name) {
            Some(role) => (role.keys.as_slice(), role.threshold),
            // Refused when parsed; a threshold that nobody can meet keeps the answer safe all the same.
            None => (&[][..], usize::MAX),
        };
        let keys = ids.iter().filter_map(|id| self.keys.get(id).map(|key| (*id, key.public()))).collect();
        Role { name: format!("{name} of {}", self.nation), keys, threshold }
    }
}

impl Predicate for Root {
    const KIND: Kind = Kind::Root;
    const FIELDS: &'static [&'static str] =
        &["critical", "nation", "version", "issued", "expires", "keys", "roles", "previous"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        if self.keys.len() > MAX_KEYS {
            return Err(Self::field("keys", format!("more than {MAX_KEYS} keys")));
        }
        if let Some((id, _)) = self.keys.iter().find(|(id, key)| key.public().id() != **id) {
            return Err(Self::field("keys", format!("identifier {} is not that of its key", id.short())));
        }
        for name in RoleName::ALL {
            let Some(role) = self.roles.get(&name) else {
                if name == RoleName::Witness {
                    continue;
                }
                return Err(Self::field("roles", format!("the role `{name}` is missing")));
            };
            let mut ids = role.keys.clone();
            ids.sort();
            ids.dedup();
            if ids.len() != role.keys.len() || ids.iter().any(|id| !self.keys.contains_key(id)) {
                return Err(Self::field(
                    "roles",
                    format!("`{name}` names a key twice or one that is not listed"),
                ));
            }
            if role.threshold == 0 || role.threshold > ids.len() || ids.len() > MAX_ENVELOPES {
                let rule = format!(
                    "`{name}` has {} keys (at most {MAX_ENVELOPES}) and threshold {}",
                    ids.len(),
                    role.threshold
                );
                return Err(Self::field("roles", rule));
            }
        }
        if self.version == 0 || (self.version == 1) != self.previous.is_none() {
            return Err(Self::field("version", "version 1 has no `previous`, every later one names it"));
        }
        if self.expires <= self.issued {
            return Err(Self::field("expires", "it must be later than `issued`"));
        }
        Self::one_subject(subjects, &named_subject(self.nation.to_string()))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![named_subject(self.nation.to_string())]
    }
}
