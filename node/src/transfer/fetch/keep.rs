//! Verifying and writing what came, in the blocking pool.

use std::cell::RefCell;
use std::sync::Arc;

use registry::codec::{CodecError, Decoder, Encoding};
use registry::store::{Partial, StoreError, WriteError};

use super::{Gone, Session, Told};
use crate::transfer::cache::{Encoded, EncodedChunks};
use crate::transfer::plan::{FileKey, RequestId};

/// What one request asked for.
#[derive(Clone)]
pub(super) struct Range {
    pub(super) request: RequestId,
    pub(super) file: FileKey,
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) partial: Partial,
    /// Where encoded chunks are kept for those who ask us for them.
    pub(super) pass_on: Option<Arc<EncodedChunks>>,
}

impl Range {
    /// The length of one of its chunks.
    pub(super) fn len(&self, index: u32) -> u32 {
        self.partial.map().get(index as usize).map_or(0, |chunk| chunk.len)
    }

    /// The bytes of its chunks.
    pub(super) fn bytes(&self) -> u64 {
        let chunks = self.partial.map().chunks().iter().skip(self.first as usize).take(self.count as usize);
        chunks.map(|chunk| u64::from(chunk.len)).sum()
    }
}

/// A chunk as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) index: u32,
    /// Its length by the map.
    pub(super) len: u32,
    /// Its length as it came.
    pub(super) wire: u32,
    /// The identifier of its encoding; `None` for one that came as it is.
    pub(super) encoding: Option<u8>,
}

/// Chunks in one buffer, one after the other.
pub(super) struct Batch {
    pub(super) range: Range,
    pub(super) bytes: Vec<u8>,
    pub(super) chunks: Vec<Piece>,
    /// Whether the request ends with it.
    pub(super) last: bool,
}

/// Why a chunk was not kept.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

struct Written {
    batch: Batch,
    kept: usize,
    failed: Option<Failed>,
}

thread_local! {
    /// A decoder and its output for each thread of the blocking pool that needs one.
    static DECODER: RefCell<(Decoder, Vec<u8>)> = RefCell::new((Decoder::new(), Vec::new()));
}

impl Batch {
    fn write(self) -> Written {
        let (mut kept, mut failed, mut at) = (0, None, 0);
        for piece in &self.chunks {
            let bytes = self.bytes.get(at..at + piece.wire as usize).unwrap_or_default();
            at += piece.wire as usize;
            match self.write_one(piece, bytes) {
                Ok(()) => kept += 1,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        Written { batch: self, kept, failed }
    }

    fn write_one(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Failed> {
        let (partial, index) = (&self.range.partial, piece.index as usize);
        let Some(encoding) = piece.encoding else { return Ok(partial.write_chunk(index, bytes)?) };
        let encoding = Encoding::try_from(encoding)?;
        DECODER.with_borrow_mut(|(decoder, out)| {
            out.resize(piece.len as usize, 0);
            decoder.decode(encoding, bytes, out)?;
            partial.write_chunk(index, out)?;
            if let (Some(kept), Some(chunk)) = (&self.range.pass_on, partial.map().get(index)) {
                kept.put(chunk.digest, &Arc::new(Encoded { encoding, bytes: bytes.to_vec() }));
            }
            Ok(())
        })
    }
}

impl Session {
    /// Verifies and writes a batch and tells what became of it. Answers the buffer.
    pub(super) async fn keep(&self, batch: Batch) -> Result<Vec<u8>, Gone> {
        let Ok(Written { mut batch, kept, failed }) = tokio::task::spawn_blocking(|| batch.write()).await
        else {
            // A panic inside the store: nothing more is asked of this peer, and the log has it.
            return Err(Gone::Over);
        };
        let (key, file, request) = (self.key, batch.range.file, batch.range.request);
        let wrong = batch.chunks.get(kept).map(|piece| piece.index);
        batch.chunks.truncate(kept);
        let chunks = batch.chunks.iter().map(|piece| (piece.index, piece.len)).collect();
        self.tell(Told::Kept { key, file, chunks }).await?;
        match failed {
            None => {
                if batch.last {
                    self.tell(Told::Finished { request }).await?;
                }
                Ok(batch.bytes)
            }
            Some(Failed::Write(WriteError::Store(error))) => self.disk(error).await,
            Some(error) => {
                let (index, why) = (wrong.unwrap_or_default(), error.to_string());
                self.tell(Told::Corrupt { key, file, index, why }).await?;
                Err(Gone::Over)
            }
        }
    }

    async fn disk(&self, error: StoreError) -> Result<Vec<u8>, Gone> {
        self.tell(Told::Disk { error }).await?;
        Err(Gone::Over)
    }
}
