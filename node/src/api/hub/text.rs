//! Queries and forms, as the hub's clients write them: names may repeat, so they are read into pairs.

/// Most pairs of one query or form: the hub's own limit of paths for one question.
pub(crate) const MAX_PAIRS: usize = 1024;

/// The pairs of `name=value&…`, decoded. What is more than [`MAX_PAIRS`] is passed over.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        // `expand[]=sha` is another way to write `expand=sha`.
        let name = decode(name);
        (name.strip_suffix("[]").map(str::to_owned).unwrap_or(name), decode(value))
    };
    text.split('&').filter(|part| !part.is_empty()).take(MAX_PAIRS).map(pair).collect()
}

/// The first value of `name`.
pub(crate) fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Whether `name` is there and is not said to be off.
pub(super) fn flag(pairs: &[(String, String)], name: &str) -> bool {
    first(pairs, name).is_some_and(|value| !matches!(value, "0" | "false" | "False"))
}

/// `text` without its `+` and `%` escapes. A wrong escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits fit.
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `text` as a value in a query, or as one segment of a path.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `text` as it may stand in a header: one line of visible ASCII.
pub(super) fn header_safe(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(MAX_HEADER_TEXT).map(fits).collect()
}

/// Longest message in a header, in characters.
const MAX_HEADER_TEXT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_what_is_odd_harms_nobody() {
        let form = pairs("paths=a%2Fb+c&paths=%C3%B6&expand%5B%5D=sha&x&=1&bad=%zz%");
        assert_eq!(form.iter().filter(|(name, _)| name == "paths").count(), 2);
        assert_eq!(first(&form, "paths"), Some("a/b c"));
        assert_eq!(form[1].1, "ö");
        assert_eq!(first(&form, "expand"), Some("sha"));
        assert!(flag(&form, "x") && !flag(&pairs("x=False"), "x") && !flag(&form, "y"));
        assert_eq!(first(&form, "bad"), Some("%zz%"));
        assert_eq!(pairs(&"a=1&".repeat(5000)).len(), MAX_PAIRS);
        assert_eq!(encode("a/ö b"), "a%2F%C3%B6%20b");
        assert_eq!(header_safe("a\r\nb: ö"), "a??b: ?");
    }
}
