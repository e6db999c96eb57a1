//! The file that one nation gives another: its signed root, its nodes' certificates, and where to find them.
//!
//! Nothing in it is believed until a person compared the root's fingerprint over another way; the certificates are
//! checked against that root, the addresses are hints.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use registry::Digest;
use registry::Signed;
use registry::Verified;
use registry::envelope::EnvelopeError;
use registry::statement::Root;
use registry::trust::{TrustError, self_signed_root};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Largest nation file: a root of 128 keys and some hundred certificates.
pub const MAX_SIZE: u64 = 4 * 1024 * 1024;
/// Most certificates and most addresses that are read.
pub const MAX_ENTRIES: usize = 1024;
/// Longest address, in bytes: a multiaddr with a long DNS name and a peer identifier.
pub const MAX_ADDRESS: usize = 512;

/// Why a nation file is refused.
#[derive(Debug, thiserror::Error)]
pub enum NationFileError {
    /// It can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too large.
    #[error("{0} is over {MAX_SIZE} bytes: it is not a nation file")]
    TooLarge(String),
    /// Not of the right shape.
    #[error("this is not a nation file: {0}; ask for the `nation.json` that `steelyard init` wrote there")]
    Malformed(String),
    /// A list is too long.
    #[error("the nation file lists {found} {what}, over the limit of {MAX_ENTRIES}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
    },
    /// A signed part can't be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The root does not stand by itself.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A nation file, parsed.
#[derive(Debug, Clone)]
pub struct NationFile {
    /// The nation's root, self-signed.
    pub root: Signed,
    /// Its nodes' certificates.
    pub nodes: Vec<Signed>,
    /// Multiaddrs that end in `/p2p/ID`.
    pub addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    root: Box<RawValue>,
    #[serde(default)]
    nodes: Vec<Box<RawValue>>,
    #[serde(default)]
    addresses: Vec<String>,
}

impl NationFile {
    /// Reads the JSON text, bounded.
    pub fn parse(text: &[u8]) -> Result<Self, NationFileError> {
        let wire: Wire =
            serde_json::from_slice(text).map_err(|error| NationFileError::Malformed(error.to_string()))?;
        for (what, found) in [("certificates", wire.nodes.len()), ("addresses", wire.addresses.len())] {
            if found > MAX_ENTRIES {
                return Err(NationFileError::TooMany { what, found });
            }
        }
        if wire.addresses.iter().any(|a| a.len() > MAX_ADDRESS || a.chars().any(char::is_control)) {
            return Err(NationFileError::Malformed(format!(
                "an address is over {MAX_ADDRESS} bytes or has control characters"
            )));
        }
        let root = Signed::parse(wire.root.get().as_bytes())?;
        let nodes =
            wire.nodes.iter().map(|node| Signed::parse(node.get().as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { root, nodes, addresses: wire.addresses })
    }

    /// Reads the file at `path`, bounded.
    pub fn load(path: &Path) -> Result<Self, NationFileError> {
        let shown = || path.display().to_string();
        let io = |source| NationFileError::Io { path: shown(), source };
        let mut text = Vec::new();
        File::open(path).map_err(io)?.take(MAX_SIZE + 1).read_to_end(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_SIZE {
            return Err(NationFileError::TooLarge(shown()));
        }
        Self::parse(&text)
    }

    /// The root, checked against the keys that it declares itself. Believe it only after comparing [`Self::fingerprint`].
    pub fn claimed_root(&self) -> Result<Verified<Root>, NationFileError> {
        Ok(self_signed_root(&self.root)?)
    }

    /// What people compare.
    pub fn fingerprint(&self) -> Digest {
        self.root.digest()
    }

    /// The JSON text.
    pub fn to_json(&self) -> Result<Vec<u8>, NationFileError> {
        let raw = |signed: &Signed| -> Result<Box<RawValue>, NationFileError> {
            let malformed = |error: String| NationFileError::Malformed(error);
            let text = String::from_utf8(signed.to_json()).map_err(|error| malformed(error.to_string()))?;
            RawValue::from_string(text).map_err(|error| malformed(error.to_string()))
        };
        let wire = Wire {
            root: raw(&self.root)?,
            nodes: self.nodes.iter().map(raw).collect::<Result<_, _>>()?,
            addresses: self.addresses.clone(),
        };
        serde_json::to_vec_pretty(&wire).map_err(|error| NationFileError::Malformed(error.to_string()))
    }
}
