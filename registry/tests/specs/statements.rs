//! Documents 02, 03 and 04: names, envelopes, statements, roots, trust, releases, recalls.

use std::collections::BTreeMap;

use registry::envelope::{EnvelopeError, Role, Signed};
use registry::key::PublicKey;
use registry::path::PathError;
use registry::policy::recall_binds;
use registry::statement::{Statement, StatementError};
use registry::trust::{Trust, TrustError};
use registry::{ChannelName, Digest, Name, Nation, Reference, Timestamp, Version};
use serde_json::{Value, json};

use crate::nations;
use crate::vectors::{Outcome, Runner, bytes, number, text};

pub(crate) const KINDS: &[(&str, Runner)] = &[
    ("name", name),
    ("reference", reference),
    ("timestamp", timestamp),
    ("public-key", public_key),
    ("path", path),
    ("envelope", envelope),
    ("statement", statement),
    ("releasable", releasable),
    ("root", root),
    ("trust", trust),
    ("node-certificate", node_certificate),
    ("recall-binds", binds),
];

fn name(input: &Value) -> Outcome {
    let given = text(input, "text");
    let read = match text(input, "what") {
        "nation" => Nation::new(given).map(|n| n.to_string()),
        "model-name" => Name::new(given).map(|n| n.to_string()),
        "channel" => ChannelName::new(given).map(|n| n.to_string()),
        "version" => Version::new(given).map(|n| n.to_string()),
        other => panic!("unknown sort of name {other}"),
    };
    let read = read.map_err(|_| "name".to_owned())?;
    assert_eq!(read, given);
    Ok(json!({}))
}

fn reference(input: &Value) -> Outcome {
    let read: Reference = text(input, "text").parse().map_err(|_| "name".to_owned())?;
    Ok(json!({ "canonical": read.to_string() }))
}

fn timestamp(input: &Value) -> Outcome {
    let read: Timestamp = text(input, "text").parse().map_err(|_| "time".to_owned())?;
    assert_eq!(read.to_string(), text(input, "text"));
    Ok(json!({ "unix": read.unix() }))
}

fn key(hex: &str) -> Result<PublicKey, serde_json::Error> {
    serde_json::from_value(json!(hex))
}

fn public_key(input: &Value) -> Outcome {
    let key = key(text(input, "public")).map_err(|_| "key".to_owned())?;
    Ok(json!({ "id": key.id().to_string() }))
}

fn path(input: &Value) -> Outcome {
    match registry::path::check(text(input, "path")) {
        Ok(()) => Ok(json!({})),
        Err(PathError::Unfit { .. }) => Err("unfit".to_owned()),
        Err(PathError::Collision { .. }) => Err("collision".to_owned()),
    }
}

fn statement_code(error: &StatementError) -> String {
    match error {
        StatementError::Malformed(_) => "malformed".to_owned(),
        StatementError::Type(_) => "type".to_owned(),
        StatementError::Predicate(_) => "predicate".to_owned(),
        StatementError::Critical { .. } => "critical".to_owned(),
        StatementError::Field { field, .. } => format!("field-{field}"),
        StatementError::Subject { .. } => "subject".to_owned(),
    }
}

pub(crate) fn envelope_code(error: &EnvelopeError) -> String {
    match error {
        EnvelopeError::TooLarge { .. } => "too-large",
        EnvelopeError::NotDsse(_) => "not-dsse",
        EnvelopeError::PayloadType(_) => "payload-type",
        EnvelopeError::SignatureCount(_) => "signature-count",
        EnvelopeError::EnvelopeCount(_) => "envelope-count",
        EnvelopeError::DifferentPayloads => "different-payloads",
        EnvelopeError::BadSignature { .. } => "bad-signature",
        EnvelopeError::Threshold { .. } => "threshold",
        EnvelopeError::Statement(error) => return statement_code(error),
        EnvelopeError::Key(_) => "key",
    }
    .to_owned()
}

pub(crate) fn trust_code(error: &TrustError) -> String {
    match error {
        TrustError::NotPinned(_) => "not-pinned",
        TrustError::RootExpired { .. } => "root-expired",
        TrustError::Fingerprint { .. } => "fingerprint",
        TrustError::OtherRoot { .. } => "other-root",
        TrustError::NotARoot(_) => "not-a-root",
        TrustError::NotTheFirst(_) => "not-the-first",
        TrustError::NotACertificate(_) => "not-a-certificate",
        TrustError::OtherPeer { .. } => "other-peer",
        TrustError::CertificateExpired { .. } => "certificate-expired",
        TrustError::FromTheFuture { .. } => "from-the-future",
        TrustError::RootSkipped { .. } => "root-skipped",
        TrustError::RootPrevious { .. } => "root-previous",
        TrustError::RootConflict { .. } => "root-conflict",
        TrustError::TooManyRoots(_) => "too-many-roots",
        TrustError::Superseded { .. } => "superseded",
        TrustError::Unordered { .. } => "unordered",
        TrustError::NotActive { .. } => "not-active",
        TrustError::Membership(error) => nations::code(error),
        TrustError::TooMany => "too-many",
        TrustError::Own(_) => "own",
        TrustError::Envelope(error) => return envelope_code(error),
    }
    .to_owned()
}

fn envelope(input: &Value) -> Outcome {
    let signed = Signed::parse(&bytes(input, "signed")).map_err(|e| envelope_code(&e))?;
    let keys = input["keys"].as_array().unwrap().iter().map(|hex| key(hex.as_str().unwrap()).unwrap());
    let role = Role {
        name: "release of alba".to_owned(),
        keys: keys.map(|key| (key.id(), key)).collect(),
        threshold: usize::try_from(number(&input["threshold"])).unwrap(),
    };
    let verified = signed.verify(&role).map_err(|e| envelope_code(&e))?;
    let mut signers: Vec<_> = verified.signers().iter().map(ToString::to_string).collect();
    signers.sort();
    Ok(json!({ "digest": verified.digest().to_string(), "signers": signers }))
}

/// The kind as its predicate type says it, and the nation that speaks.
pub(crate) fn show(statement: &Statement) -> Value {
    let kind = statement.kind().predicate_type().split(':').nth(2).unwrap();
    json!({ "kind": kind, "nation": statement.nation() })
}

fn parse(input: &Value) -> Result<Statement, String> {
    Statement::parse(&bytes(input, "payload")).map_err(|e| statement_code(&e))
}

fn statement(input: &Value) -> Outcome {
    let read = parse(input)?;
    // What was understood can be said again, and is then understood as the same.
    assert_eq!(read.check(), Ok(()));
    assert_eq!(Statement::parse(&read.to_payload()).unwrap(), read);
    Ok(show(&read))
}

fn releasable(input: &Value) -> Outcome {
    let Statement::Release(release) = parse(input)? else { panic!("no release") };
    let nation = Nation::new(text(input, "nation")).unwrap();
    Ok(json!({ "releasable": release.releasable_to(&nation) }))
}

pub(crate) fn now(input: &Value) -> Timestamp {
    text(input, "now").parse().unwrap()
}

/// Pins a root whose fingerprint nobody questions, when it was issued.
pub(crate) fn pin(trust: &mut Trust, signed: &Signed) {
    let Statement::Root(root) = signed.peek().unwrap() else { panic!("no root") };
    trust.pin(signed, signed.digest(), root.issued).unwrap();
}

pub(crate) fn signed(input: &Value, key: &str) -> Result<Signed, String> {
    Signed::parse(&bytes(input, key)).map_err(|e| envelope_code(&e))
}

fn root(input: &Value) -> Outcome {
    let mut trust = Trust::new(Nation::new("borea").unwrap());
    if input.get("pinned").is_some() {
        pin(&mut trust, &signed(input, "pinned")?);
    }
    let fingerprint = text(input, "fingerprint").parse().unwrap();
    let member = trust.pin(&signed(input, "signed")?, fingerprint, now(input)).map_err(|e| trust_code(&e))?;
    Ok(json!({ "nation": member.root.nation, "fingerprint": member.fingerprint() }))
}

fn trust(input: &Value) -> Outcome {
    let trust = nations::trust_of(input)?;
    let verified = trust.verify_at(&signed(input, "signed")?, now(input), nations::log(input));
    let verified = verified.map_err(|e| trust_code(&e))?;
    Ok(show(&verified))
}

fn node_certificate(input: &Value) -> Outcome {
    let trust = nations::trust_of(input)?;
    let certificate = trust
        .verify_node(&signed(input, "signed")?, text(input, "peer"), now(input))
        .map_err(|e| trust_code(&e))?;
    Ok(json!({ "nation": certificate.nation }))
}

fn binds(input: &Value) -> Outcome {
    let Statement::Recall(recall) = parse(input)? else { panic!("no recall") };
    let nation = |key| Nation::new(text(input, key)).unwrap();
    let release: Digest = text(input, "release").parse().unwrap();
    let ancestors: BTreeMap<Digest, Option<Nation>> =
        serde_json::from_value(input["ancestors"].clone()).unwrap();
    let binds = recall_binds(&recall, &nation("own"), &nation("producer"), release, &ancestors);
    Ok(json!({ "binds": binds }))
}
