//! A line typed by a person.

use std::io::{BufRead, Read};

use tokio::sync::oneshot;

use crate::failure::{Exit, Failure};

/// Longest line taken, in bytes: no model here has a context for more.
pub(crate) const MAX_LINE: u64 = 4 * 1024 * 1024;

/// Reads a line from standard input; `None` at its end.
///
/// A thread of its own reads, and not one of the runtime's: the system can't be told to give up waiting for a person, so
/// Ctrl-C would otherwise have to wait for them too.
pub(crate) async fn line() -> Result<Option<String>, Failure> {
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().take(MAX_LINE).read_line(&mut line);
        // Whoever asked may have left meanwhile.
        let _ = send.send(read.map(|read| (read > 0).then_some(line)));
    });
    match receive.await {
        Ok(read) => Ok(read?),
        Err(_) => Err(Failure::new(Exit::Other, "standard input could not be read")),
    }
}
