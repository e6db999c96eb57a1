//! What kind of file something is, and whether loading it may run code.
//!
//! Both the name and the first bytes are asked, and the worse answer counts: a pickle that is called `.json` is found
//! by its bytes, and one whose bytes look harmless by its name, since loaders go by the name.

use std::fmt;

use super::Format;

/// How many of a file's first bytes [`detect`] wants to see.
pub const HEAD_LEN: usize = 4096;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Weights in safetensors.
    Safetensors,
    /// Weights in GGUF.
    Gguf,
    /// JSON.
    Json,
    /// Plain text, Markdown, YAML, chat templates and the like.
    Text,
    /// A SentencePiece tokeniser (protobuf).
    SentencePiece,
    /// A PNG, JPEG, GIF or WebP picture.
    Image,
    /// A NumPy array of numbers.
    Numpy,
    /// A Python pickle, or a container of one (`torch.save`, joblib).
    Pickle,
    /// A NumPy array of Python objects, which are pickled.
    NumpyObjects,
    /// HDF5 or Keras, whose layers may carry code.
    Hdf5,
    /// A computation graph whose operators can read and write files (TensorFlow).
    Graph,
    /// A program's source text.
    Script,
    /// A compiled program or library.
    Executable,
    /// HTML or SVG, which a browser runs.
    Markup,
    /// A compressed or packed archive whose content is not looked at.
    Archive,
    /// Anything else.
    Unknown,
}

/// Whether loading a file may run code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Safety {
    /// Data alone: the loaders for it interpret nothing.
    Safe,
    /// The usual loaders may run code that the file carries.
    MayRunCode,
    /// Nothing is known about it.
    Unknown,
}

impl Kind {
    /// Whether loading a file of this kind may run code.
    pub const fn safety(self) -> Safety {
        match self {
            Self::Safetensors
            | Self::Gguf
            | Self::Json
            | Self::Text
            | Self::SentencePiece
            | Self::Image
            | Self::Numpy => Safety::Safe,
            Self::Pickle
            | Self::NumpyObjects
            | Self::Hdf5
            | Self::Graph
            | Self::Script
            | Self::Executable
            | Self::Markup => Safety::MayRunCode,
            Self::Archive | Self::Unknown => Safety::Unknown,
        }
    }

    /// Why a file of this kind does not belong into a release that is served, for people; nothing for safe kinds.
    pub const fn objection(self) -> Option<&'static str> {
        Some(match self {
            Self::Pickle => "a Python pickle runs code when it is loaded",
            Self::NumpyObjects => {
                "a NumPy array of objects holds pickles, which run code when they are loaded"
            }
            Self::Hdf5 => "HDF5 and Keras files may carry layers with code",
            Self::Graph => "a TensorFlow graph may read and write files when it is run",
            Self::Script => "source text is run by loaders that trust remote code",
            Self::Executable => "it is a compiled program or library",
            Self::Markup => "HTML and SVG may run scripts in a browser",
            Self::Archive => "an archive's content is not examined",
            Self::Unknown => "its name and content show no known safe kind",
            _ => return None,
        })
    }

    /// A short stable name, as policies and `--json` use it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Json => "json",
            Self::Text => "text",
            Self::SentencePiece => "sentencepiece",
            Self::Image => "image",
            Self::Numpy => "numpy",
            Self::Pickle => "pickle",
            Self::NumpyObjects => "numpy-objects",
            Self::Hdf5 => "hdf5",
            Self::Graph => "graph",
            Self::Script => "script",
            Self::Executable => "executable",
            Self::Markup => "markup",
            Self::Archive => "archive",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a file is, by its path and its first [`HEAD_LEN`] bytes (fewer when it is shorter).
pub fn detect(path: &str, head: &[u8]) -> Kind {
    let named = by_name(path);
    let found = by_content(head);
    match (named, found) {
        // Whatever is dangerous wins, the content before the name, since it says more exactly what it is.
        (_, Some(kind)) if kind.safety() == Safety::MayRunCode => kind,
        (Some(kind), _) if kind.safety() == Safety::MayRunCode => kind,
        // Name and content agree, or the name says nothing.
        (Some(named), Some(found)) => {
            if named == found {
                found
            } else {
                Kind::Unknown
            }
        }
        (None, Some(found)) => found,
        // Kinds without magic bytes must at least look like what they are called.
        (Some(Kind::Text), None) if is_text(head) => text(head),
        (Some(Kind::Json), None) if is_text(head) && is_json(head) => Kind::Json,
        // Newer tokenisers are text under the same name.
        (Some(Kind::SentencePiece), None) if is_text(head) => text(head),
        (Some(Kind::SentencePiece), None) if head.first() == Some(&0x0a) => Kind::SentencePiece,
        (Some(Kind::Archive), None) => Kind::Archive,
        _ => Kind::Unknown,
    }
}

/// The format that a file's name promises, whatever is in it.
pub(super) fn promised(path: &str) -> Option<Format> {
    match by_name(path) {
        Some(Kind::Safetensors) => Some(Format::Safetensors),
        Some(Kind::Gguf) => Some(Format::Gguf),
        _ => None,
    }
}

fn by_name(path: &str) -> Option<Kind> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    const TEXTS: [&str; 8] =
        ["license", "licence", "copying", "notice", "readme", "authors", "changelog", "use_policy"];
    if !name.contains('.') && TEXTS.iter().any(|text| name.starts_with(text))
        || matches!(name.as_str(), ".gitattributes" | ".gitignore")
    {
        return Some(Kind::Text);
    }
    let (stem, extension) = name.rsplit_once('.')?;
    // `tokenizer.model.v3`
    let numbered = extension.strip_prefix('v').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if stem.ends_with(".model") && numbered {
        return Some(Kind::SentencePiece);
    }
    Some(match extension {
        "safetensors" | "sft" => Kind::Safetensors,
        "gguf" => Kind::Gguf,
        // `model.sig` is what OpenSSF Model Signing calls its bundle, which is JSON.
        "json" | "jsonl" | "webmanifest" | "sig" => Kind::Json,
        "txt" | "md" | "markdown" | "rst" | "jinja" | "jinja2" | "j2" | "yaml" | "yml" | "toml" | "csv"
        | "tsv" | "cfg" | "ini" | "bpe" | "tiktoken" | "vocab" | "merges" | "sha256" => Kind::Text,
        "model" | "spm" | "spiece" => Kind::SentencePiece,
        "png" | "jpg" | "jpeg" | "gif" | "webp" => Kind::Image,
        "npy" => Kind::Numpy,
        "bin" | "pt" | "pth" | "ptl" | "pt2" | "pkl" | "pickle" | "ckpt" | "joblib" | "dill" | "sav"
        | "mar" | "nemo" | "torchscript" | "pdparams" | "skops" => Kind::Pickle,
        "h5" | "hdf5" | "keras" => Kind::Hdf5,
        "pb" | "meta" | "savedmodel" => Kind::Graph,
        "py" | "pyc" | "pyw" | "ipynb" | "sh" | "bash" | "js" | "mjs" | "ts" | "lua" | "pl" | "rb" | "r"
        | "bat" | "cmd" | "ps1" | "php" | "pth-tar" => Kind::Script,
        "so" | "dll" | "dylib" | "exe" | "o" | "a" | "whl" | "jar" | "class" | "wasm" | "llamafile"
        | "com" | "node" | "apk" | "cubin" | "engine" | "plan" => Kind::Executable,
        "html" | "htm" | "xhtml" | "svg" | "xml" => Kind::Markup,
        "zip" | "npz" | "tar" | "gz" | "tgz" | "bz2" | "xz" | "zst" | "7z" | "rar" | "lz4" => Kind::Archive,
        _ => return None,
    })
}

fn by_content(head: &[u8]) -> Option<Kind> {
    // First, since a header's length may begin with the same two bytes as a pickle.
    if is_safetensors(head) {
        return Some(Kind::Safetensors);
    }
    Some(match head {
        [b'G', b'G', b'U', b'F', ..] => Kind::Gguf,
        // Pickles from protocol 2 on name their protocol first; no text and none of the formats here begins so.
        [0x80, 0..=5, ..] => Kind::Pickle,
        // A zip archive: `torch.save` puts `data.pkl` into one.
        [b'P', b'K', 3 | 5 | 7, 4 | 6 | 8, ..] => {
            if contains(head, b".pkl") {
                Kind::Pickle
            } else {
                Kind::Archive
            }
        }
        [0x89, b'H', b'D', b'F', ..] => Kind::Hdf5,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => numpy(head),
        [0x7f, b'E', b'L', b'F', ..]
        | [b'M', b'Z', ..]
        | [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..]
        | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..]
        | [0xca, 0xfe, 0xba, 0xbe, ..]
        | [0, b'a', b's', b'm', ..] => Kind::Executable,
        [b'#', b'!', ..] => Kind::Script,
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] => Kind::Image,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::Image,
        [0x1f, 0x8b, ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', ..]
        | [b'7', b'z', 0xbc, 0xaf, ..] => Kind::Archive,
        _ => return markup(head),
    })
}

/// A plausible length and the beginning of a JSON object.
fn is_safetensors(head: &[u8]) -> bool {
    match head.split_first_chunk::<8>() {
        Some((len, rest)) => {
            u64::from_le_bytes(*len) <= super::safetensors::MAX_HEADER && rest.first() == Some(&b'{')
        }
        None => false,
    }
}

/// The array's description is a Python dictionary in text; `O` as a type stands for objects.
fn numpy(head: &[u8]) -> Kind {
    // Six bytes of magic, two of version, and the description's length in two or four bytes.
    let end = match head.get(6..) {
        Some([1, _, a, b, ..]) => 10 + u64::from(u16::from_le_bytes([*a, *b])),
        Some([2 | 3, _, a, b, c, d, ..]) => 12 + u64::from(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => return Kind::Unknown,
    };
    // A description that is longer than what can be seen of it could say anything.
    let Some(description) = usize::try_from(end).ok().and_then(|end| head.get(..end)) else {
        return Kind::Unknown;
    };
    // Objects may be a field of a structured type, so the letter behind any quote and byte order counts.
    let object = |window: &[u8]| {
        matches!(window, [b'\'' | b'"', b'O', _] | [b'\'' | b'"', b'|' | b'<' | b'>' | b'=', b'O'])
    };
    if description.windows(3).any(object) {
        Kind::NumpyObjects
    } else if contains(description, b"'descr'") {
        Kind::Numpy
    } else {
        Kind::Unknown
    }
}

fn markup(head: &[u8]) -> Option<Kind> {
    let start = head.trim_ascii_start();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is = |tag: &[u8]| start.get(..tag.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(tag));
    [&b"<!doctype html"[..], b"<html", b"<svg", b"<script", b"<?xml"]
        .iter()
        .any(|tag| is(tag))
        .then_some(Kind::Markup)
}

/// Text is data, unless its beginning asks a YAML loader for Python objects.
fn text(head: &[u8]) -> Kind {
    if contains(head, b"!!python/") { Kind::Script } else { Kind::Text }
}

/// UTF-8 without NUL; the last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && head.len() == HEAD_LEN,
    };
    valid && !head.contains(&0)
}

fn is_json(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    match head.trim_ascii_start().first() {
        Some(first) => matches!(first, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'),
        None => false,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
