//! Numbers, times and digests as people read them.

use std::time::Duration;

use registry::{Digest, Timestamp};

/// `1.4 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 10.0 { 2 } else { 1 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// What a release holds, such as `3 files, 93.8 MiB, gguf`.
pub(crate) fn contents(files: usize, size: u64, format: &str) -> String {
    format!("{}, {}, {format}", count(files as u64, "file"), bytes(size))
}

/// `1 file`, `3 files`.
pub(crate) fn count(n: impl TryInto<u64>, one: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let plural = match one.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o']) => format!("{stem}ies"),
        _ => format!("{one}s"),
    };
    if n == 1 { format!("1 {one}") } else { format!("{n} {plural}") }
}

/// `alba`, `alba and borea`, `alba, borea and cora`.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `3 minutes ago`, `in 12 days`, `just now`.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.unix().saturating_sub(at.unix());
    let span = seconds.unsigned_abs();
    let (n, unit) = match span {
        0..5 => return "just now".to_owned(),
        5..90 => (span, "second"),
        90..5_400 => (span.div_ceil(60).min(span / 60 + 1), "minute"),
        5_400..129_600 => (span / 3_600, "hour"),
        129_600..5_184_000 => (span / 86_400, "day"),
        5_184_000..63_072_000 => (span / 2_592_000, "month"),
        _ => (span / 31_536_000, "year"),
    };
    let text = count(n, unit);
    if seconds >= 0 { format!("{text} ago") } else { format!("in {text}") }
}

/// `850 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => {
            let seconds = duration.as_secs();
            match seconds {
                0..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
                _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
            }
        }
    }
}

/// Milliseconds, as [`duration`].
pub(crate) fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// A fingerprint in groups of four, in two lines of eight groups, for reading aloud.
pub(crate) fn fingerprint(digest: &Digest) -> [String; 2] {
    let hex = digest.to_hex();
    let line = |half: &str| {
        let groups: Vec<&str> =
            half.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        groups.join(" ")
    };
    let (first, second) = hex.split_at(hex.len() / 2);
    [line(first), line(second)]
}

/// Reads a fingerprint as [`fingerprint`] or the digest's text form shows it.
pub(crate) fn parse_fingerprint(text: &str) -> Result<Digest, String> {
    let bare: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let hex = bare.strip_prefix("b3:").unwrap_or(&bare).to_ascii_lowercase();
    Digest::from_hex(&hex).map_err(|_| {
        "a fingerprint is `b3:` and 64 hexadecimal digits; spaces between groups are fine when it is quoted".to_owned()
    })
}

/// A peer identifier short enough for a table.
pub(crate) fn peer(id: &str) -> String {
    match id.char_indices().rev().nth(7) {
        Some((at, _)) if id.len() > 14 => format!("…{}", &id[at..]),
        _ => id.to_owned(),
    }
}

/// Reads a time such as `90s`, `12h` or `7d`; seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time such as 90s, 30m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Reads a size such as `512MiB`, `8GiB` or `2GB`; bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 8] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
    ];
    let wrong = || format!("`{text}` is no size such as 512MiB, 8GiB or 2GB");
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.ok_or_else(wrong)?;
    match number.trim().parse::<f64>() {
        // The cast saturates: more than there is anywhere.
        Ok(number) if number.is_finite() && number * bytes >= 1.0 => Ok((number * bytes) as u64),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!(size("1.5 MB"), Ok(1_500_000));
        for wrong in ["", "8", "GiB", "-1GiB", "0MiB", "nanGB", "8 Gib"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (105_454_432, "100.6 MiB"),
            (1 << 30, "1.00 GiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn times() {
        let now = Timestamp::from_unix(1_000_000_000);
        for (ago, text) in [
            (1, "just now"),
            (60, "60 seconds ago"),
            (7200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (-86_400 * 90, "in 3 months"),
        ] {
            assert_eq!(relative(now.plus(-ago), now), text);
        }
    }

    #[test]
    fn fingerprints_round_trip() {
        let digest = Digest::of(b"alba");
        let [first, second] = fingerprint(&digest);
        assert_eq!(first.len(), 39);
        assert_eq!(parse_fingerprint(&format!("{first} {second}")).unwrap(), digest);
        assert_eq!(parse_fingerprint(&digest.to_string()).unwrap(), digest);
        assert!(parse_fingerprint("b3:12").is_err());
    }

    #[test]
    fn lists() {
        assert_eq!(list(&["alba", "borea", "cora"]), "alba, borea and cora");
        assert_eq!((list(&["alba"]), list(&[])), ("alba".to_owned(), String::new()));
    }

    #[test]
    fn plurals() {
        assert_eq!((count(1, "file"), count(2, "key")), ("1 file".to_owned(), "2 keys".to_owned()));
        assert_eq!(count(2, "reply"), "2 replies");
    }
}
