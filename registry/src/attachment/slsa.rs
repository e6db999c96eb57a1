//! SLSA provenance, version 1 and 0.2, as a statement or in an envelope; and the statement in a Model Signing bundle.

use data_encoding::BASE64;
use serde_json::Value;

use super::{Summary, items, text};

/// The statement itself, from a bare one, a DSSE envelope or a sigstore bundle.
fn statement(value: &Value) -> Result<Value, String> {
    let envelope = value.get("dsseEnvelope").unwrap_or(value);
    let Some(payload) = envelope.get("payload") else {
        return Ok(value.clone());
    };
    let bytes = payload.as_str().and_then(|payload| BASE64.decode(payload.as_bytes()).ok());
    let bytes = bytes.ok_or("its payload is not base64")?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its payload is no JSON: {error}"))
}

pub(super) fn describe(value: &Value, matches: &dyn Fn(&str) -> bool) -> Result<Summary, String> {
    let statement = statement(value)?;
    let predicate_type = text(&statement, "/predicateType");
    let (builder, build_type, materials) = match predicate_type.as_str() {
        "https://slsa.dev/provenance/v1" => (
            "/predicate/runDetails/builder/id",
            "/predicate/buildDefinition/buildType",
            "/predicate/buildDefinition/resolvedDependencies",
        ),
        "https://slsa.dev/provenance/v0.2" => {
            ("/predicate/builder/id", "/predicate/buildType", "/predicate/materials")
        }
        other => {
            return Err(format!("its predicate type is `{other}`; SLSA provenance v1 and v0.2 are read"));
        }
    };
    let subjects = items(&statement, "/subject");
    Ok(Summary::Slsa {
        builder: text(&statement, builder),
        build_type: text(&statement, build_type),
        materials: items(&statement, materials).len(),
        subjects: subjects.len(),
        matching: subjects.iter().filter(|subject| matches(&text(subject, "/digest/sha256"))).count(),
    })
}

pub(super) fn describe_oms(value: &Value, matches: &dyn Fn(&str) -> bool) -> Result<Summary, String> {
    let statement = statement(value)?;
    let files = items(&statement, "/predicate/resources");
    Ok(Summary::Oms {
        signer: text(value, "/verificationMaterial/publicKey/hint"),
        name: text(&statement, "/subject/0/name"),
        files: files.len(),
        matching: files.iter().filter(|file| matches(&text(file, "/digest"))).count(),
    })
}
