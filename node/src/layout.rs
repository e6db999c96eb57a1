//! Where a node's files lie in its home folder.

use std::path::{Path, PathBuf};

use registry::statement::RoleName;

/// Folders of keys have this mode.
pub const KEYS_MODE: u32 = 0o700;

/// A home folder and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    home: PathBuf,
}

impl Layout {
    /// The layout of `home`, which need not exist.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// The folder itself.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Settings, in TOML.
    pub fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    /// Secret keys: mode 0700, its files 0600.
    pub fn keys(&self) -> PathBuf {
        self.home.join("keys")
    }

    /// The nation's key for `role`. Only the commands that sign read these, but for the log and witness keys: the node that
    /// holds them appends to the nation's log and cosigns allies'.
    pub fn key(&self, role: RoleName) -> PathBuf {
        self.keys().join(format!("{role}.key"))
    }

    /// Hashes of the API keys of the workers' interface: mode 0600.
    pub fn serve_keys(&self) -> PathBuf {
        self.home.join("serve-keys.json")
    }

    /// The node's own key, from which its peer identifier follows.
    pub fn peer_key(&self) -> PathBuf {
        self.keys().join("peer.key")
    }

    /// The nation's signed root.
    pub fn root(&self) -> PathBuf {
        self.home.join("root.json")
    }

    /// The node's certificate, signed by the nation's node key.
    pub fn certificate(&self) -> PathBuf {
        self.home.join("node.json")
    }

    /// What allies are given ([`crate::nation_file::NationFile`]).
    pub fn nation(&self) -> PathBuf {
        self.home.join("nation.json")
    }

    /// The running node's Unix socket, mode 0600.
    pub fn socket(&self) -> PathBuf {
        self.home.join("steelyard.sock")
    }

    /// The hashes of the hub interface's tokens, mode 0600 ([`crate::tokens::Tokens`]).
    pub fn tokens(&self) -> PathBuf {
        self.home.join("tokens.json")
    }

    /// What was pushed and not signed yet, mode 0700 ([`crate::staging`]).
    pub fn staging(&self) -> PathBuf {
        self.home.join("staging")
    }

    /// The store ([`registry::store::Store::open`]).
    pub fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// Whether `steelyard init` made this folder.
    pub fn is_initialised(&self) -> bool {
        self.root().is_file() && self.peer_key().is_file()
    }
}
