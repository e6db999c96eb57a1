//! Why a command ends badly: one line, what to do next, and the exit code.

use std::fmt;
use std::io;

use node::error::{Code, Problem};
use registry::policy::Decision;

/// Exit codes, as `steelyard help exit-codes` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Verification = 4,
    Policy = 5,
    Network = 6,
    Busy = 7,
    Interrupted = 130,
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) problem: Problem,
    /// The reader of our output is gone, which is no failure at all.
    pub(crate) closed: bool,
    /// The JSON document written already says it all.
    pub(crate) reported: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        let code = match exit {
            Exit::Other => Code::Internal,
            Exit::Usage => Code::Usage,
            Exit::NotFound => Code::NotFound,
            Exit::Verification => Code::VerificationFailed,
            Exit::Policy => Code::PolicyRefused,
            Exit::Network => Code::Network,
            Exit::Busy => Code::Busy,
            Exit::Interrupted => Code::Cancelled,
        };
        Self { exit, problem: Problem::new(code, message), closed: false, reported: false }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    pub(crate) fn closed() -> Self {
        Self { closed: true, ..Self::new(Exit::Other, "the output was closed") }
    }

    /// The JSON document on standard output says it already.
    #[must_use]
    pub(crate) fn reported(mut self) -> Self {
        self.reported = true;
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn help(mut self, hint: impl fmt::Display) -> Self {
        self.problem.hint = Some(hint.to_string());
        self
    }

    /// Adds what to do next unless something was said already.
    #[must_use]
    pub(crate) fn or_help(self, hint: impl fmt::Display) -> Self {
        if self.problem.hint.is_some() { self } else { self.help(hint) }
    }

    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.problem.decision.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.detail)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.code {
            Code::Usage | Code::Forbidden => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::VerificationFailed => Exit::Verification,
            Code::PolicyRefused => Exit::Policy,
            Code::Network => Exit::Network,
            Code::Conflict | Code::Busy => Exit::Busy,
            Code::Cancelled => Exit::Interrupted,
            Code::Disk | Code::Worker | Code::Internal => Exit::Other,
        };
        Self { exit, problem, closed: false, reported: false }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Other, format!("{error:#}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::closed() } else { Self::new(Exit::Other, error) }
    }
}

impl From<registry::key::KeyError> for Failure {
    fn from(error: registry::key::KeyError) -> Self {
        use registry::key::KeyError;
        let exit = match &error {
            KeyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            KeyError::Io { .. } | KeyError::Random(_) => Exit::Other,
            KeyError::Exposed { .. } => Exit::Policy,
            _ => Exit::Verification,
        };
        Self::new(exit, error)
    }
}

macro_rules! by_problem {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Problem::from(error).into()
            }
        }
    )*};
}

impl From<registry::oms::OmsError> for Failure {
    fn from(error: registry::oms::OmsError) -> Self {
        let exit = match error {
            registry::oms::OmsError::Key { .. } => Exit::Usage,
            _ => Exit::Verification,
        };
        Self::new(exit, error)
    }
}

by_problem!(
    node::host::HostError,
    node::nation_file::NationFileError,
    registry::reference::ReferenceError,
    registry::store::StoreError,
    registry::trust::TrustError,
    registry::envelope::EnvelopeError
);

impl From<node::serve_keys::ServeKeyError> for Failure {
    fn from(error: node::serve_keys::ServeKeyError) -> Self {
        use node::serve_keys::ServeKeyError;
        let exit = match &error {
            ServeKeyError::Unknown(_) => Exit::NotFound,
            ServeKeyError::Name(_) | ServeKeyError::TooMany => Exit::Usage,
            ServeKeyError::Exposed { .. } => Exit::Policy,
            ServeKeyError::Malformed { .. } => Exit::Verification,
            ServeKeyError::Io { .. } | ServeKeyError::Busy { .. } | ServeKeyError::Random(_) => Exit::Other,
        };
        Self::new(exit, error)
    }
}

impl From<node::client::ClientError> for Failure {
    fn from(error: node::client::ClientError) -> Self {
        use node::client::ClientError;
        match error {
            ClientError::Problem(problem) => (*problem).into(),
            ClientError::Connect { .. } | ClientError::Broken(_) => Self::new(Exit::Network, error),
            ClientError::Fetch(ref why) if why.is_passing() => Self::new(Exit::Network, error),
            ClientError::Malformed(_) => Self::new(Exit::Other, error)
                .help("is the node another version of steelyard? `steelyard status` shows it"),
            ClientError::Status(_) | ClientError::TooLarge(_) | ClientError::Fetch(_) => {
                Self::new(Exit::Other, error)
            }
        }
    }
}

impl From<node::config::ConfigError> for Failure {
    fn from(error: node::config::ConfigError) -> Self {
        Self::usage(error)
    }
}
