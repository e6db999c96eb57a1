//! From whom a release was imported that another tool had signed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Summary, text};
use crate::digest::Sha256;
use crate::oms::{FILE_NAME, Manifest, PublicKey};
use crate::reference::Nation;

/// The format named in a record.
const FORMAT: &str = "openssf-model-signing/v1.0";

/// The record of an import: who checked which signature by which key. It is a file of the release, and so signed by the
/// nation that imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportRecord {
    /// The nation that imported.
    pub nation: Nation,
    /// How it was signed.
    pub format: String,
    /// The model's name there.
    pub name: String,
    /// The signed digest over all files.
    pub root: Sha256,
    /// SHA-256 of the signer's public key in PEM.
    pub signer: Sha256,
    /// That key.
    pub public_key: String,
    /// The bundle's path in the release.
    pub bundle: String,
}

impl ImportRecord {
    /// The record of a bundle that was verified with `key`.
    pub fn new(nation: Nation, manifest: &Manifest, key: &PublicKey) -> Self {
        Self {
            nation,
            format: FORMAT.to_owned(),
            name: manifest.name().to_owned(),
            root: manifest.root(),
            signer: key.id(),
            public_key: key.pem().to_owned(),
            bundle: FILE_NAME.to_owned(),
        }
    }

    /// Its JSON, as the release holds it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

pub(super) fn describe(value: &Value) -> Result<Summary, String> {
    Ok(Summary::Import {
        nation: text(value, "/nation"),
        format: text(value, "/format"),
        signer: text(value, "/signer"),
        name: text(value, "/name"),
    })
}
