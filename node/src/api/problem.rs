//! Which problem each error of the parts below is.

use registry::admit::AdmitError;
use registry::bundle::BundleError;
use registry::checkout::CheckoutError;
use registry::digest::DigestError;
use registry::envelope::EnvelopeError;
use registry::publish::PublishError;
use registry::receipt::ReceiptError;
use registry::reference::ReferenceError;
use registry::store::StoreError;
use registry::trust::TrustError;

use super::types::{Code, Problem};
use crate::nation_file::NationFileError;
use crate::node::{DialError, NodeError, PullError};
use registry::admit::AdapterError;

use crate::serving::ServingError;

impl From<ReferenceError> for Problem {
    fn from(error: ReferenceError) -> Self {
        Self::new(Code::Usage, error)
    }
}

impl From<DigestError> for Problem {
    fn from(error: DigestError) -> Self {
        Self::new(Code::Usage, error)
    }
}

impl From<EnvelopeError> for Problem {
    fn from(error: EnvelopeError) -> Self {
        Self::new(Code::VerificationFailed, error)
    }
}

impl From<TrustError> for Problem {
    fn from(error: TrustError) -> Self {
        let code = match error {
            TrustError::NotPinned(_) => Code::NotFound,
            TrustError::OtherRoot { .. }
            | TrustError::RootConflict { .. }
            | TrustError::RootPrevious { .. }
            | TrustError::RootSkipped { .. }
            | TrustError::TooManyRoots(_)
            | TrustError::Membership(_)
            | TrustError::TooMany => Code::Conflict,
            TrustError::NotActive { .. } => Code::PolicyRefused,
            TrustError::Own(_) => Code::Usage,
            _ => Code::VerificationFailed,
        };
        Self::new(code, error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotAHome { .. } | StoreError::NoRelease(_) | StoreError::NoBlob(_) => Code::NotFound,
            StoreError::Busy { .. } | StoreError::InUse(_) => Code::Busy,
            StoreError::Exists { .. }
            | StoreError::ChannelDowngrade { .. }
            | StoreError::ChannelConflict { .. }
            | StoreError::VersionConflict { .. }
            | StoreError::TooMany { .. }
            | StoreError::Present(_) => Code::Conflict,
            StoreError::DiskFull { .. } | StoreError::Io { .. } => Code::Disk,
            StoreError::Damaged { .. }
            | StoreError::WrongContent { .. }
            | StoreError::FalseMap { .. }
            | StoreError::OtherModel { .. }
            | StoreError::Format { .. }
            | StoreError::Chunks { .. } => Code::VerificationFailed,
            StoreError::NotAFile { .. } | StoreError::Kind(_) | StoreError::NoteTooLarge { .. } => {
                Code::Usage
            }
            StoreError::Trust(_) | StoreError::Envelope(_) => {
                return match error {
                    StoreError::Trust(error) => error.into(),
                    StoreError::Envelope(error) => error.into(),
                    _ => Self::new(Code::Internal, error),
                };
            }
            _ => Code::Internal,
        };
        Self::new(code, error)
    }
}

impl From<AdmitError> for Problem {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::NotFound(_) => Self::new(Code::NotFound, error),
            AdmitError::NotARelease { .. } => Self::new(Code::Usage, error),
            AdmitError::Incomplete { .. } => Self::new(Code::NotFound, &error),
            AdmitError::WrongMap { .. } => Self::new(Code::VerificationFailed, error),
            AdmitError::Refused { decision, .. } => Self::refused(decision),
            AdmitError::Trust(error) => error.into(),
            AdmitError::Store(error) => error.into(),
        }
    }
}

impl From<ReceiptError> for Problem {
    fn from(error: ReceiptError) -> Self {
        let code = match &error {
            ReceiptError::Trust(TrustError::NotPinned(_)) => Code::NotFound,
            _ => Code::VerificationFailed,
        };
        Self::new(code, error)
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Trust(error) => error.into(),
            PublishError::Store(error) => error.into(),
            PublishError::WrongMap { .. } => Self::new(Code::VerificationFailed, error),
            PublishError::UnknownRelease { .. } | PublishError::MissingBlobs { .. } => {
                Self::new(Code::NotFound, error)
            }
            PublishError::OtherModel { .. } => Self::new(Code::Conflict, error),
            PublishError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(Code::NotFound, error)
            }
            PublishError::Io { .. } => Self::new(Code::Disk, error),
            _ => Self::new(Code::Usage, error),
        }
    }
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Trust(error) => error.into(),
            BundleError::Store(error) => error.into(),
            BundleError::Envelope(error) => error.into(),
            BundleError::Admit(error) => (*error).into(),
            BundleError::Refused { decision, .. } => Self::refused(decision),
            BundleError::Exists { .. } => Self::new(Code::Conflict, error),
            BundleError::NotPinned { .. }
            | BundleError::ForAnother { .. }
            | BundleError::Withheld { .. }
            | BundleError::Stale { .. } => Self::new(Code::PolicyRefused, error),
            BundleError::NoSuchFile(_) => Self::new(Code::NotFound, error),
            BundleError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(Code::NotFound, error)
            }
            BundleError::Io { .. } => Self::new(Code::Disk, error),
            _ => Self::new(Code::VerificationFailed, error),
        }
    }
}

impl From<CheckoutError> for Problem {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Exists { .. } => Self::new(Code::Conflict, error),
            CheckoutError::Damaged { .. } => Self::new(Code::VerificationFailed, error),
            CheckoutError::Admit(error) => error.into(),
            CheckoutError::Store(error) => error.into(),
            CheckoutError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(Code::NotFound, error)
            }
            CheckoutError::Io { .. } => Self::new(Code::Disk, error),
        }
    }
}

impl From<NationFileError> for Problem {
    fn from(error: NationFileError) -> Self {
        match error {
            NationFileError::Trust(error) => error.into(),
            NationFileError::Envelope(error) => error.into(),
            error => Self::new(Code::Usage, error),
        }
    }
}

impl From<ServingError> for Problem {
    fn from(error: ServingError) -> Self {
        match error {
            ServingError::Admit(error) => error.into(),
            ServingError::NotFound(_) | ServingError::NoPool(_) => Self::new(Code::NotFound, error),
            ServingError::Members(_) => Self::new(Code::Usage, error),
            ServingError::TooMany(_)
            | ServingError::TooManyPools(_)
            | ServingError::Stopping
            | ServingError::NotReady(_)
            | ServingError::Swapping(_)
            | ServingError::Proving(_) => Self::new(Code::Busy, error),
            ServingError::Same(_) | ServingError::NoPrevious(_) | ServingError::Pooled(..) => {
                Self::new(Code::Conflict, error)
            }
            ServingError::Adapter(AdapterError::Admit(error)) => error.into(),
            ServingError::Adapter(_) | ServingError::TooManyAdapters(_) | ServingError::AdapterAlone(_) => {
                Self::new(Code::Usage, error)
            }
            ServingError::AdapterFetch { .. } => Self::new(Code::Network, error),
            ServingError::Lease(_) | ServingError::Refused(_) => Self::new(Code::PolicyRefused, error),
            ServingError::Spawn { .. }
            | ServingError::Listen { .. }
            | ServingError::Unproved(_)
            | ServingError::Unloaded(_) => Self::new(Code::Worker, error),
        }
    }
}

impl From<PullError> for Problem {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Policy(decision) => Self::refused(*decision),
            PullError::NotFound { .. } | PullError::NotPinned { .. } => Self::new(Code::NotFound, error),
            PullError::Verification(_) => Self::new(Code::VerificationFailed, error),
            PullError::Network(_) => Self::new(Code::Network, error),
            PullError::Disk(_) | PullError::DiskFull(_) => Self::new(Code::Disk, error),
            PullError::Busy => Self::new(Code::Busy, error),
            PullError::Cancelled => Self::new(Code::Cancelled, error),
            PullError::Internal(_) => Self::new(Code::Internal, error),
        }
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Store(error) => error.into(),
            NodeError::Key(_) => Self::new(Code::NotFound, error),
            NodeError::Certificate { .. } | NodeError::Own(_) => Self::new(Code::VerificationFailed, error),
            NodeError::Network(_) => Self::new(Code::Network, error),
            NodeError::Policy(_) => Self::new(Code::Usage, error),
        }
    }
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        let code = match error {
            DialError::Address(_) => Code::Usage,
            DialError::Failed { .. } | DialError::Offline => Code::Network,
        };
        Self::new(code, error)
    }
}
