//! Ranges and conditions of a request for a file (RFC 9110, sections 13 and 14).

use axum::http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;

/// What of the file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    All,
    /// From the first byte up to before the second.
    Part(u64, u64),
    /// Nothing: the client has it.
    Unchanged,
}

/// What `headers` want of a file of `size` bytes whose entity tag is `etag`, without quotes.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Result<Wanted, Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_MATCH).is_some_and(|tags| !matches(tags, etag)) {
        return Err(Refusal::Precondition);
    }
    if text(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, etag)) {
        return Ok(Wanted::Unchanged);
    }
    // Part of another file than the one that the client began is of no use to it.
    if text(header::IF_RANGE).is_some_and(|tag| unquoted(tag) != etag) {
        return Ok(Wanted::All);
    }
    match text(header::RANGE) {
        Some(range) => part(range, size),
        None => Ok(Wanted::All),
    }
}

fn unquoted(tag: &str) -> &str {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

fn matches(tags: &str, etag: &str) -> bool {
    tags.split(',').any(|tag| unquoted(tag) == etag || tag.trim() == "*")
}

fn part(range: &str, size: u64) -> Result<Wanted, Refusal> {
    let beyond = |why| Err(Refusal::Range { size, why });
    // Another unit, or something that is no range, counts as none.
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Ok(Wanted::All) };
    if spec.contains(',') {
        return beyond("one range at a time is given");
    }
    let Some((first, last)) = spec.split_once('-') else { return Ok(Wanted::All) };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (Some(None), Some(None)) if first.is_empty() && last.is_empty() => Ok(Wanted::All),
        // The last so many bytes.
        (Some(None), Some(last)) if first.is_empty() => match last {
            Some(0) => beyond("a range of no bytes can't be given"),
            _ if size == 0 => beyond("it is empty"),
            last => Ok(Wanted::Part(size.saturating_sub(last.unwrap_or(u64::MAX)), size)),
        },
        (Some(first), Some(until)) => {
            let first = first.unwrap_or(u64::MAX);
            let until = if last.is_empty() { u64::MAX } else { until.unwrap_or(u64::MAX) };
            match (first < size, first <= until) {
                (_, false) => Ok(Wanted::All),
                (false, _) => beyond("the range begins after its end"),
                _ => Ok(Wanted::Part(first, until.saturating_add(1).min(size))),
            }
        }
        _ => Ok(Wanted::All),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asks(headers: &[(&'static str, &str)], size: u64) -> Result<Wanted, Refusal> {
        let pairs =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        wanted(&pairs.collect(), "abc", size)
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        let range = |range: &str| asks(&[("range", range)], 100);
        assert_eq!(range("bytes=0-0").unwrap(), Wanted::Part(0, 1));
        assert_eq!(range("bytes=10-").unwrap(), Wanted::Part(10, 100));
        assert_eq!(range("bytes=10-1000").unwrap(), Wanted::Part(10, 100));
        assert_eq!(range("bytes=-30").unwrap(), Wanted::Part(70, 100));
        assert_eq!(range("bytes=-1000").unwrap(), Wanted::Part(0, 100));
        assert_eq!(range("bytes=99-99999999999999999999999").unwrap(), Wanted::Part(99, 100));
        for whole in
            ["bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=+1-2", "items=0-1", "bytes 0-1", "bytes=1"]
        {
            assert_eq!(range(whole).unwrap(), Wanted::All, "{whole}");
        }
        for beyond in
            ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=0-1,3-4", "bytes=99999999999999999999999-"]
        {
            assert!(matches!(range(beyond), Err(Refusal::Range { size: 100, .. })), "{beyond}");
        }
        assert!(asks(&[("range", "bytes=-1")], 0).is_err() && asks(&[("range", "bytes=0-")], 0).is_err());
    }

    #[test]
    fn conditions_are_kept() {
        let range = ("range", "bytes=1-2");
        assert_eq!(asks(&[("if-none-match", "\"x\", W/\"abc\"")], 9).unwrap(), Wanted::Unchanged);
        assert_eq!(asks(&[("if-none-match", "\"x\""), range], 9).unwrap(), Wanted::Part(1, 3));
        assert_eq!(asks(&[("if-range", "\"abc\""), range], 9).unwrap(), Wanted::Part(1, 3));
        assert_eq!(asks(&[("if-range", "\"abd\""), range], 9).unwrap(), Wanted::All);
        assert!(matches!(asks(&[("if-match", "\"x\"")], 9), Err(Refusal::Precondition)));
        assert_eq!(asks(&[("if-match", "*")], 9).unwrap(), Wanted::All);
    }
}
