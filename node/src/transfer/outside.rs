//! What a running job is told by others than its peers.

/// What a running job is told from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outside {
    /// A peer connected.
    Up(libp2p::PeerId),
    /// A recall or a change of trust: the decision is made again.
    Reconsider,
    /// Somebody reads these bytes of the release's file of that number while they come.
    Want {
        /// Who; the same again replaces what it wanted.
        reader: u64,
        /// The file, by its place in the release.
        file: u32,
        /// The first byte.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// The reader is gone.
    Unwant {
        /// Who.
        reader: u64,
    },
}
