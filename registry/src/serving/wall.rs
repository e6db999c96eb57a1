//! The walls around a worker, and what it found when it tried them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most attempts in one report.
pub const MAX_ATTEMPTS: usize = 256;

/// A wall around a worker. Each stands by itself: what one lets through by a mistake, another holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// User, network, IPC and host-name namespaces of its own: no network interface, no right over anything outside.
    Namespaces,
    /// A file system of its own that holds nothing but a view of the worker's own descriptors.
    Mounts,
    /// Landlock: no file but the admitted blobs, no TCP, no signal and no abstract socket outside.
    Landlock,
    /// Seccomp: the system calls that serving needs and no other, in every thread.
    Seccomp,
}

/// A name that no wall has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no wall; there are namespaces, mounts, landlock and seccomp")]
pub struct WallError(pub String);

impl Wall {
    /// Every wall, in the order in which they are built.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::Mounts, Self::Landlock, Self::Seccomp];

    /// Its name in settings and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Mounts => "mounts",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Wall {
    type Err = WallError;

    fn from_str(text: &str) -> Result<Self, WallError> {
        let found = Self::ALL.into_iter().find(|wall| wall.name() == text);
        found.ok_or_else(|| WallError(crate::shorten(text)))
    }
}

/// Whether a wall stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallReport {
    /// The wall.
    pub wall: Wall,
    /// Whether it stands.
    pub stands: bool,
    /// What it is made of on this kernel, or why it does not stand.
    pub detail: String,
}

/// One attempt to break out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was tried, for people.
    pub what: String,
    /// The error with which it was refused, such as `EPERM`; nothing when it succeeded.
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_those_of_the_settings() {
        for wall in Wall::ALL {
            assert_eq!(wall.name().parse::<Wall>().unwrap(), wall);
            assert_eq!(serde_json::to_string(&wall).unwrap(), format!("\"{wall}\""));
        }
        assert!("moat".parse::<Wall>().unwrap_err().to_string().contains("landlock"));
    }
}
