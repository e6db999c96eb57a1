//! Document 11: Model Signing bundles and attachments.

use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, items, text};
use crate::attachment::{self, Kind};
use crate::digest::{Digest, Sha256};
use crate::oms::{self, Manifest, OmsError, PublicKey};
use crate::statement::{File, Releasable, Release};

pub(super) const KINDS: &[(&str, Runner)] = &[
    ("model-signing", bundle),
    ("model-signing-folder", folder),
    ("model-signing-release", release),
    ("attachment-kind", kind),
    ("attachment", attachment),
];

fn code(error: OmsError) -> String {
    error.code().to_owned()
}

fn verified(input: &Value) -> Result<(PublicKey, Manifest), String> {
    let key = PublicKey::from_pem(text(input, "public")?).map_err(code)?;
    let manifest = oms::verify(&bytes(input, "bundle")?, &key).map_err(code)?;
    Ok((key, manifest))
}

fn bundle(input: &Value) -> Outcome {
    let (key, manifest) = verified(input)?;
    Ok(json!({
        "name": manifest.name(), "root": manifest.root().to_hex(), "files": manifest.files().len(),
        "signer": key.id().to_hex(),
    }))
}

fn sha256(value: &Value) -> Result<Sha256, String> {
    Sha256::from_hex(value.as_str().unwrap_or_default()).map_err(broken)
}

fn folder(input: &Value) -> Outcome {
    let (_, manifest) = verified(input)?;
    let at = text(input, "at")?;
    let files = input["folder"].as_object().ok_or_else(|| broken("no folder"))?;
    let files: Vec<(&String, Sha256)> =
        files.iter().map(|(path, digest)| Ok((path, sha256(digest)?))).collect::<Result<_, String>>()?;
    let others = files.iter().filter(|(path, _)| path.as_str() != at);
    manifest.compare(others.map(|(path, digest)| (path.as_str(), digest))).map_err(code)?;
    Ok(json!({}))
}

fn file(path: &str, media_type: &str, sha256: Sha256) -> File {
    let none = Digest::from_bytes([0; 32]);
    let (path, media_type) = (path.to_owned(), media_type.to_owned());
    File { path, blake3: none, sha256, size: 1, media_type, chunk_map: none }
}

fn release(input: &Value) -> Outcome {
    let files: Vec<File> = items(input, "files")?
        .iter()
        .map(|entry| Ok(file(text(entry, "path")?, text(entry, "mediaType")?, Sha256::from_bytes([0; 32]))))
        .collect::<Result<_, String>>()?;
    let (folder, listed) = (oms::folder_paths(&files), oms::listed(&files));
    let listed: Vec<_> = listed.into_iter().map(|(path, _)| path).collect();
    Ok(json!({ "folder": folder, "listed": listed }))
}

fn kind(input: &Value) -> Outcome {
    match Kind::of(text(input, "mediaType")?) {
        Some(kind) => Ok(json!({ "kind": kind })),
        None => Err("kind".to_owned()),
    }
}

fn attachment(input: &Value) -> Outcome {
    let kind: Kind = super::parsed(input, "attachment")?;
    let files = items(input, "files")?.iter().map(|digest| Ok(file("f", "m", sha256(digest)?)));
    let release = Release {
        model: "alba/m".parse().map_err(broken)?,
        version: "1".parse().map_err(broken)?,
        format: String::new(),
        licence: String::new(),
        derived_from: Vec::new(),
        releasable_to: Releasable::All,
        model_card: None,
        issued: "2026-11-23T12:00:00Z".parse().map_err(broken)?,
        files: files.collect::<Result<_, String>>()?,
    };
    let summary = attachment::describe(kind, &bytes(input, "bytes")?, Some(&release));
    summary
        .map_err(|error| error.code().to_owned())
        .and_then(|summary| serde_json::to_value(summary).map_err(broken))
}
