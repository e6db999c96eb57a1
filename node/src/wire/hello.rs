//! What both sides say first on a connection: their node certificates, then whether they believe the other's.

use registry::trust::TrustError;

use super::{MAX_CERTIFICATE, WireError, take};

/// First bytes of a hello.
pub(super) const MAGIC: [u8; 4] = *b"SYHL";
/// The version of the hello and of everything that follows it.
pub(super) const VERSION: u32 = 1;
/// Bytes before the certificate: magic, version, length.
pub const HELLO_HEADER: usize = 12;

/// The first thing that each side sends: its certificate, as the JSON text of a signed statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The certificate; not believed yet.
    pub certificate: Vec<u8>,
}

impl Hello {
    /// The bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_HEADER + self.certificate.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.certificate.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.certificate);
        out
    }

    /// How long the certificate after this header is.
    pub fn decode_header(header: &[u8; HELLO_HEADER]) -> Result<usize, WireError> {
        let mut input = &header[..];
        if take::<4>(&mut input, "hello")? != MAGIC {
            return Err(WireError::Value { what: "hello", rule: "it does not begin with `SYHL`" });
        }
        if u32::from_le_bytes(take(&mut input, "hello")?) != VERSION {
            return Err(WireError::Value { what: "hello", rule: "only version 1 is spoken here" });
        }
        let len = u32::from_le_bytes(take(&mut input, "hello")?) as usize;
        match len {
            0 => Err(WireError::Length { what: "certificate", len: 0 }),
            len if len > MAX_CERTIFICATE => Err(WireError::TooLarge {
                what: "certificate",
                len: len as u64,
                limit: MAX_CERTIFICATE as u64,
            }),
            len => Ok(len),
        }
    }

    /// Reads a whole hello.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (header, rest) =
            bytes.split_first_chunk::<HELLO_HEADER>().ok_or(WireError::Truncated { what: "hello" })?;
        let len = Self::decode_header(header)?;
        match rest.len() {
            have if have < len => Err(WireError::Truncated { what: "certificate" }),
            have if have > len => Err(WireError::Length { what: "hello", len: bytes.len() as u64 }),
            _ => Ok(Self { certificate: rest.to_vec() }),
        }
    }
}

/// The one byte with which each side answers the other's hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Believed: the connection may be used.
    Accepted = 0,
    /// The nation is not pinned by the one who answers.
    NotPinned = 1,
    /// The nation's root has ended.
    RootExpired = 2,
    /// The certificate has ended.
    CertificateExpired = 3,
    /// The certificate names another peer than the one connected.
    OtherPeer = 4,
    /// Its signatures do not satisfy the nation's node role.
    BadSignature = 5,
    /// It is no node certificate that can be read.
    Malformed = 6,
    /// It was issued in the answerer's future.
    Clock = 7,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::NotPinned,
        Self::RootExpired,
        Self::CertificateExpired,
        Self::OtherPeer,
        Self::BadSignature,
        Self::Malformed,
        Self::Clock,
    ];

    /// Reads the byte.
    pub fn decode(byte: u8) -> Result<Self, WireError> {
        Self::ALL
            .into_iter()
            .find(|verdict| *verdict as u8 == byte)
            .ok_or(WireError::Value { what: "verdict", rule: "it is 0 to 7" })
    }

    /// Whether the connection may be used, when we said this and the other side said `theirs`.
    pub fn admits(self, theirs: Self) -> bool {
        self == Self::Accepted && theirs == Self::Accepted
    }

    /// What to answer when trust refuses.
    pub fn of(error: &TrustError) -> Self {
        use registry::envelope::EnvelopeError;
        match error {
            // In which standing a nation is held is told to nobody.
            TrustError::NotPinned(_) | TrustError::NotActive { .. } => Self::NotPinned,
            TrustError::RootExpired { .. } => Self::RootExpired,
            TrustError::CertificateExpired { .. } => Self::CertificateExpired,
            TrustError::OtherPeer { .. } => Self::OtherPeer,
            TrustError::FromTheFuture { .. } => Self::Clock,
            TrustError::Envelope(EnvelopeError::Threshold { .. } | EnvelopeError::BadSignature { .. })
            | TrustError::Superseded { .. }
            | TrustError::Unordered { .. } => Self::BadSignature,
            _ => Self::Malformed,
        }
    }

    /// Its short name, in events and messages.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotPinned => "not-pinned",
            Self::RootExpired => "root-expired",
            Self::CertificateExpired => "certificate-expired",
            Self::OtherPeer => "other-peer",
            Self::BadSignature => "bad-signature",
            Self::Malformed => "malformed",
            Self::Clock => "clock",
        }
    }
}
