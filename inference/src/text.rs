//! From the bytes of tokens to text that may be sent: whole characters only, and nothing of a stop sequence.

/// Joins bytes to characters. A token may end in the middle of one; its bytes wait for the rest.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    /// At most the three bytes of an unfinished character between two calls.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes bytes; gives the characters that are complete. Bytes that are no UTF-8 become U+FFFD, as in the
    /// Unicode standard's "substitution of maximal subparts".
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, rest) = self.pending.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let skip = error.error_len();
                    let rest = rest.get(skip.unwrap_or(0)..).unwrap_or_default().to_vec();
                    self.pending = rest;
                    match skip {
                        Some(_) => text.push(char::REPLACEMENT_CHARACTER),
                        None => return text,
                    }
                }
            }
        }
    }

    /// Bytes of a character that is not complete.
    pub fn held(&self) -> usize {
        self.pending.len()
    }

    /// The end: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Finds the first stop sequence in a stream of text and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub struct StopScanner {
    stops: Vec<String>,
    held: String,
    /// Bytes from the beginning of the stop sequence that was met to the end of what was taken.
    stopped: Option<usize>,
}

impl StopScanner {
    /// Looks for `stops`; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
            stopped: None,
        }
    }

    /// Takes text; gives what may be sent, and whether a stop sequence was met (it is never sent, nor what
    /// follows it).
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = Some(self.held.len() - at);
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep_from = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len());
        let kept = self.held.split_off(keep_from);
        (std::mem::replace(&mut self.held, kept), false)
    }

    /// The end without a stop sequence: what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Both together: what the engine's tokens become for one request.
#[derive(Debug, Default)]
pub struct AnswerText {
    utf8: Utf8Stream,
    stops: StopScanner,
}

impl AnswerText {
    /// Text that ends at the first of `stops`.
    pub fn new(stops: Vec<String>) -> Self {
        Self { utf8: Utf8Stream::default(), stops: StopScanner::new(stops) }
    }

    /// Takes a token's bytes; gives text to send and whether the answer ends here.
    pub fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        let text = self.utf8.push(bytes);
        if text.is_empty() { (text, false) } else { self.stops.push(&text) }
    }

    /// Bytes that were taken and not sent.
    pub fn held(&self) -> usize {
        self.utf8.held() + self.stops.held.len()
    }

    /// Whether a stop sequence was met.
    pub fn is_stopped(&self) -> bool {
        self.stops.stopped.is_some()
    }

    /// How many bytes before the end of what was taken the stop sequence began.
    pub fn stopped_at(&self) -> usize {
        self.utf8.held() + self.stops.stopped.unwrap_or(0)
    }

    /// The end: what is left to send.
    pub fn finish(&mut self) -> String {
        let tail = self.utf8.finish();
        let (mut text, stopped) = self.stops.push(&tail);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_survive_any_split() {
        let text = "aé漢🦀 \u{10FFFF}z";
        for size in 1..=text.len() {
            let mut stream = Utf8Stream::default();
            let mut out: String = text.as_bytes().chunks(size).map(|bytes| stream.push(bytes)).collect();
            out.push_str(&stream.finish());
            assert_eq!(out, text, "in pieces of {size}");
        }
    }

    #[test]
    fn broken_bytes_become_replacement_characters_as_std_makes_them() {
        for bytes in
            [&b"a\xFFb"[..], b"\xF0\x9F\xA6", b"\xC3\xC3\xA9", b"\xED\xA0\x80x", b"\x80\x80", b"ok\xE6\xBC"]
        {
            let mut stream = Utf8Stream::default();
            let mut out: String = bytes.iter().map(|byte| stream.push(&[*byte])).collect();
            out.push_str(&stream.finish());
            assert_eq!(out, String::from_utf8_lossy(bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn a_stop_sequence_is_found_across_pieces_and_never_sent() {
        let mut stops = StopScanner::new(vec!["\n\n".to_owned(), "END".to_owned(), String::new()]);
        assert_eq!(stops.push("one\n"), ("one".to_owned(), false));
        assert_eq!(stops.push("two E"), ("\ntwo ".to_owned(), false));
        assert_eq!(stops.push("NX EN"), ("ENX ".to_owned(), false));
        assert_eq!(stops.push("D after"), (String::new(), true));
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        let mut text = AnswerText::new(vec!["🦀🦀".to_owned()]);
        let (first, hit) = text.push("a🦀".as_bytes());
        assert_eq!((first.as_str(), hit), ("a", false));
        assert_eq!(text.push(b"\xF0\x9F").0, "");
        assert_eq!(text.finish(), "🦀\u{FFFD}");
    }
}
