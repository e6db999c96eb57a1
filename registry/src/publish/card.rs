//! The licence that a model card's front matter names.

use std::fs::File;
use std::io::Read;

use crate::statement::MAX_TEXT;

/// Bytes of a model card that are looked at: front matter with long lists of languages and data sets fits.
const MAX_FRONT: u64 = 64 * 1024;

/// The value of `license` or `licence` in the front matter (YAML between two lines of `---`) of a model card.
pub(super) fn licence(card: File) -> Option<String> {
    let mut bytes = Vec::new();
    card.take(MAX_FRONT).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    // Only a plain value at the top level: everything else is for people to write on the command line.
    let front = lines.take_while(|line| line.trim_end() != "---");
    let value = front.filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
        matches!(key, "license" | "licence").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })?;
    fit(value)
}

/// A licence as a release may carry it; nothing when it is empty, too long or no text.
pub(super) fn fit(licence: String) -> Option<String> {
    let plain = !licence.is_empty() && licence.len() <= MAX_TEXT && !licence.chars().any(char::is_control);
    plain.then_some(licence)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Seek, Write};

    use super::*;

    fn of(text: &str) -> Option<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        licence(file)
    }

    #[test]
    fn front_matter_names_it() {
        assert_eq!(of("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model").as_deref(), Some("apache-2.0"));
        assert_eq!(of("---\r\nlicence: \"MIT\"\r\n---\r\n").as_deref(), Some("MIT"));
        for none in [
            "",
            "# Model\nlicense: mit",
            "---\nname: x\n---\nlicense: mit",
            "---\nlicense:\n---\n",
            "---\n  license: mit\n---",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
