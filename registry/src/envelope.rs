//! DSSE envelopes and THE threshold check: the only maker of [`Verified`].
//!
//! Follows DSSE v1.0.2 with one signature an envelope; a threshold is several envelopes over one payload. A signature
//! is checked with strict Ed25519 over the bytes received, never over a re-serialisation (`specs/02-envelope-and-statements.md`).

mod valid;

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::{KeyError, KeyId, PublicKey, SecretKey, Signer};
use crate::statement::{Kind, Statement, StatementError};

/// The payload type of every envelope here.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Largest payload: a release of 16,384 files with long paths fits, a memory bomb does not.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// Largest text of a signed statement: the payload in base64, once per envelope of a small threshold.
pub const MAX_SIGNED: usize = 48 * 1024 * 1024;
/// Most envelopes over one payload: more signers than any role may have keys.
pub const MAX_ENVELOPES: usize = 32;

/// Why an envelope or its signatures were refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than any statement may be.
    #[error("the {what} is {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a DSSE envelope.
    #[error("this is not a DSSE envelope: {0}")]
    NotDsse(String),
    /// Another payload type.
    #[error("payload type `{0}` is not `{PAYLOAD_TYPE}`")]
    PayloadType(String),
    /// More or fewer than one signature.
    #[error(
        "an envelope carries exactly one signature, this one has {0}; a threshold is several envelopes over one payload"
    )]
    SignatureCount(usize),
    /// No envelopes, or too many.
    #[error("a signed statement has 1 to {MAX_ENVELOPES} envelopes, this one has {0}")]
    EnvelopeCount(usize),
    /// Envelopes over different payloads.
    #[error("the envelopes are over different payloads; each must carry the same bytes")]
    DifferentPayloads,
    /// A signature does not verify.
    #[error(
        "the signature by key {key} over the {kind} {digest} is invalid: the statement was altered or not signed by that key"
    )]
    BadSignature {
        /// The key named.
        key: KeyId,
        /// What was signed.
        kind: Kind,
        /// The payload's digest.
        digest: Digest,
    },
    /// Too few valid signatures of the role.
    #[error(
        "the {kind} {digest} has {valid} of the {threshold} signatures that the role `{role}` requires; signed by: {}",
        list_keys(.signers)
    )]
    Threshold {
        /// What was signed.
        kind: Kind,
        /// The payload's digest.
        digest: Digest,
        /// The role checked against.
        role: String,
        /// Valid signatures by distinct keys of the role.
        valid: usize,
        /// Signatures required.
        threshold: usize,
        /// All keys that claim to have signed.
        signers: Vec<KeyId>,
    },
    /// The payload is no statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It could not be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn list_keys(ids: &[KeyId]) -> String {
    let mut out: Vec<String> = ids.iter().map(KeyId::short).collect();
    out.sort();
    if out.is_empty() { "nobody".to_owned() } else { out.join(", ") }
}

/// The keys of one role and how many of them must sign.
#[derive(Debug, Clone)]
pub struct Role {
    /// The role's name, for messages.
    pub name: String,
    /// Its keys.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// How many distinct keys must sign; at least 1.
    pub threshold: usize,
}

/// One DSSE envelope with its one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Arc<[u8]>,
    key: KeyId,
    signature: [u8; 64],
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    payload: std::borrow::Cow<'a, str>,
    payload_type: std::borrow::Cow<'a, str>,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    keyid: KeyId,
    sig: String,
}

/// DSSE's pre-authentication encoding: what is signed.
pub(crate) fn pae(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Bytes of canonical base64 (RFC 4648 section 4): padded, without white space, unused bits zero.
pub(crate) fn canonical_base64(text: &str) -> Option<Vec<u8>> {
    // The decoder takes padded pieces one after the other; the canonical text has padding at its end alone.
    if text.find('=').is_some_and(|at| at + 2 < text.len()) {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

impl Envelope {
    fn from_wire(wire: Wire<'_>) -> Result<Self, EnvelopeError> {
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType(crate::shorten(&wire.payload_type)));
        }
        let [signature] = &wire.signatures[..] else {
            return Err(EnvelopeError::SignatureCount(wire.signatures.len()));
        };
        let payload = canonical_base64(&wire.payload)
            .ok_or_else(|| EnvelopeError::NotDsse("the payload is not canonical base64".to_owned()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(EnvelopeError::TooLarge { what: "payload", size: payload.len(), limit: MAX_PAYLOAD });
        }
        let bytes = BASE64
            .decode(signature.sig.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .ok_or_else(|| EnvelopeError::NotDsse("the signature is not base64 of 64 bytes".to_owned()))?;
        Ok(Self { payload: payload.into(), key: signature.keyid, signature: bytes })
    }

    fn wire(&self) -> Wire<'static> {
        Wire {
            payload: BASE64.encode(&self.payload).into(),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![WireSignature { keyid: self.key, sig: BASE64.encode(&self.signature) }],
        }
    }

    /// The key that claims to have signed.
    pub fn key(&self) -> KeyId {
        self.key
    }
}

/// A statement as it travels: one payload and the envelopes over it. Nothing in it is believed yet.
///
/// Its text form is a JSON array of DSSE envelopes (a single envelope object is read too).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    envelopes: Vec<Envelope>,
}

impl Signed {
    /// Signs `statement` with one key.
    pub fn sign(statement: &Statement, key: &SecretKey) -> Self {
        let mut signed = Self { envelopes: Vec::new() };
        signed.push(statement.to_payload().into(), key);
        signed
    }

    /// Adds a further signature over the same payload; a key that signed already is not added twice.
    pub fn cosign(&mut self, key: &SecretKey) {
        let id = key.id();
        if !self.envelopes.iter().any(|e| e.key == id)
            && let Some(first) = self.envelopes.first()
        {
            self.push(first.payload.clone(), key);
        }
    }

    /// Signs a payload as it stands, not a re-serialisation of what it says, with whatever signs. The payload must be a
    /// statement.
    pub fn over(payload: &[u8], signer: &dyn Signer) -> Result<Self, EnvelopeError> {
        Statement::parse(payload)?;
        let mut signed = Self { envelopes: Vec::new() };
        signed.push_by(payload.into(), signer)?;
        Ok(signed)
    }

    /// Signs `statement` with whatever signs.
    pub fn sign_by(statement: &Statement, signer: &dyn Signer) -> Result<Self, EnvelopeError> {
        Self::over(&statement.to_payload(), signer)
    }

    /// Adds a further signature over the same payload; whether the key had not signed yet.
    pub fn cosign_by(&mut self, signer: &dyn Signer) -> Result<bool, EnvelopeError> {
        let id = signer.id();
        if self.envelopes.iter().any(|envelope| envelope.key == id) {
            return Ok(false);
        }
        if self.envelopes.len() >= MAX_ENVELOPES {
            return Err(EnvelopeError::EnvelopeCount(self.envelopes.len() + 1));
        }
        self.push_by(self.payload().clone(), signer)?;
        Ok(true)
    }

    /// One envelope over a payload that is no statement, such as a receipt.
    pub(crate) fn over_any(payload: &[u8], key: &SecretKey) -> Self {
        let mut signed = Self { envelopes: Vec::new() };
        signed.push(payload.into(), key);
        signed
    }

    /// Whether this is one envelope, and `key` signed it.
    pub(crate) fn is_by(&self, key: &PublicKey) -> bool {
        let [envelope] = &self.envelopes[..] else { return false };
        envelope.key == key.id() && key.verify(&pae(&envelope.payload), &envelope.signature)
    }

    fn push_by(&mut self, payload: Arc<[u8]>, signer: &dyn Signer) -> Result<(), EnvelopeError> {
        let signature = signer.try_sign(&pae(&payload))?;
        self.envelopes.push(Envelope { payload, key: signer.id(), signature });
        Ok(())
    }

    fn push(&mut self, payload: Arc<[u8]>, key: &SecretKey) {
        let signature = key.sign(&pae(&payload));
        self.envelopes.push(Envelope { payload, key: key.id(), signature });
    }

    /// Reads a JSON array of envelopes, or a single envelope.
    pub fn parse(text: &[u8]) -> Result<Self, EnvelopeError> {
        if text.len() > MAX_SIGNED {
            return Err(EnvelopeError::TooLarge {
                what: "signed statement",
                size: text.len(),
                limit: MAX_SIGNED,
            });
        }
        let not_dsse = |error: serde_json::Error| EnvelopeError::NotDsse(error.to_string());
        let first = text.iter().find(|b| !b.is_ascii_whitespace());
        let wires: Vec<Wire<'_>> = match first {
            Some(b'[') => serde_json::from_slice(text).map_err(not_dsse)?,
            _ => vec![serde_json::from_slice(text).map_err(not_dsse)?],
        };
        if wires.is_empty() || wires.len() > MAX_ENVELOPES {
            return Err(EnvelopeError::EnvelopeCount(wires.len()));
        }
        let envelopes = wires.into_iter().map(Envelope::from_wire).collect::<Result<Vec<_>, _>>()?;
        if envelopes.windows(2).any(|pair| pair[0].payload != pair[1].payload) {
            return Err(EnvelopeError::DifferentPayloads);
        }
        Ok(Self { envelopes })
    }

    /// The JSON array of envelopes.
    pub fn to_json(&self) -> Vec<u8> {
        let wires: Vec<Wire<'_>> = self.envelopes.iter().map(Envelope::wire).collect();
        serde_json::to_vec(&wires).unwrap_or_default()
    }

    /// The envelopes; never empty.
    pub fn envelopes(&self) -> &[Envelope] {
        &self.envelopes
    }

    /// The payload that all envelopes carry.
    pub fn payload(&self) -> &Arc<[u8]> {
        &self.envelopes[0].payload
    }

    /// BLAKE3 of the payload: the statement's name, however many signed it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.payload())
    }

    /// Takes over the envelopes by keys that have not signed yet from a statement with the same payload; whether there
    /// were any. At most [`MAX_ENVELOPES`] are kept.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.envelopes.len();
        if self.payload() == other.payload() {
            for envelope in &other.envelopes {
                let known = self.envelopes.iter().any(|mine| mine.key == envelope.key);
                if !known && self.envelopes.len() < MAX_ENVELOPES {
                    self.envelopes.push(envelope.clone());
                }
            }
        }
        self.envelopes.len() > before
    }

    /// Reads the payload without believing it: to learn which nation's keys to ask for.
    pub fn peek(&self) -> Result<Statement, StatementError> {
        Statement::parse(self.payload())
    }

    /// THE threshold check: at least `role.threshold` distinct keys of `role` signed this payload.
    ///
    /// Every envelope by a key of the role must verify; one that does not is an alteration and refuses the whole.
    /// Envelopes by other keys count for nothing.
    pub fn verify(&self, role: &Role) -> Result<Verified<Statement>, EnvelopeError> {
        self.read()?.verify(role)
    }

    /// Reads the payload, for whoever looks at what it says before the check.
    pub(crate) fn read(&self) -> Result<Read<'_>, StatementError> {
        Ok(Read { statement: self.peek()?, signed: self })
    }

    fn check(&self, statement: Statement, role: &Role) -> Result<Verified<Statement>, EnvelopeError> {
        let digest = self.digest();
        let message = pae(self.payload());
        let mut valid = Vec::new();
        for envelope in &self.envelopes {
            let Some(key) = role.keys.get(&envelope.key) else { continue };
            if !valid::signed(key, &envelope.signature, &digest, &message) {
                return Err(EnvelopeError::BadSignature {
                    key: envelope.key,
                    kind: statement.kind(),
                    digest,
                });
            }
            if !valid.contains(&envelope.key) {
                valid.push(envelope.key);
            }
        }
        if role.threshold == 0 || valid.len() < role.threshold {
            return Err(EnvelopeError::Threshold {
                kind: statement.kind(),
                digest,
                role: role.name.clone(),
                valid: valid.len(),
                threshold: role.threshold,
                signers: self.envelopes.iter().map(Envelope::key).collect(),
            });
        }
        Ok(Verified { value: statement, digest, signers: valid, signed: self.clone() })
    }
}

/// A signed statement with what its own payload says, read once. Only [`Signed::read`] makes one.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    signed: &'a Signed,
    statement: Statement,
}

impl<'a> Read<'a> {
    /// What it says; nothing of it is believed.
    pub(crate) fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The statement as it travels.
    pub(crate) fn signed(&self) -> &'a Signed {
        self.signed
    }

    /// The threshold check ([`Signed::verify`]).
    pub(crate) fn verify(self, role: &Role) -> Result<Verified<Statement>, EnvelopeError> {
        self.signed.check(self.statement, role)
    }
}

/// A value whose signatures were checked against a role's threshold. Only [`Signed::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    digest: Digest,
    signers: Vec<KeyId>,
    signed: Signed,
}

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The payload's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The distinct keys whose signatures count.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// The statement as it travels.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The statement with only those envelopes whose signatures count: what is worth keeping and passing on.
    pub fn proven(&self) -> Signed {
        let mut kept: Vec<Envelope> = Vec::new();
        for envelope in &self.signed.envelopes {
            // The check refused bad signatures by these keys, so a second one by the same key is only a repetition.
            if self.signers.contains(&envelope.key) && !kept.iter().any(|k| k.key == envelope.key) {
                kept.push(envelope.clone());
            }
        }
        Signed { envelopes: kept }
    }

    /// This promise together with another one about the same payload: the signers of both count. `self` where it is another.
    pub(crate) fn and_also<U>(mut self, other: &Verified<U>) -> Self {
        if self.digest == other.digest {
            for signer in &other.signers {
                if !self.signers.contains(signer) {
                    self.signers.push(*signer);
                }
            }
        }
        self
    }

    /// The same promise about a part of the value; `None` where `part` finds none.
    pub(crate) fn narrow<U>(self, part: impl FnOnce(T) -> Option<U>) -> Option<Verified<U>> {
        let Self { value, digest, signers, signed } = self;
        part(value).map(|value| Verified { value, digest, signers, signed })
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl Verified<Statement> {
    /// The release, if that is what was verified.
    pub fn into_release(self) -> Option<Verified<crate::statement::Release>> {
        self.narrow(|statement| match statement {
            Statement::Release(release) => Some(release),
            _ => None,
        })
    }
}

impl Verified<crate::statement::Root> {
    /// The same promise about the statement as a whole.
    pub fn into_statement(self) -> Verified<Statement> {
        let Self { value, digest, signers, signed } = self;
        Verified { value: Statement::Root(value), digest, signers, signed }
    }
}

impl Verified<crate::statement::Release> {
    /// The same promise about the statement as a whole.
    pub fn into_statement(self) -> Verified<Statement> {
        let Self { value, digest, signers, signed } = self;
        Verified { value: Statement::Release(value), digest, signers, signed }
    }
}
