//! What a plan is told, and what it answers.

use std::time::Duration;

use crate::wire::News;

/// A peer, numbered by the order in which it joined this transfer.
pub type PeerKey = u32;
/// A file, by its place in the release.
pub type FileKey = u32;
/// A request, numbered over the whole transfer.
pub type RequestId = u64;
/// Somebody who reads a file while it comes, numbered by whoever runs the transfer.
pub type ReaderKey = u64;
/// Time since the transfer began.
pub type Now = Duration;

/// What a plan may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes asked of one peer at once.
    pub max_window: u64,
    /// Bytes asked of a peer whose rate is not known yet.
    pub first_window: u64,
    /// A peer that brings next to nothing for so long is dropped.
    pub stall: Duration,
    /// Chunks in their order rather than the rarest first: for one who reads the file while it comes.
    pub in_order: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A peer may be asked for what it says that it has.
    Joined {
        /// The peer.
        peer: PeerKey,
        /// Whether it holds the whole release: others are asked first for what they hold too, so that it sends what nobody
        /// else has.
        seed: bool,
    },
    /// What a peer has.
    Available {
        /// The peer.
        peer: PeerKey,
        /// Of which file, and which chunks.
        news: News,
    },
    /// How long a round trip to the peer takes.
    RoundTrip {
        /// The peer.
        peer: PeerKey,
        /// How long.
        time: Duration,
    },
    /// A file's chunk map is here.
    File {
        /// The file.
        file: FileKey,
        /// Files of a lower rank are opened first.
        rank: u64,
        /// The length of each chunk, in bytes.
        lens: Vec<u32>,
    },
    /// A file was opened as asked.
    Opened {
        /// The file.
        file: FileKey,
        /// The chunks that are not here yet.
        missing: Vec<u32>,
    },
    /// Chunks that were here turned out to be damaged.
    Damaged {
        /// The file.
        file: FileKey,
        /// Its length in chunks, for one that was complete.
        lens: Vec<u32>,
        /// The chunks.
        missing: Vec<u32>,
    },
    /// A chunk was verified and kept, whoever was asked for it.
    Chunk {
        /// The file.
        file: FileKey,
        /// Which chunk.
        index: u32,
    },
    /// A request was answered to its end, or taken back.
    Finished {
        /// The request.
        request: RequestId,
    },
    /// The peer does not have what was asked.
    Refused {
        /// The request.
        request: RequestId,
    },
    /// The peer is gone, or was found to be false.
    Lost {
        /// The peer.
        peer: PeerKey,
    },
    /// So many bytes came from a peer, verified or not.
    Bytes {
        /// The peer.
        peer: PeerKey,
        /// How many.
        bytes: u64,
    },
    /// Somebody reads these chunks while they come: they are asked for before all others, in their order. The same reader
    /// again replaces what it wanted.
    Wanted {
        /// Who.
        reader: ReaderKey,
        /// The file.
        file: FileKey,
        /// The first chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// The reader is gone or has all.
    Unwanted {
        /// Who.
        reader: ReaderKey,
    },
    /// Time passed; a few times a second.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a file, then tell [`Event::Opened`].
    Open {
        /// The file.
        file: FileKey,
    },
    /// Ask a peer for chunks.
    Fetch {
        /// The peer.
        peer: PeerKey,
        /// The request.
        request: RequestId,
        /// The file.
        file: FileKey,
        /// The first chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A request is not needed any more. It is over for the plan; what still comes is kept or not, as the disk needs it.
    Cancel {
        /// The peer.
        peer: PeerKey,
        /// The request.
        request: RequestId,
    },
    /// Leave a peer that is too slow to be of use.
    Leave {
        /// The peer.
        peer: PeerKey,
    },
    /// Every chunk of a file is here.
    Complete {
        /// The file.
        file: FileKey,
    },
}
