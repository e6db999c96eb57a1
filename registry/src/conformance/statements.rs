//! Documents 02, 03 and 04: names, envelopes, statements, roots, trust, releases, recalls.

use std::collections::BTreeMap;

use crate::envelope::{EnvelopeError, Role, Signed};
use crate::key::PublicKey;
use crate::path::PathError;
use crate::policy::{Ancestor, recall_binds};
use crate::statement::{Releasable, Statement, StatementError};
use crate::trust::{Trust, TrustError};
use crate::{ChannelName, Digest, Name, Nation, Reference, Timestamp, Version};
use serde_json::{Value, json};

use super::nations;
use super::{Outcome, Runner, broken, bytes, items, parsed, same, size, text};

pub(super) const KINDS: &[(&str, Runner)] = &[
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
    let given = text(input, "text")?;
    let read = match text(input, "what")? {
        "nation" => Nation::new(given).map(|n| n.to_string()),
        "model-name" => Name::new(given).map(|n| n.to_string()),
        "channel" => ChannelName::new(given).map(|n| n.to_string()),
        "version" => Version::new(given).map(|n| n.to_string()),
        other => return Err(broken(format!("unknown sort of name {other}"))),
    };
    let read = read.map_err(|_| "name".to_owned())?;
    same(read.as_str(), given)?;
    Ok(json!({}))
}

fn reference(input: &Value) -> Outcome {
    let read: Reference = text(input, "text")?.parse().map_err(|_| "name".to_owned())?;
    Ok(json!({ "canonical": read.to_string() }))
}

fn timestamp(input: &Value) -> Outcome {
    let read: Timestamp = text(input, "text")?.parse().map_err(|_| "time".to_owned())?;
    same(read.to_string().as_str(), text(input, "text")?)?;
    Ok(json!({ "unix": read.unix() }))
}

fn key(hex: &str) -> Result<PublicKey, serde_json::Error> {
    serde_json::from_value(json!(hex))
}

fn public_key(input: &Value) -> Outcome {
    let key = key(text(input, "public")?).map_err(|_| "key".to_owned())?;
    Ok(json!({ "id": key.id().to_string() }))
}

fn path(input: &Value) -> Outcome {
    match crate::path::check(text(input, "path")?) {
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

/// The code of a refused envelope.
pub fn envelope_code(error: &EnvelopeError) -> String {
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

/// The code of a statement that is not believed.
pub fn trust_code(error: &TrustError) -> String {
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
    let signed = Signed::parse(&bytes(input, "signed")?).map_err(|e| envelope_code(&e))?;
    let read = |hex: &Value| key(hex.as_str().unwrap_or_default()).map_err(broken);
    let keys = items(input, "keys")?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let role = Role {
        name: "release of alba".to_owned(),
        keys: keys.into_iter().map(|key| (key.id(), key)).collect(),
        threshold: size(&input["threshold"])?,
    };
    let verified = signed.verify(&role).map_err(|e| envelope_code(&e))?;
    let mut signers: Vec<_> = verified.signers().iter().map(ToString::to_string).collect();
    signers.sort();
    Ok(json!({ "digest": verified.digest().to_string(), "signers": signers }))
}

/// The kind as its predicate type says it, and the nation that speaks.
pub(super) fn show(statement: &Statement) -> Outcome {
    let kind = statement.kind().predicate_type().split(':').nth(2);
    Ok(json!({ "kind": kind, "nation": statement.nation() }))
}

fn parse(input: &Value) -> Result<Statement, String> {
    Statement::parse(&bytes(input, "payload")?).map_err(|e| statement_code(&e))
}

fn statement(input: &Value) -> Outcome {
    let read = parse(input)?;
    // What was understood can be said again, and is then understood as the same.
    same(read.check(), Ok(()))?;
    same(Statement::parse(&read.to_payload()).as_ref(), Ok(&read))?;
    show(&read)
}

fn releasable(input: &Value) -> Outcome {
    let Statement::Release(release) = parse(input)? else {
        return Err(broken("no release"));
    };
    let nation: Nation = parsed(input, "nation")?;
    Ok(json!({ "releasable": release.releasable_to(&nation) }))
}

pub(super) fn now(input: &Value) -> Result<Timestamp, String> {
    parsed(input, "now")
}

/// Pins a root whose fingerprint nobody questions, when it was issued.
pub(super) fn pin(trust: &mut Trust, signed: &Signed) -> Result<(), String> {
    let Statement::Root(root) = signed.peek().map_err(broken)? else { return Err(broken("no root")) };
    trust.pin(signed, signed.digest(), root.issued).map_err(broken)?;
    Ok(())
}

pub(super) fn signed(input: &Value, key: &str) -> Result<Signed, String> {
    Signed::parse(&bytes(input, key)?).map_err(|e| envelope_code(&e))
}

fn root(input: &Value) -> Outcome {
    let mut trust = Trust::new(Nation::new("borea").map_err(broken)?);
    if input.get("pinned").is_some() {
        pin(&mut trust, &signed(input, "pinned")?)?;
    }
    let fingerprint = text(input, "fingerprint")?.parse().map_err(broken)?;
    let member =
        trust.pin(&signed(input, "signed")?, fingerprint, now(input)?).map_err(|e| trust_code(&e))?;
    Ok(json!({ "nation": member.root.nation, "fingerprint": member.fingerprint() }))
}

fn trust(input: &Value) -> Outcome {
    let trust = nations::trust_of(input)?;
    let verified = trust.verify_at(&signed(input, "signed")?, now(input)?, nations::log(input)?);
    let verified = verified.map_err(|e| trust_code(&e))?;
    show(&verified)
}

fn node_certificate(input: &Value) -> Outcome {
    let trust = nations::trust_of(input)?;
    let certificate = trust
        .verify_node(&signed(input, "signed")?, text(input, "peer")?, now(input)?)
        .map_err(|e| trust_code(&e))?;
    Ok(json!({ "nation": certificate.nation }))
}

fn binds(input: &Value) -> Outcome {
    let Statement::Recall(recall) = parse(input)? else {
        return Err(broken("no recall"));
    };
    let (own, producer): (Nation, Nation) = (parsed(input, "own")?, parsed(input, "producer")?);
    let release: Digest = text(input, "release")?.parse().map_err(broken)?;
    let producers: BTreeMap<Digest, Option<Nation>> =
        serde_json::from_value(input["ancestors"].clone()).map_err(broken)?;
    let ancestor = |producer| Ancestor { producer, releasable_to: Releasable::All };
    let ancestors =
        producers.into_iter().map(|(digest, producer)| (digest, producer.map(ancestor))).collect();
    let binds = recall_binds(&recall, &own, &producer, release, &ancestors);
    Ok(json!({ "binds": binds }))
}
