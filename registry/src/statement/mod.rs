//! in-toto Statements v1 and the predicates that Steelyard signs (`specs/02` to `specs/05`).
//!
//! A predicate may list fields under `critical`; a reader that does not know one of them refuses the statement. All
//! other unknown fields are ignored, so that later versions can add.

mod attestation;
mod channel;
mod membership;
mod node;
mod recall;
mod release;
mod root;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use attestation::{Attestation, MAX_LABEL, MAX_RESULTS, Measure, Suite, Verdict};
pub use channel::Channel;
pub use membership::{Membership, Standing};
pub use node::{Capability, MAX_PEER_ID, NodeCertificate};
pub use recall::{Recall, RecallTarget, Severity};
pub use release::{
    DerivedFrom, File, MAX_FILE_SIZE, MAX_FILES, MAX_LINEAGE, MAX_NATIONS, Relation, Releasable, Release,
};
pub use root::{MAX_KEYS, RoleKeys, RoleName, Root, RootKey};

use crate::digest::{Digest, Sha256};
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// The in-toto statement type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Longest free text (a reason, a licence), in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most names under `critical`.
const MAX_CRITICAL: usize = 64;

/// Which predicate a statement carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A nation's keys and roles.
    Root,
    /// A node's certificate.
    Node,
    /// One version of one model.
    Release,
    /// A moving pointer to a release.
    Channel,
    /// A release must no longer be served.
    Recall,
    /// What a nation found out about a release.
    Attestation,
    /// In which standing one nation holds another.
    Membership,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Root,
        Self::Node,
        Self::Release,
        Self::Channel,
        Self::Recall,
        Self::Attestation,
        Self::Membership,
    ];

    /// The predicate type, such as `urn:steelyard:release:v1`.
    pub const fn predicate_type(self) -> &'static str {
        match self {
            Self::Root => "urn:steelyard:root:v1",
            Self::Node => "urn:steelyard:node:v1",
            Self::Release => "urn:steelyard:release:v1",
            Self::Channel => "urn:steelyard:channel:v1",
            Self::Recall => "urn:steelyard:recall:v1",
            Self::Attestation => "urn:steelyard:attestation:v1",
            Self::Membership => "urn:steelyard:membership:v1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Node => "node certificate",
            Self::Release => "release",
            Self::Channel => "channel",
            Self::Recall => "recall",
            Self::Attestation => "attestation",
            Self::Membership => "membership",
        })
    }
}

/// Why a payload is no statement that can be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not JSON of the right shape.
    #[error("this is not an in-toto statement: {0}")]
    Malformed(String),
    /// Not in-toto v1.
    #[error("statement type `{0}` is not `{STATEMENT_TYPE}`")]
    Type(String),
    /// A predicate that this version does not know.
    #[error("predicate type `{0}` is unknown; a newer version of steelyard may understand it")]
    Predicate(String),
    /// A critical field that this version does not know.
    #[error(
        "the {kind} marks the field `{field}` as critical and this version does not know it; upgrade steelyard"
    )]
    Critical {
        /// The statement's kind.
        kind: Kind,
        /// The field.
        field: String,
    },
    /// A field breaks a rule.
    #[error("the {kind}'s `{field}` is refused: {rule}")]
    Field {
        /// The statement's kind.
        kind: Kind,
        /// The field.
        field: &'static str,
        /// The rule that it breaks.
        rule: String,
    },
    /// Subjects and predicate speak of different things.
    #[error("the {kind}'s subjects do not match its predicate: {rule}")]
    Subject {
        /// The statement's kind.
        kind: Kind,
        /// What does not match.
        rule: String,
    },
}

/// An in-toto subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) digest: SubjectDigest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubjectDigest {
    #[serde(with = "bare_hex")]
    pub(crate) blake3: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<Sha256>,
}

/// in-toto writes digests as bare hexadecimal, the algorithm being the key.
pub(crate) mod bare_hex {
    use super::Digest;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest.to_hex())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Digest::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outer<'a, P> {
    #[serde(rename = "_type")]
    statement_type: std::borrow::Cow<'a, str>,
    subject: Vec<Subject>,
    predicate_type: std::borrow::Cow<'a, str>,
    predicate: P,
}

/// What each predicate brings.
pub(crate) trait Predicate: Sized + Serialize + for<'de> Deserialize<'de> {
    const KIND: Kind;
    /// Names of the fields that this version knows.
    const FIELDS: &'static [&'static str];
    /// Checks every rule that a field can break by itself, and that the subjects agree.
    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError>;
    /// The subjects to sign.
    fn subjects(&self) -> Vec<Subject>;

    fn field(field: &'static str, rule: impl Into<String>) -> StatementError {
        StatementError::Field { kind: Self::KIND, field, rule: rule.into() }
    }

    fn text(field: &'static str, text: &str) -> Result<(), StatementError> {
        if text.len() > MAX_TEXT {
            return Err(Self::field(field, format!("{} bytes is over the limit of {MAX_TEXT}", text.len())));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(Self::field(field, "it contains control characters"));
        }
        Ok(())
    }

    /// The single subject of a statement that is not about files.
    fn one_subject(subjects: &[Subject], expected: &Subject) -> Result<(), StatementError> {
        if subjects == [expected.clone()] {
            return Ok(());
        }
        Err(StatementError::Subject {
            kind: Self::KIND,
            rule: format!("expected the one subject `{}`", expected.name),
        })
    }
}

/// The subject of a statement about a name rather than about bytes: its digest is that of the name's text.
pub(crate) fn named_subject(name: String) -> Subject {
    let blake3 = Digest::of(name.as_bytes());
    Subject { name, digest: SubjectDigest { blake3, sha256: None } }
}

/// The subject of a statement about a release.
pub(crate) fn release_subject(digest: Digest) -> Subject {
    Subject { name: digest.to_string(), digest: SubjectDigest { blake3: digest, sha256: None } }
}

/// Any statement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Statement {
    Root(Root),
    Node(NodeCertificate),
    Release(Release),
    Channel(Channel),
    Recall(Recall),
    Attestation(Attestation),
    Membership(Membership),
}

macro_rules! each {
    ($statement:expr, $inner:ident => $body:expr) => {
        match $statement {
            Statement::Root($inner) => $body,
            Statement::Node($inner) => $body,
            Statement::Release($inner) => $body,
            Statement::Channel($inner) => $body,
            Statement::Recall($inner) => $body,
            Statement::Attestation($inner) => $body,
            Statement::Membership($inner) => $body,
        }
    };
}

impl Statement {
    /// Which predicate it carries.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Root(_) => Kind::Root,
            Self::Node(_) => Kind::Node,
            Self::Release(_) => Kind::Release,
            Self::Channel(_) => Kind::Channel,
            Self::Recall(_) => Kind::Recall,
            Self::Attestation(_) => Kind::Attestation,
            Self::Membership(_) => Kind::Membership,
        }
    }

    /// The role whose keys must sign it. A channel points at releases, so the release role moves it.
    pub const fn role(&self) -> RoleName {
        match self {
            Self::Root(_) => RoleName::Root,
            Self::Node(_) => RoleName::Node,
            Self::Release(_) | Self::Channel(_) => RoleName::Release,
            Self::Recall(_) => RoleName::Recall,
            Self::Attestation(_) => RoleName::Attest,
            Self::Membership(membership) => membership.role(),
        }
    }

    /// When it says it was signed.
    pub const fn issued(&self) -> Timestamp {
        each!(self, inner => inner.issued)
    }

    /// The nation that speaks, whose keys must have signed.
    pub fn nation(&self) -> &Nation {
        match self {
            Self::Root(root) => &root.nation,
            Self::Node(node) => &node.nation,
            Self::Release(release) => &release.model.nation,
            Self::Channel(channel) => &channel.model.nation,
            Self::Recall(recall) => &recall.nation,
            Self::Attestation(attestation) => &attestation.nation,
            Self::Membership(membership) => &membership.nation,
        }
    }

    /// The bytes to sign: in-toto Statement v1 as JSON.
    pub fn to_payload(&self) -> Vec<u8> {
        each!(self, inner => write(inner))
    }

    /// Checks a statement made here against the rules that a reader will apply.
    pub fn check(&self) -> Result<(), StatementError> {
        each!(self, inner => inner.check(&inner.subjects()))
    }

    /// Reads a payload and checks every rule that needs no keys.
    pub fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        let malformed = |error: serde_json::Error| StatementError::Malformed(error.to_string());
        let outer: Outer<'_, &RawValue> = serde_json::from_slice(payload).map_err(malformed)?;
        if outer.statement_type != STATEMENT_TYPE {
            return Err(StatementError::Type(crate::shorten(&outer.statement_type)));
        }
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.predicate_type() == outer.predicate_type)
            .ok_or_else(|| StatementError::Predicate(crate::shorten(&outer.predicate_type)))?;
        Ok(match kind {
            Kind::Root => Self::Root(read(outer.predicate, &outer.subject)?),
            Kind::Node => Self::Node(read(outer.predicate, &outer.subject)?),
            Kind::Release => Self::Release(release::read(outer.predicate, &outer.subject)?),
            Kind::Channel => Self::Channel(read(outer.predicate, &outer.subject)?),
            Kind::Recall => Self::Recall(read(outer.predicate, &outer.subject)?),
            Kind::Attestation => Self::Attestation(read(outer.predicate, &outer.subject)?),
            Kind::Membership => Self::Membership(read(outer.predicate, &outer.subject)?),
        })
    }
}

fn write<P: Predicate>(predicate: &P) -> Vec<u8> {
    let outer = Outer {
        statement_type: STATEMENT_TYPE.into(),
        subject: predicate.subjects(),
        predicate_type: P::KIND.predicate_type().into(),
        predicate,
    };
    serde_json::to_vec(&outer).unwrap_or_default()
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    critical: Vec<String>,
}

fn read_unchecked<P: Predicate>(raw: &RawValue) -> Result<P, StatementError> {
    let malformed = |error: serde_json::Error| StatementError::Malformed(format!("{}: {error}", P::KIND));
    let Critical { critical } = serde_json::from_str(raw.get()).map_err(malformed)?;
    if critical.len() > MAX_CRITICAL {
        return Err(P::field("critical", format!("more than {MAX_CRITICAL} names")));
    }
    if let Some(field) = critical.iter().find(|field| !P::FIELDS.contains(&field.as_str())) {
        return Err(StatementError::Critical { kind: P::KIND, field: crate::shorten(field) });
    }
    serde_json::from_str(raw.get()).map_err(malformed)
}

fn read<P: Predicate>(raw: &RawValue, subjects: &[Subject]) -> Result<P, StatementError> {
    let predicate: P = read_unchecked(raw)?;
    predicate.check(subjects)?;
    Ok(predicate)
}
