//! Looking for secrets in text: private keys, and tokens by their issuers' well-known shapes.
//!
//! Only shapes that nothing else has are looked for: a false alarm would keep a model from being pushed.

/// A secret that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret {
    /// What it looks like.
    pub(super) what: &'static str,
    /// In which line; the first is 1.
    pub(super) line: usize,
}

/// A token's shape: how it begins, and of how many such characters the rest is.
struct Shape {
    begins: &'static [u8],
    what: &'static str,
    least: usize,
    most: usize,
    of: fn(u8) -> bool,
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn dashed(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

const LONG: usize = 4096;

const fn shape(
    begins: &'static [u8],
    what: &'static str,
    least: usize,
    most: usize,
    of: fn(u8) -> bool,
) -> Shape {
    Shape { begins, what, least, most, of }
}

static SHAPES: [Shape; 24] = [
    shape(b"hf_", "a token of a Hugging Face hub or of a node", 34, 40, plain),
    shape(b"api_org_", "a token of a Hugging Face organisation", 34, 34, plain),
    shape(b"ghp_", "a GitHub token", 36, 255, plain),
    shape(b"gho_", "a GitHub token", 36, 255, plain),
    shape(b"ghu_", "a GitHub token", 36, 255, plain),
    shape(b"ghs_", "a GitHub token", 36, 255, plain),
    shape(b"ghr_", "a GitHub token", 36, 255, plain),
    shape(b"github_pat_", "a GitHub token", 60, 255, word),
    shape(b"glpat-", "a GitLab token", 20, 255, dashed),
    shape(b"AKIA", "an AWS access key", 16, 16, upper),
    shape(b"ASIA", "an AWS access key", 16, 16, upper),
    shape(b"AIza", "a Google API key", 35, 35, dashed),
    shape(b"ya29.", "a Google access token", 60, LONG, dashed),
    shape(b"sk-ant-", "an Anthropic API key", 40, 255, dashed),
    shape(b"sk-proj-", "an OpenAI API key", 40, 255, dashed),
    shape(b"xoxb-", "a Slack token", 24, 255, dashed),
    shape(b"xoxp-", "a Slack token", 24, 255, dashed),
    shape(b"npm_", "an npm token", 36, 36, plain),
    shape(b"pypi-AgEIcHlwaS5vcmc", "a PyPI token", 40, LONG, dashed),
    shape(b"dckr_pat_", "a Docker token", 24, 64, dashed),
    shape(b"sk_live_", "a Stripe key", 24, 255, plain),
    shape(b"SG.", "a SendGrid key", 66, 70, dotted),
    shape(b"AGE-SECRET-KEY-1", "an age secret key", 58, 58, upper),
    shape(b"wandb_v1_", "a Weights & Biases key", 40, 255, word),
];

/// How far behind the beginning of a private key its end of the line may be.
const MAX_LABEL: usize = 64;
/// How much behind it is looked at for the key itself: the headers of encrypted ones are shorter.
const MAX_HEADERS: usize = 400;
/// So many characters of base 64 in a row are a key, and no talk about one.
const LEAST_KEY: usize = 40;

/// The first secret in `text`.
pub(super) fn find(text: &[u8]) -> Option<Secret> {
    let (mut line, mut before) = (1, [b' ', b' ']);
    for (at, byte) in text.iter().copied().enumerate() {
        // JSON writes the end of a line as a letter.
        let begins = !dashed(before[1]) || before[0] == b'\\' && matches!(before[1], b'n' | b'r' | b't');
        let rest = || text.get(at..).unwrap_or_default();
        let found = match byte {
            b'-' if before[1] != b'-' => private_key(rest()),
            _ if begins => token(byte, rest()),
            _ => None,
        };
        if let Some(what) = found {
            return Some(Secret { what, line });
        }
        line += usize::from(byte == b'\n');
        before = [before[1], byte];
    }
    None
}

fn token(first: u8, rest: &[u8]) -> Option<&'static str> {
    for shape in SHAPES.iter().filter(|shape| shape.begins.first() == Some(&first)) {
        let Some(rest) = rest.strip_prefix(shape.begins) else { continue };
        let len = rest.iter().take(shape.most + 1).take_while(|byte| (shape.of)(**byte)).count();
        // All the same character is a placeholder such as `hf_xxxx…`.
        let body = rest.get(..len).unwrap_or_default();
        let real = body.iter().any(|byte| Some(byte) != body.first());
        if (shape.least..=shape.most).contains(&len) && real {
            return Some(shape.what);
        }
    }
    None
}

fn private_key(rest: &[u8]) -> Option<&'static str> {
    let rest = rest.strip_prefix(b"-----BEGIN ")?;
    let label = rest.get(..MAX_LABEL.min(rest.len()))?;
    let end = [&b"PRIVATE KEY-----"[..], b"PRIVATE KEY BLOCK-----"]
        .iter()
        .find_map(|end| label.windows(end.len()).position(|part| part == *end).map(|at| at + end.len()))?;
    let mut run = 0;
    for byte in rest.iter().skip(end).take(MAX_HEADERS) {
        run = if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') { run + 1 } else { 0 };
        if run >= LEAST_KEY {
            return Some("a private key");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_found_with_their_line() {
        let token = ["h", "f_", "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"].concat();
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n";
        let found = |text: &str| find(text.as_bytes()).map(|secret| secret.line);
        assert_eq!(found(&format!("a\nb\ntoken = \"{token}\"\n")), Some(3));
        assert_eq!(found(&token), Some(1));
        assert_eq!(found(&format!("x\n{key}")), Some(2));
        // As JSON writes it.
        assert_eq!(found(&key.replace('\n', "\\n")), Some(1));
        assert_eq!(found(&["AKI", "AIOSFODNN7EXAMPLQ"].concat()), Some(1));
        for harmless in [
            "",
            "hf_ is how tokens begin; hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx is a placeholder",
            &format!("word{token}"),
            &format!("{token}0123456789"),
            "-----BEGIN PRIVATE KEY----- begins a private key",
            "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUHxq0hF9TjO3bU1h9zXoY7c4oQ1YwCgYIKoZIzj0EAwIw\n",
            "hf_hub_download_and_other_functions_that_begin_so_and_are_long",
        ] {
            assert_eq!(found(harmless), None, "{harmless}");
        }
    }

    #[test]
    fn much_text_is_searched_quickly() {
        let text = "hf_abc ghp_ AKIA -----BEGIN ".repeat(1 << 18);
        let start = std::time::Instant::now();
        assert_eq!(find(text.as_bytes()), None);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    }
}
