//! What a caller of the HTTP interface is told when something fails: problem details (RFC 9457) with a stable code.

use std::fmt;

use registry::policy::Decision;
use serde::{Deserialize, Serialize};

/// The media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of failure it is: stable, for programs. The command line turns each into its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong.
    Usage,
    /// There is no such thing here, and no peer has it.
    NotFound,
    /// Bytes or signatures are not what they should be.
    VerificationFailed,
    /// The local policy refuses.
    PolicyRefused,
    /// Peers can't be reached, or none has the bytes.
    Network,
    /// It contradicts what is known, such as a lower channel sequence.
    Conflict,
    /// Somebody else is at it, or a limit is reached.
    Busy,
    /// This interface may not do that.
    Forbidden,
    /// The disk is full or broken.
    Disk,
    /// Stopped by whoever asked.
    Cancelled,
    /// The worker could not start.
    Worker,
    /// A fault in this program.
    Internal,
}

impl Code {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::VerificationFailed => 422,
            Self::PolicyRefused | Self::Forbidden => 403,
            Self::Network => 502,
            Self::Conflict => 409,
            Self::Busy => 503,
            Self::Disk => 507,
            Self::Cancelled => 499,
            Self::Worker | Self::Internal => 500,
        }
    }

    /// A short name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Usage => "Wrong request",
            Self::NotFound => "Not found",
            Self::VerificationFailed => "Verification failed",
            Self::PolicyRefused => "Refused by policy",
            Self::Network => "Network failure",
            Self::Conflict => "Conflict",
            Self::Busy => "Busy",
            Self::Forbidden => "Not allowed here",
            Self::Disk => "Disk failure",
            Self::Cancelled => "Cancelled",
            Self::Worker => "Worker failed",
            Self::Internal => "Internal fault",
        }
    }

    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::VerificationFailed => "verification_failed",
            Self::PolicyRefused => "policy_refused",
            Self::Network => "network",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Forbidden => "forbidden",
            Self::Disk => "disk",
            Self::Cancelled => "cancelled",
            Self::Worker => "worker",
            Self::Internal => "internal",
        }
    }
}

/// Problem details, RFC 9457. Its `type` and `title` follow from the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What happened, for people.
    pub detail: String,
    /// What kind of failure it is, for programs.
    pub code: Code,
    /// What to do next, for people.
    pub hint: Option<String>,
    /// The whole decision, where a policy refused.
    pub decision: Option<Box<Decision>>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    title: String,
    status: u16,
    detail: String,
    code: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<Box<Decision>>,
}

impl From<Wire> for Problem {
    fn from(wire: Wire) -> Self {
        let Wire { status, detail, code, hint, decision, .. } = wire;
        Self { status, detail, code, hint, decision }
    }
}

impl From<Problem> for Wire {
    fn from(problem: Problem) -> Self {
        let Problem { status, detail, code, hint, decision } = problem;
        let kind = format!("urn:steelyard:problem:{}", code.as_str());
        Self { kind, title: code.title().to_owned(), status, detail, code, hint, decision }
    }
}

impl Problem {
    /// A problem with what happened.
    pub fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self { status: code.status(), detail: detail.to_string(), code, hint: None, decision: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A policy's refusal, with every rule's answer.
    pub fn refused(decision: Decision) -> Self {
        let why: Vec<String> =
            decision.refusals().map(|check| format!("{}: {}", check.rule, check.detail)).collect();
        let mut problem = Self::new(Code::PolicyRefused, format!("refused by policy: {}", why.join("; ")));
        problem.decision = Some(Box::new(decision));
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}
