//! What the fuzz targets for the node's parsers do with their input; like `registry.rs`, shared with the tests that
//! replay `corpus/`. Whoever includes this file has the module `wire` beside it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use super::wire::{Answer, FeedPage, FeedRequest, HELLO_HEADER, Have, Hello, Request, Verdict, split_frame};

pub type Body = fn(&[u8]);

/// Every target of the node's parsers by name.
pub const TARGETS: &[(&str, Body)] = &[("wire", wire)];

/// Longest frame that is tried: more than any kind but content may have.
const LIMIT: usize = 1 << 20;

/// Whatever one kind of frame accepts, it writes again as the same bytes.
pub fn wire(data: &[u8]) {
    if let Ok((kind, body)) = split_frame(data, LIMIT) {
        if let Ok(request) = Request::decode(kind, body) {
            assert_eq!(request.encode(), data);
        }
        if let Ok(request) = FeedRequest::decode(kind, body) {
            assert_eq!(request.encode(), data);
        }
        if let Ok(page) = FeedPage::decode(kind, body) {
            assert_eq!(page.encode(), data);
        }
    }
    if let Ok(answer) = Answer::decode_frame(data) {
        assert_eq!(answer.encode(), data);
        if let Answer::News(news) = answer
            && !matches!(news.have, Have::Runs(_))
        {
            let all = news.have == Have::Everything;
            assert_eq!(news.have.has(u32::MAX), all, "an index beyond the bits is not there");
        }
    }
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(hello.encode(), data);
        assert_eq!(hello.certificate.len() + HELLO_HEADER, data.len());
    }
    if let Some(Ok(verdict)) = data.first().map(|byte| Verdict::decode(*byte)) {
        assert_eq!(Some(&(verdict as u8)), data.first());
    }
}
