//! What a plan is told, and what it answers.

use std::time::Duration;

/// A member, never numbered twice within a pool.
pub(crate) type Key = u32;
/// Somebody who asked for a member.
pub(crate) type Ticket = u64;
/// Time since the pool began.
pub(crate) type Now = Duration;

/// What a plan may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes that the members may need together.
    pub(crate) budget: u64,
    /// A member that nobody asked for so long is unloaded.
    pub(crate) idle: Option<Duration>,
    /// Most that wait at once.
    pub(crate) waiting: usize,
    /// How long a busy member takes new requests while somebody waits for its room.
    pub(crate) turn: Duration,
    /// How long somebody waits for room.
    pub(crate) patience: Duration,
}

/// How a member is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// By a request.
    Request,
    /// By a person who wants it loaded, whatever failed before.
    Person,
    /// If there is room without unloading another.
    IfRoom,
}

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The release was recalled.
    Recalled,
    /// The policy does not let it be served.
    Policy,
    /// Too few allies were heard.
    Lease,
    /// Its worker could not load it.
    Load,
}

/// Why a member is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Of what kind.
    pub(crate) why: Why,
    /// For people.
    pub(crate) words: String,
}

/// How a member's worker came to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// As it was told, by this plan or by a person.
    Stopped,
    /// There are as many workers as may be.
    Crowded,
    /// It needed more memory than it was given.
    Small(Reason),
    /// Something else went wrong.
    Failed(Reason),
    /// It may not be served.
    Refused(Reason),
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// There is another member.
    Added {
        /// Which.
        member: Key,
        /// Bytes of its weights.
        weights: u64,
    },
    /// A member means another release now.
    Other {
        /// Which.
        member: Key,
        /// Bytes of its weights.
        weights: u64,
    },
    /// A member is to be none any more.
    Removed {
        /// Which.
        member: Key,
    },
    /// A person unloads a member.
    Unload {
        /// Which.
        member: Key,
    },
    /// Somebody asks for a member.
    Came {
        /// Who.
        ticket: Ticket,
        /// For whom.
        member: Key,
        /// How.
        manner: Manner,
        /// How long it waits at most.
        until: Now,
    },
    /// Whoever had asked was answered, or left.
    Left {
        /// Who.
        ticket: Ticket,
    },
    /// A member's worker says what it needs.
    Needs {
        /// Which.
        member: Key,
        /// How much.
        bytes: u64,
    },
    /// A member's worker serves.
    Ready {
        /// Which.
        member: Key,
    },
    /// A member's worker died and is started again; what it has it keeps.
    Away {
        /// Which.
        member: Key,
    },
    /// A member's worker is gone, and its memory free.
    Gone {
        /// Which.
        member: Key,
        /// How.
        how: Gone,
    },
    /// How many workers this pool may have.
    Places {
        /// So many.
        places: usize,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker.
    Start {
        /// Of which member.
        member: Key,
        /// Bytes that it may need at most.
        limit: u64,
    },
    /// Stop the worker.
    Stop {
        /// Of which member.
        member: Key,
    },
    /// Whoever waits may ask the worker.
    LetIn {
        /// Who.
        ticket: Ticket,
    },
    /// Whoever waits does so in vain.
    Refuse {
        /// Who.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The member alone needs more than the budget.
    TooLarge {
        /// What it needs.
        needs: u64,
        /// What there is.
        budget: u64,
    },
    /// No room came free in time, or none is to be made.
    NoRoom,
    /// As many wait as may.
    Full {
        /// So many.
        limit: usize,
    },
    /// The time that the request had is over.
    Late,
    /// It is no member any more.
    Removed,
    /// It can't be served.
    Reason(Reason),
}

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not loaded.
    Out,
    /// A worker is started for it.
    Loading,
    /// It serves.
    Ready,
    /// It was told to stop.
    Stopping,
}
