//! Receipts: a node's signed word on one answer of a model that it served (`specs/12-receipts.md`).
//!
//! A receipt is the node's claim, not a proof. It says that this node, whose nation vouches for it, states to have answered
//! this request with this response, by these weights. It shows nobody else that the weights were really run: whoever holds
//! the node's key can claim anything. What it is good for: whoever got an answer can show later, to anybody who pins the
//! nation, what this node said it was and by which release.
//!
//! The worker that answers never holds the key. It tells the node the two digests, and the node signs what it knows itself
//! of the rest.

mod peer;
mod stream;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use peer::{key_of, peer_of};
pub use stream::{EVENT, answered};

use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Signed};
use crate::key::{PublicKey, SecretKey};
use crate::reference::{Model, Nation, Version};
use crate::statement::STATEMENT_TYPE;
use crate::timestamp::Timestamp;
use crate::trust::{MAX_CLOCK_SKEW, Trust, TrustError};

/// The predicate type.
pub const PREDICATE_TYPE: &str = "urn:steelyard:receipt:v1";
/// Longest receipt, in bytes: a claim and a certificate of some signers, in base64.
pub const MAX_RECEIPT: usize = 64 * 1024;
/// Longest name of an engine, in bytes.
pub const MAX_ENGINE: usize = 200;
/// Most values of sampling, and the longest name of one, in bytes.
pub const MAX_SAMPLING: usize = 16;
/// See [`MAX_SAMPLING`].
pub const MAX_NAME: usize = 32;
/// The subject's name.
const SUBJECT: &str = "response";
/// Fields that may be critical.
const FIELDS: [&str; 13] = [
    "critical",
    "release",
    "model",
    "version",
    "request",
    "response",
    "engine",
    "sampling",
    "nation",
    "node",
    "issued",
    "leaseEnds",
    "adapter",
];
/// A field that must be critical where it is there: who passes over it takes the answer for another model's.
const ADAPTER: &str = "adapter";

/// Why a receipt is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt.
    #[error("a receipt has at most {MAX_RECEIPT} bytes, this one has {0}")]
    TooLarge(usize),
    /// Not of a receipt's form.
    #[error("this is no receipt: {0}")]
    Malformed(String),
    /// A critical field that this version does not know.
    #[error(
        "the receipt marks the field `{0}` as critical and this version does not know it; upgrade steelyard"
    )]
    Critical(String),
    /// A field breaks a rule.
    #[error("the receipt's `{field}` is refused: {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: String,
    },
    /// An envelope can't be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The node that it names did not sign it.
    #[error("the receipt is not signed by the node {node} that it names: it was altered, or made up")]
    BadSignature {
        /// The node.
        node: String,
    },
    /// The nation does not vouch for the node.
    #[error("the nation does not vouch for the node: {0}")]
    Trust(#[from] TrustError),
    /// The certificate is another nation's.
    #[error("the receipt speaks for `{said}`, and its node belongs to `{vouched}`")]
    OtherNation {
        /// What the receipt says.
        said: Nation,
        /// Who vouches.
        vouched: Nation,
    },
    /// It was given out before its node was one.
    #[error("the receipt is of {issued}, before the node's certificate of {certified}")]
    BeforeCertificate {
        /// The receipt's time.
        issued: Timestamp,
        /// The certificate's.
        certified: Timestamp,
    },
    /// It lies in the future.
    #[error("the receipt is of {0}, in the future; compare the clocks")]
    FromTheFuture(Timestamp),
    /// Another request or response.
    #[error("the receipt is not about this {what}: it names {said}, and this has {found}")]
    Other {
        /// `request` or `response`.
        what: &'static str,
        /// What the receipt says.
        said: Digest,
        /// What was given.
        found: Digest,
    },
}

impl ReceiptError {
    /// The defect's code in test vectors.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too-large",
            Self::Malformed(_) => "malformed",
            Self::Critical(_) => "critical",
            Self::Field { .. } => "unfit",
            Self::Envelope(_) => "envelope",
            Self::BadSignature { .. } => "bad-signature",
            Self::Trust(_) => "not-vouched",
            Self::OtherNation { .. } => "other-nation",
            Self::BeforeCertificate { .. } => "before-certificate",
            Self::FromTheFuture(_) => "from-the-future",
            Self::Other { .. } => "other",
        }
    }
}

/// What a node says of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The release whose weights answered.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// BLAKE3 of the request's body, as it came.
    pub request: Digest,
    /// BLAKE3 of the response's body, as it went; of a stream, of what came before the receipt ([`answered`]).
    pub response: Digest,
    /// The engine, for people.
    pub engine: String,
    /// How tokens were to be chosen, as the request had it: numbers by their names.
    #[serde(default)]
    pub sampling: BTreeMap<String, serde_json::Number>,
    /// The node's nation.
    pub nation: Nation,
    /// The node's libp2p peer identifier.
    pub node: String,
    /// When.
    pub issued: Timestamp,
    /// When the lease ended on which it was served, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends: Option<Timestamp>,
    /// The adapter that those weights answered with, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
}

/// An adapter: a release of its own, whose weights change what the model computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
}

/// A claim as it is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    critical: &'a [&'static str],
    #[serde(flatten)]
    claim: &'a Claim,
}

#[derive(Serialize, Deserialize)]
struct Outer<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    critical: Vec<String>,
}

fn subjects(response: Digest) -> Vec<Subject> {
    let digest = BTreeMap::from([("blake3".to_owned(), response.to_hex())]);
    vec![Subject { name: SUBJECT.to_owned(), digest }]
}

impl Claim {
    fn check(&self) -> Result<(), ReceiptError> {
        let refused = |field, rule: String| Err(ReceiptError::Field { field, rule });
        if self.engine.len() > MAX_ENGINE || self.engine.chars().any(char::is_control) {
            return refused("engine", format!("at most {MAX_ENGINE} bytes without control characters"));
        }
        if self.sampling.len() > MAX_SAMPLING || self.sampling.keys().any(|name| name.len() > MAX_NAME) {
            return refused(
                "sampling",
                format!("at most {MAX_SAMPLING} numbers, with names of {MAX_NAME} bytes"),
            );
        }
        match self.lease_ends {
            Some(ends) if ends < self.issued => {
                refused("leaseEnds", "an answer after the end of the lease is none".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The receipt: this claim signed by the node's key, with the certificate of the node.
    pub fn sign(&self, key: &SecretKey, certificate: &Signed) -> Result<Receipt, ReceiptError> {
        self.check()?;
        let outer = Outer {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: subjects(self.response),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Written {
                critical: if self.adapter.is_some() { &[ADAPTER] } else { &[] },
                claim: self,
            },
        };
        let payload =
            serde_json::to_vec(&outer).map_err(|error| ReceiptError::Malformed(error.to_string()))?;
        Ok(Receipt {
            envelope: Signed::over_any(&payload, key),
            certificate: certificate.clone(),
            claim: self.clone(),
        })
    }
}

/// A receipt as it travels. Nothing in it is believed before [`Receipt::verify`].
#[derive(Debug, Clone)]
pub struct Receipt {
    envelope: Signed,
    certificate: Signed,
    claim: Claim,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    receipt: &'a RawValue,
    #[serde(borrow)]
    certificate: &'a RawValue,
}

impl Receipt {
    /// Reads a receipt and checks every rule that needs no keys.
    pub fn parse(text: &[u8]) -> Result<Self, ReceiptError> {
        if text.len() > MAX_RECEIPT {
            return Err(ReceiptError::TooLarge(text.len()));
        }
        let malformed = |error: serde_json::Error| ReceiptError::Malformed(error.to_string());
        let wire: Wire<'_> = serde_json::from_slice(text).map_err(malformed)?;
        let envelope = Signed::parse(wire.receipt.get().as_bytes())?;
        if envelope.envelopes().len() != 1 {
            return Err(ReceiptError::Malformed("exactly one envelope is expected".to_owned()));
        }
        let certificate = Signed::parse(wire.certificate.get().as_bytes())?;
        let outer: Outer<&RawValue> = serde_json::from_slice(envelope.payload()).map_err(malformed)?;
        if outer.statement_type != STATEMENT_TYPE || outer.predicate_type != PREDICATE_TYPE {
            let found = crate::shorten(&outer.predicate_type);
            return Err(ReceiptError::Malformed(format!("it is a `{found}`, not a `{PREDICATE_TYPE}`")));
        }
        let Critical { critical } = serde_json::from_str(outer.predicate.get()).map_err(malformed)?;
        if let Some(field) = critical.iter().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(ReceiptError::Critical(crate::shorten(field)));
        }
        let claim: Claim = serde_json::from_str(outer.predicate.get()).map_err(malformed)?;
        claim.check()?;
        if claim.adapter.is_some() && !critical.iter().any(|field| field == ADAPTER) {
            let rule = "a receipt that names an adapter marks the field as critical".to_owned();
            return Err(ReceiptError::Field { field: ADAPTER, rule });
        }
        if outer.subject != subjects(claim.response) {
            let rule = "it must be the one subject, named `response`".to_owned();
            return Err(ReceiptError::Field { field: "response", rule });
        }
        Ok(Self { envelope, certificate, claim })
    }

    /// Its text.
    pub fn to_json(&self) -> String {
        let text = |signed: &Signed| String::from_utf8(signed.to_json()).unwrap_or_default();
        let envelopes = text(&self.envelope);
        // The one envelope, out of its list.
        let envelope =
            envelopes.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
        format!("{{\"receipt\":{envelope},\"certificate\":{}}}", text(&self.certificate))
    }

    /// Believes it: its node signed it, and a pinned nation vouched for that node at the time.
    pub fn verify(&self, trust: &Trust, now: Timestamp) -> Result<&Claim, ReceiptError> {
        let claim = &self.claim;
        let node = || claim.node.clone();
        let key: PublicKey = key_of(&claim.node).ok_or_else(|| ReceiptError::Field {
            field: "node",
            rule: "the peer identifier of an Ed25519 key is expected".to_owned(),
        })?;
        if !self.envelope.is_by(&key) {
            return Err(ReceiptError::BadSignature { node: node() });
        }
        if claim.issued > now.plus(MAX_CLOCK_SKEW) {
            return Err(ReceiptError::FromTheFuture(claim.issued));
        }
        // As of the answer, since certificates and roots end and answers are kept.
        let vouched = trust.verify_node(&self.certificate, &claim.node, claim.issued)?;
        if vouched.nation != claim.nation {
            let (said, vouched) = (claim.nation.clone(), vouched.nation.clone());
            return Err(ReceiptError::OtherNation { said, vouched });
        }
        if claim.issued < vouched.issued {
            return Err(ReceiptError::BeforeCertificate { issued: claim.issued, certified: vouched.issued });
        }
        Ok(claim)
    }

    /// What it says, believed or not.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Claim {
    /// Whether it is about this request.
    pub fn is_of_request(&self, body: &[u8]) -> Result<(), ReceiptError> {
        is_of("request", self.request, Digest::of(body))
    }

    /// Whether it is about this response, a stream or not.
    pub fn is_of_response(&self, body: &[u8]) -> Result<(), ReceiptError> {
        is_of("response", self.response, Digest::of(answered(body)))
    }
}

fn is_of(what: &'static str, said: Digest, found: Digest) -> Result<(), ReceiptError> {
    if said == found { Ok(()) } else { Err(ReceiptError::Other { what, said, found }) }
}
