//! Bodies: whole or a range, from memory or from a blob's file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use registry::Digest;
use registry::store::Store;

use super::super::verdict;
use super::error::OciError;
use super::object::{Content, Object};
use super::{Asked, Desk};

/// Bytes read from a file at a time. Each connection holds one such piece, so that 200 of them hold 50 MiB.
const PIECE: u64 = 256 * 1024;
/// Every answer may be kept and must be asked about before it is used again: what a name means may move, and what a digest names
/// may be recalled. Asking costs a `304`.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Which bytes are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// From the first to behind the last.
    Part(u64, u64),
    /// Bytes that it does not have.
    Beyond,
}

/// Reads a `Range` header about something of `size` bytes. One range is answered; what is none, or several, is passed over, as
/// RFC 9110 allows.
fn range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.trim().split_once('-')) else {
        return Wanted::All;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More than any size is as good as any other such number.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    match (digits(first), digits(last)) {
        (true, true) if number(first) > number(last) => Wanted::All,
        (true, _) if !last.is_empty() && !digits(last) => Wanted::All,
        (true, _) if number(first) >= size => Wanted::Beyond,
        (true, true) => Wanted::Part(number(first), number(last).saturating_add(1).min(size)),
        (true, false) => Wanted::Part(number(first), size),
        (false, true) if !first.is_empty() => Wanted::All,
        (false, true) if number(last) == 0 || size == 0 => Wanted::Beyond,
        (false, true) => Wanted::Part(size.saturating_sub(number(last)), size),
        (false, false) => Wanted::All,
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether the client has it already.
fn is_fresh(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == tag || one == "*")
}

/// Answers with an object, or a range of it.
pub(super) fn reply(desk: &Desk, object: Object, asked: &Asked) -> Result<Response, OciError> {
    let size = object.content.size();
    let name = format!("sha256:{}", object.digest);
    let tag = format!("\"{name}\"");
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(&tag));
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    headers.insert("docker-content-digest", text(&name));
    if object.is_manifest() {
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
    }
    if is_fresh(&asked.headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, text(&object.media_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let same = only(&asked.headers, &header::IF_RANGE).is_none_or(|given| given == tag);
    let wanted = match only(&asked.headers, &header::RANGE) {
        Some(spec) if same && !asked.head => range(spec, size),
        _ => Wanted::All,
    };
    let (status, from, to) = match wanted {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part(from, to) => {
            let shown = format!("bytes {from}-{}/{size}", to - 1);
            headers.insert(header::CONTENT_RANGE, text(&shown));
            (StatusCode::PARTIAL_CONTENT, from, to)
        }
        Wanted::Beyond => {
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes */{size}")));
            headers.remove(header::CONTENT_TYPE);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    let body = match object.content {
        _ if asked.head => Body::empty(),
        // Within the bytes, whose length fits in memory.
        Content::Bytes(bytes) => Body::from(bytes.slice(from as usize..to as usize)),
        Content::Blob(blob, _) => {
            let file = Arc::new(desk.store.open_blob(&blob)?);
            let source = Source {
                file,
                store: desk.store.clone(),
                release: object.release,
                seq: desk.store.last_seq(),
            };
            source.stream(from, to)
        }
    };
    Ok((status, headers, body).into_response())
}

/// A blob that is being sent.
#[derive(Clone)]
struct Source {
    file: Arc<File>,
    store: Store,
    release: Option<Digest>,
    /// The last statement that was looked at.
    seq: u64,
}

impl Source {
    /// The bytes from `from` to behind `to`, a piece at a time as they are sent. What was announced as the body's length is kept, or the
    /// connection is cut: a recall in the middle cuts it too.
    fn stream(self, from: u64, to: u64) -> Body {
        Body::from_stream(stream::try_unfold((self, from), move |(source, at)| async move {
            if at >= to {
                return Ok(None);
            }
            let len = (to - at).min(PIECE);
            let work = tokio::task::spawn_blocking(move || source.piece(at, len));
            let (piece, source) = work.await.map_err(io::Error::other)??;
            Ok::<_, io::Error>(Some((piece, (source, at + len))))
        }))
    }

    fn piece(mut self, at: u64, len: u64) -> io::Result<(Bytes, Self)> {
        let seq = self.store.last_seq();
        if let Some(release) = self.release.filter(|_| seq != self.seq) {
            if let Some(why) = verdict::recalled(&self.store, &release).map_err(io::Error::other)? {
                tracing::info!(%release, %why, "a download was cut off");
                return Err(io::Error::other(why));
            }
            self.seq = seq;
        }
        // At most a piece.
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok((bytes.into(), self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_rfc_9110_says() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=2-5", Wanted::Part(2, 6)),
            ("bytes=2-", Wanted::Part(2, 10)),
            ("bytes=2-99999999999999999999999", Wanted::Part(2, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=10-20", Wanted::Beyond),
            ("bytes=99999999999999999999999-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=1-b", Wanted::All),
            ("bytes=a-1", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("", Wanted::All),
        ] {
            assert_eq!(range(text, 10), wanted, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Wanted::Beyond);
        assert_eq!(range("bytes=-5", 0), Wanted::Beyond);
    }
}
