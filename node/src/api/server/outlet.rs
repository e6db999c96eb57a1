//! Sending files by the kernel, without their bytes passing through this process.
//!
//! The HTTP library writes buffers. Where a file is sent, its body gives the library a stand-in for each piece: a slice of
//! [`BLANK`], of the piece's length. The connection below knows that slice by its address, and sends the file instead. Should
//! the library ever copy a stand-in rather than pass it on, the copy would be a long buffer while a piece waits; nothing else
//! looks like that, since a head is shorter than [`MIN_PIECE`], and the connection is cut before a byte of it leaves.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Most bytes of one piece of a file.
pub(crate) const PIECE: usize = 1024 * 1024;
/// Shorter pieces are read and written like everything else. Longer than any head of an answer.
pub(crate) const MIN_PIECE: usize = 64 * 1024;
/// A reader that takes fewer than [`MIN_TAKEN`] bytes in this time, while there are more, is cut off.
const SLOW: Duration = Duration::from_secs(60);
/// See [`SLOW`]. Slower lines than 1 KiB/s are not meant.
const MIN_TAKEN: u64 = 64 * 1024;

/// What stands for a piece of a file. Never sent.
static BLANK: [u8; PIECE] = [0; PIECE];

fn is_blank(bytes: &[u8]) -> bool {
    BLANK.as_ptr_range().contains(&bytes.as_ptr())
}

#[derive(Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

/// The pieces of files that one connection is about to send.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlet(Arc<Mutex<VecDeque<Piece>>>);

impl Outlet {
    fn pieces(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to give the HTTP library for `len` bytes of `file` from `offset` on, [`MIN_PIECE`] to [`PIECE`] of them; it must
    /// be the next that this connection's body gives.
    pub(crate) fn stand_in(&self, file: &Arc<File>, offset: u64, len: usize) -> Bytes {
        self.pieces().push_back(Piece { file: Arc::clone(file), offset, left: len });
        Bytes::from_static(BLANK.get(..len).unwrap_or_default())
    }
}

/// A TCP connection that sends files, and cuts off who takes too little.
#[derive(Debug)]
pub(super) struct Sending {
    io: TcpStream,
    outlet: Outlet,
    /// When the reader must have taken enough; `None` while nothing waits for it.
    until: Option<Pin<Box<Sleep>>>,
    taken: u64,
    /// [`SLOW`], but in tests.
    slow: Duration,
}

impl Sending {
    pub(super) fn new(io: TcpStream, outlet: Outlet) -> Self {
        Self { io, outlet, until: None, taken: 0, slow: SLOW }
    }

    /// The reader takes nothing now: whether it took too little for too long.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.until.is_none() {
            self.taken = 0;
        }
        let slow = self.slow;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(slow)));
        while until.as_mut().poll(context).is_ready() {
            if std::mem::take(&mut self.taken) < MIN_TAKEN {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader is too slow")));
            }
            until.as_mut().reset(Instant::now() + slow);
        }
        Poll::Pending
    }

    fn took(&mut self, result: io::Result<usize>, offered: usize) -> Poll<io::Result<usize>> {
        if let Ok(taken) = &result {
            self.taken += *taken as u64;
            if *taken >= offered {
                self.until = None;
            }
        }
        Poll::Ready(result)
    }

    /// Sends the file that `blank` stands for.
    fn send(&mut self, context: &mut Context<'_>, blank: usize) -> Poll<io::Result<usize>> {
        loop {
            match self.io.poll_write_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.wait(context),
            }
            let mut pieces = self.outlet.pieces();
            let Some(piece) = pieces.front_mut() else {
                return Poll::Ready(Err(io::Error::other("a stand-in without its piece of a file")));
            };
            let offered = blank.min(piece.left);
            let mut offset = piece.offset;
            let sent = self.io.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(&self.io, &*piece.file, Some(&mut offset), offered)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    piece.offset += sent as u64;
                    piece.left = piece.left.saturating_sub(sent);
                    if piece.left == 0 {
                        pieces.pop_front();
                    }
                    drop(pieces);
                    return self.took(Ok(sent), offered);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices =
            slices.get(slices.iter().take_while(|slice| slice.is_empty()).count()..).unwrap_or_default();
        match slices.first() {
            Some(first) if is_blank(first) => return self.send(context, first.len()),
            _ => {}
        }
        let plain = slices.iter().take_while(|slice| slice.is_empty() || !is_blank(slice)).count();
        let plain = slices.get(..plain).unwrap_or_default();
        let waits = !self.outlet.pieces().is_empty();
        if waits && plain.iter().any(|slice| slice.len() >= MIN_PIECE) {
            return Poll::Ready(Err(io::Error::other("a stand-in was copied instead of passed on")));
        }
        let offered = plain.iter().map(|slice| slice.len()).sum();
        match Pin::new(&mut self.io).poll_write_vectored(context, plain) {
            Poll::Ready(result) => self.took(result, offered),
            Poll::Pending => self.wait(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (here, there) = tokio::join!(listener.accept(), connect);
        (here.unwrap().0, there.unwrap())
    }

    #[tokio::test]
    async fn a_stand_in_becomes_the_file_and_a_copied_one_cuts_the_connection() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..2 * PIECE).map(|byte| (byte % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (here, mut there) = pair().await;
        let outlet = Outlet::default();
        let mut sending = Sending::new(here, outlet.clone());
        let read = tokio::spawn(async move {
            let mut got = Vec::new();
            there.read_to_end(&mut got).await.unwrap();
            got
        });
        sending.write_all(b"head").await.unwrap();
        for (offset, len) in [(7, PIECE), (PIECE as u64 + 7, MIN_PIECE)] {
            let blank = outlet.stand_in(&file, offset, len);
            sending.write_all(&blank).await.unwrap();
        }
        sending.write_all(b"tail").await.unwrap();
        let copied = outlet.stand_in(&file, 0, MIN_PIECE).to_vec();
        assert!(sending.write_all(&copied).await.is_err());
        drop(sending);
        let got = read.await.unwrap();
        assert_eq!(got.len(), 8 + PIECE + MIN_PIECE);
        assert_eq!(&got[..4], b"head");
        assert_eq!(got[4..got.len() - 4], content[7..7 + PIECE + MIN_PIECE]);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(256 << 20).unwrap();
        let file = Arc::new(file);
        let (here, _there) = pair().await;
        let outlet = Outlet::default();
        let mut sending = Sending::new(here, outlet.clone());
        sending.slow = Duration::from_millis(300);
        let error = loop {
            let blank = outlet.stand_in(&file, 0, PIECE);
            if let Err(error) = sending.write_all(&blank).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
