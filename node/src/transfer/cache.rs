//! Chunks as they travelled encoded, kept for a while: a seed with many askers encodes once, and a node that passes on what it
//! fetches need not encode at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::Digest;
use registry::codec::Encoding;

/// Bytes kept for all transfers together. In a swarm a chunk is asked for soon after it came, or not of us.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Chunks kept, those among them of which only is known that nothing makes them smaller.
const MAX_CHUNKS: usize = 16 * 1024;

/// A chunk as it travels.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// How.
    pub(crate) encoding: Encoding,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the digest of the chunk; `None` for one that does not become smaller.
    chunks: HashMap<Digest, Option<Arc<Encoded>>>,
    /// The oldest first.
    order: VecDeque<Digest>,
    bytes: usize,
}

/// Encoded chunks by the digest of what they decode to. Who may have a chunk is decided before anybody looks here.
#[derive(Debug, Default)]
pub(crate) struct EncodedChunks(Mutex<Kept>);

impl EncodedChunks {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk as it travelled before. One that travels as it is comes as [`Encoding::Raw`], without its bytes.
    pub(crate) fn get(&self, chunk: &Digest) -> Option<Arc<Encoded>> {
        let kept = self.kept().chunks.get(chunk).cloned()?;
        Some(kept.unwrap_or_else(|| Arc::new(Encoded { encoding: Encoding::Raw, bytes: Vec::new() })))
    }

    /// Whether the chunk travelled before.
    pub(crate) fn holds(&self, chunk: &Digest) -> bool {
        self.kept().chunks.contains_key(chunk)
    }

    /// Keeps a chunk that decodes to what has this digest; whoever calls has found that it does.
    pub(crate) fn put(&self, chunk: Digest, encoded: &Arc<Encoded>) {
        let value = (encoded.encoding != Encoding::Raw).then(|| Arc::clone(encoded));
        let len = |value: &Option<Arc<Encoded>>| value.as_ref().map_or(0, |encoded| encoded.bytes.len());
        let mut kept = self.kept();
        let kept = &mut *kept;
        kept.bytes += len(&value);
        match kept.chunks.insert(chunk, value) {
            Some(old) => kept.bytes -= len(&old),
            None => kept.order.push_back(chunk),
        }
        while kept.bytes > MAX_BYTES || kept.order.len() > MAX_CHUNKS {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(old) = kept.chunks.remove(&oldest) {
                kept.bytes -= len(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(len: usize) -> Arc<Encoded> {
        Arc::new(Encoded { encoding: Encoding::Planes2, bytes: vec![0; len] })
    }

    fn digest(number: u32) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn the_oldest_give_way_and_the_bytes_stay_within_their_limit() {
        let chunks = EncodedChunks::default();
        let len = 1 << 20;
        let most = (MAX_BYTES / len) as u32;
        for number in 0..most + 3 {
            chunks.put(digest(number), &encoded(len));
            chunks.put(digest(number), &encoded(len));
        }
        assert_eq!(chunks.kept().bytes, MAX_BYTES);
        assert!((0..3).all(|number| chunks.get(&digest(number)).is_none()));
        assert!(
            (3..most + 3).all(|number| chunks.get(&digest(number)).is_some_and(|c| c.bytes.len() == len))
        );
    }

    #[test]
    fn what_does_not_shrink_is_remembered_without_its_bytes() {
        let chunks = EncodedChunks::default();
        for number in 0..=MAX_CHUNKS as u32 {
            let plain = Arc::new(Encoded { encoding: Encoding::Raw, bytes: vec![0; 10] });
            chunks.put(digest(number), &plain);
        }
        assert_eq!(chunks.kept().bytes, 0);
        assert!(chunks.get(&digest(0)).is_none());
        let last = chunks.get(&digest(1)).map(|chunk| (chunk.encoding, chunk.bytes.len()));
        assert_eq!(last, Some((Encoding::Raw, 0)));
    }
}
