//! The file that one nation gives another: its signed root, its nodes' certificates, and where to find them.
//!
//! Nothing in it is believed until a person compared the root's fingerprint over another way; the certificates are
//! checked against that root, the addresses are hints.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use registry::Digest;
use registry::Verified;
use registry::envelope::EnvelopeError;
use registry::statement::Root;
use registry::store::{Store, StoreError};
use registry::trust::{TrustError, next_root, self_signed_root};
use registry::{Nation, Signed};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Largest nation file: a root of 128 keys and some hundred certificates.
pub const MAX_SIZE: u64 = 4 * 1024 * 1024;
/// Most certificates and most addresses that are read.
pub const MAX_ENTRIES: usize = 1024;
/// Most addresses remembered of one nation: they must fit a note of the store.
pub const MAX_REMEMBERED: usize = 64;
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
    /// The nation's first root, self-signed.
    pub root: Signed,
    /// The roots that follow it, in their order.
    pub later: Vec<Signed>,
    /// Its nodes' certificates.
    pub nodes: Vec<Signed>,
    /// Multiaddrs that end in `/p2p/ID`.
    pub addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    root: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    later: Vec<Box<RawValue>>,
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
        let counts = [
            ("roots", wire.later.len()),
            ("certificates", wire.nodes.len()),
            ("addresses", wire.addresses.len()),
        ];
        for (what, found) in counts {
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
        let each = |raw: &[Box<RawValue>]| -> Result<Vec<Signed>, EnvelopeError> {
            raw.iter().map(|one| Signed::parse(one.get().as_bytes())).collect()
        };
        let (later, nodes) = (each(&wire.later)?, each(&wire.nodes)?);
        Ok(Self { root, later, nodes, addresses: wire.addresses })
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

    /// The newest root, each one checked against the one before it. Believe it only after comparing [`Self::fingerprint`].
    pub fn newest_root(&self) -> Result<Verified<Root>, NationFileError> {
        let mut newest = self.claimed_root()?;
        for later in &self.later {
            newest = next_root(&newest, later)?;
        }
        Ok(newest)
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
            later: self.later.iter().map(raw).collect::<Result<_, _>>()?,
            nodes: self.nodes.iter().map(raw).collect::<Result<_, _>>()?,
            addresses: self.addresses.clone(),
        };
        serde_json::to_vec_pretty(&wire).map_err(|error| NationFileError::Malformed(error.to_string()))
    }
}

fn note(nation: &Nation) -> String {
    format!("addresses/{nation}")
}

/// The addresses at which the nation's nodes are dialled, as they were remembered when it was pinned.
pub fn remembered(store: &Store, nation: &Nation) -> Vec<String> {
    store.get_meta(&note(nation)).and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Remembers where the nation's nodes are dialled: those of `addresses` that name a peer, beside the ones known before.
/// Yields the new ones.
pub fn remember<'a>(
    store: &Store,
    nation: &Nation,
    addresses: impl Iterator<Item = &'a String>,
) -> Result<Vec<String>, StoreError> {
    let mut known = remembered(store, nation);
    let mut new = Vec::new();
    for address in addresses {
        let usable = address.len() <= MAX_ADDRESS && names_peer(address);
        if usable && !known.contains(address) && known.len() < MAX_REMEMBERED {
            known.push(address.clone());
            new.push(address.clone());
        }
    }
    store.put_meta(&note(nation), &serde_json::to_vec(&known).unwrap_or_default())?;
    Ok(new)
}

/// Forgets them.
pub fn forget(store: &Store, nation: &Nation) -> Result<(), StoreError> {
    store.put_meta(&note(nation), b"[]")
}

/// Whether `address` is a multiaddr that ends in `/p2p/ID`, so that whoever answers can be told from whoever is meant.
pub fn names_peer(address: &str) -> bool {
    let parsed: Result<libp2p::Multiaddr, _> = address.parse();
    parsed.is_ok_and(|parsed| matches!(parsed.iter().last(), Some(libp2p::multiaddr::Protocol::P2p(_))))
}

/// Where others reach a node with these settings: the external addresses, else those listened on that name one machine.
/// Each ends in `/p2p/` and `peer_id`. Empty while only the system knows (`0.0.0.0`, port 0).
pub fn reachable(config: &crate::config::Config, peer_id: &str) -> Vec<String> {
    let fixed = |address: &&String| {
        let text = format!("{address}/");
        !["/0.0.0.0/", "/::/", "/tcp/0/", "/udp/0/"].iter().any(|part| text.contains(part))
    };
    let own = format!("/p2p/{peer_id}");
    let listed: Vec<&String> = if config.p2p.external.is_empty() {
        config.p2p.listen.iter().filter(fixed).collect()
    } else {
        config.p2p.external.iter().collect()
    };
    listed
        .into_iter()
        .map(|address| if address.contains("/p2p/") { address.clone() } else { format!("{address}{own}") })
        .collect()
}

/// Those of a node's actual addresses that are worth telling others: loopback only where there is nothing else.
pub fn worth_telling(addresses: Vec<String>) -> Vec<String> {
    let loopback = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    if addresses.iter().all(loopback) {
        return addresses;
    }
    addresses.into_iter().filter(|address| !loopback(address)).collect()
}
