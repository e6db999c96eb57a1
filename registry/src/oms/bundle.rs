//! The bundle's JSON: writing and reading it.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MAX_BUNDLE, MEDIA_TYPE, Manifest, OmsError, PREDICATE_TYPE, PublicKey, SigningKey};
use crate::digest::Sha256;
use crate::envelope::{self, PAYLOAD_TYPE};
use crate::statement::STATEMENT_TYPE;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    media_type: Cow<'a, str>,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(default, skip_serializing)]
    certificate: Option<Value>,
    #[serde(default, skip_serializing)]
    x509_certificate_chain: Option<Value>,
    // Entries of a public log say nothing about a key that was given; the client wants the field.
    #[serde(default)]
    tlog_entries: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct Hint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    sig: String,
    #[serde(default)]
    keyid: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
struct SubjectDigest {
    sha256: Sha256,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: Sha256,
}

/// A bundle over `manifest`, as the stock client verifies it. The same manifest and key yield the same bytes.
pub fn sign(manifest: &Manifest, key: &SigningKey) -> Result<Vec<u8>, OmsError> {
    let malformed = |error: serde_json::Error| OmsError::Malformed(error.to_string());
    let resource = |(path, digest): &(String, Sha256)| Resource {
        name: path.clone(),
        algorithm: "sha256".to_owned(),
        digest: *digest,
    };
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: manifest.name().to_owned(),
            digest: SubjectDigest { sha256: manifest.root() },
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            serialization: Serialization {
                method: "files".to_owned(),
                hash_type: "sha256".to_owned(),
                allow_symlinks: false,
                ignore_paths: manifest.ignored().to_vec(),
            },
            resources: manifest.files().iter().map(resource).collect(),
        },
    };
    let payload = serde_json::to_vec(&statement).map_err(malformed)?;
    let signature = key.sign(&envelope::pae(&payload));
    let bundle = Bundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: Some(Hint { hint: Some(key.public()?.id().to_hex()) }),
            certificate: None,
            x509_certificate_chain: None,
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: BASE64.encode(&payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature { sig: BASE64.encode(&signature), keyid: Some(String::new()) }],
        },
    };
    let bytes = serde_json::to_vec(&bundle).map_err(malformed)?;
    if bytes.len() > MAX_BUNDLE {
        return Err(OmsError::TooLarge { size: bytes.len() });
    }
    Ok(bytes)
}

/// Reads a bundle that `key` signed. Everything is refused that the stock client takes on trust: several signatures, names
/// that leave the folder or come twice, other ways of hashing, a subject that is not the list's.
pub fn verify(bytes: &[u8], key: &PublicKey) -> Result<Manifest, OmsError> {
    let payload = signed_payload(bytes, key)?;
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|error| OmsError::Malformed(error.to_string()))?;
    expect("statement type", &statement.statement_type, STATEMENT_TYPE)?;
    expect("predicate type", &statement.predicate_type, PREDICATE_TYPE)?;
    let Predicate { serialization, resources } = statement.predicate;
    method("method", &serialization.method, "files")?;
    method("hash_type", &serialization.hash_type, "sha256")?;
    for resource in &resources {
        method("algorithm", &resource.algorithm, "sha256")?;
    }
    let [subject] = &statement.subject[..] else {
        return Err(OmsError::Malformed(format!(
            "one subject is expected, it has {}",
            statement.subject.len()
        )));
    };
    let files = resources.into_iter().map(|resource| (resource.name, resource.digest)).collect();
    let manifest = Manifest::new(subject.name.clone(), files, serialization.ignore_paths)?;
    if manifest.root() != subject.digest.sha256 {
        return Err(OmsError::Root {
            found: subject.digest.sha256.to_hex(),
            computed: manifest.root().to_hex(),
        });
    }
    Ok(manifest)
}

/// The payload, when its one signature is by `key`.
fn signed_payload(bytes: &[u8], key: &PublicKey) -> Result<Vec<u8>, OmsError> {
    if bytes.len() > MAX_BUNDLE {
        return Err(OmsError::TooLarge { size: bytes.len() });
    }
    let malformed = |why: String| OmsError::Malformed(why);
    let bundle: Bundle<'_> = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    expect("media type", &bundle.media_type, MEDIA_TYPE)?;
    let material = bundle.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(OmsError::NotByKey("a certificate"));
    }
    let hint = material.public_key.ok_or(OmsError::NotByKey("something else"))?.hint.unwrap_or_default();
    let given = key.id().to_hex();
    // Bundles of old clients have no hint; the signature decides.
    if !hint.is_empty() && hint != given {
        return Err(OmsError::OtherKey { found: crate::shorten(&hint), given });
    }
    let envelope = bundle.dsse_envelope;
    expect("payload type", &envelope.payload_type, PAYLOAD_TYPE)?;
    let [signature] = &envelope.signatures[..] else {
        return Err(OmsError::SignatureCount(envelope.signatures.len()));
    };
    let decode = |what: &str, text: &str| {
        envelope::canonical_base64(text)
            .ok_or_else(|| OmsError::Malformed(format!("the {what} is not base64")))
    };
    let payload = decode("payload", &envelope.payload)?;
    let signature = decode("signature", &signature.sig)?;
    if !key.verify(&envelope::pae(&payload), &signature) {
        return Err(OmsError::BadSignature { key: given });
    }
    Ok(payload)
}

fn expect(what: &'static str, found: &str, wanted: &'static str) -> Result<(), OmsError> {
    if found == wanted {
        return Ok(());
    }
    Err(OmsError::Type { what, found: crate::shorten(found), wanted })
}

fn method(what: &'static str, found: &str, wanted: &str) -> Result<(), OmsError> {
    if found == wanted { Ok(()) } else { Err(OmsError::Method { what, found: crate::shorten(found) }) }
}
