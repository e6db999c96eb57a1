//! Server-sent events, read from a body: bounded, forgiving about line ends.

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;

use super::ClientError;

/// Largest single event: a transfer with many peers, a draft of very many files.
const MAX_EVENT: usize = 64 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What kind of event it is.
    pub name: String,
    /// Its data, JSON here.
    pub data: String,
}

/// Reads events from pieces of bytes.
pub struct Reader<S> {
    pieces: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer known to hold no line end.
    searched: usize,
    name: String,
    data: String,
    ended: bool,
}

impl<S: Stream<Item = Result<Bytes, ClientError>> + Unpin> Reader<S> {
    /// Over a body's pieces.
    pub fn new(pieces: S) -> Self {
        Self {
            pieces,
            buffer: Vec::new(),
            searched: 0,
            name: String::new(),
            data: String::new(),
            ended: false,
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = self.take(&line) {
                    return Ok(Some(event));
                }
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() + self.data.len() > MAX_EVENT {
                return Err(ClientError::TooLarge(MAX_EVENT));
            }
            match self.pieces.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece?),
                None => self.ended = true,
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let found = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
        let Some(at) = found.map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(at + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = "event: progress\ndata: {\"a\":1}\n\n: comment\r\n\r\ndata: x\ndata: y\n\n";
        for size in [1, 2, 7, 1000] {
            let pieces: Vec<_> =
                text.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let mut reader = Reader::new(futures::stream::iter(pieces));
            let first = reader.next().await.unwrap().unwrap();
            assert_eq!((first.name.as_str(), first.data.as_str()), ("progress", "{\"a\":1}"));
            assert_eq!(reader.next().await.unwrap().unwrap().data, "x\ny");
            assert_eq!(reader.next().await.unwrap(), None);
        }
    }
}
