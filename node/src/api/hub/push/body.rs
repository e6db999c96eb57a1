//! Long bodies: read piece by piece while a thread writes them, within limits of length and time.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::super::super::Api;
use super::super::refusal::Refusal;
use crate::staging::StagingError;

/// An upload of which nothing came for so long is cut off.
const IDLE: Duration = Duration::from_secs(60);
/// Pieces that wait for the disk: some hundred KiB.
const WAITING: usize = 8;
/// What is still read of a body that was refused, so that its sender comes to the answer: most clients write all of it first,
/// and one that is cut off may never see why.
const DRAINED: u64 = 256 * 1024 * 1024;
/// For so long.
const DRAINING: Duration = Duration::from_secs(30);

enum Piece {
    Bytes(Bytes),
    /// All came. Without it the sender left in between.
    End,
}

/// A body, as whoever writes it to the disk reads it.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    left: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.left = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let len = out.len().min(self.left.len());
        let (Some(to), piece) = (out.get_mut(..len), self.left.split_to(len)) else { return Ok(0) };
        to.copy_from_slice(&piece);
        Ok(len)
    }
}

/// Gives a body of at most `limit` bytes to `work`, which runs on a thread of its own.
pub(super) async fn pour<T: Send + 'static>(
    api: &Api,
    body: Body,
    limit: u64,
    work: impl FnOnce(Pieces) -> Result<T, StagingError> + Send + 'static,
) -> Result<T, Refusal> {
    let _place = api.hub().push.uploads.acquire().await;
    let (tell, pieces) = mpsc::channel(WAITING);
    let pieces = Pieces { pieces, left: Bytes::new(), ended: false };
    let job = super::off(move || work(pieces));
    let mut stream = body.into_data_stream();
    let feeding = feed(&mut stream, tell, limit);
    let (fed, done) = tokio::join!(feeding, job);
    match fed {
        Fed::Whole | Fed::Unwanted if done.is_err() => drain(&mut stream).await,
        Fed::TooLong => {
            drain(&mut stream).await;
            return Err(StagingError::TooLarge(format!("the body is over {limit} bytes")).into());
        }
        _ => {}
    }
    done
}

enum Fed {
    Whole,
    /// Whoever writes it stopped.
    Unwanted,
    TooLong,
    Cut,
}

async fn feed(stream: &mut BodyDataStream, tell: mpsc::Sender<Piece>, limit: u64) -> Fed {
    let mut taken = 0;
    loop {
        match tokio::time::timeout(IDLE, stream.next()).await {
            Ok(Some(Ok(bytes))) => {
                taken += bytes.len() as u64;
                if taken > limit {
                    return Fed::TooLong;
                }
                if !bytes.is_empty() && tell.send(Piece::Bytes(bytes)).await.is_err() {
                    return Fed::Unwanted;
                }
            }
            Ok(None) => {
                let _ = tell.send(Piece::End).await;
                return Fed::Whole;
            }
            Ok(Some(Err(_))) | Err(_) => return Fed::Cut,
        }
    }
}

async fn drain(stream: &mut BodyDataStream) {
    let mut left = DRAINED;
    let all = async {
        while let Some(Ok(bytes)) = stream.next().await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAINING, all).await;
}

/// Reads a refused body as far as it is short.
pub(super) async fn refuse(body: Body, refusal: Refusal) -> Refusal {
    drain(&mut body.into_data_stream()).await;
    refusal
}
