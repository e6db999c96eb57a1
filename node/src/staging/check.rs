//! What has no place in a release is refused when it is pushed: files that run code, damaged weights, secrets.

use std::io::{Read, Seek, SeekFrom};

use registry::format::{HEAD_LEN, Kind, Safety, detect, inspect};

use super::error::{Result, StagingError};
use super::secrets;

/// Most bytes of a text that are searched for secrets: tokenisers' files and more.
const MAX_SEARCHED: u64 = 64 * 1024 * 1024;

/// Whether a part of a path begins with a dot: such a file is not published.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// Whether what is at `path` may be staged. Its name and its content are both asked.
pub(super) fn content(path: &str, from: &mut (impl Read + Seek), size: u64) -> Result<()> {
    let refused = |why: String| Err(StagingError::Refused(why));
    let found = match inspect(path, &mut *from, size) {
        Ok(found) => found.kind,
        Err(registry::format::FormatError::Io(error)) => {
            return Err(StagingError::Io { what: "could not read", path: path.into(), source: error });
        }
        Err(error) => return refused(format!("`{path}`: {error}")),
    };
    if let Some(why) = objection(path, found) {
        return refused(why);
    }
    let io = |source| StagingError::Io { what: "could not read", path: path.into(), source };
    from.seek(SeekFrom::Start(0)).map_err(io)?;
    if matches!(found, Kind::Safetensors | Kind::Gguf | Kind::Image | Kind::Numpy) {
        return Ok(());
    }
    let mut head = Vec::with_capacity(HEAD_LEN);
    from.by_ref().take(HEAD_LEN as u64).read_to_end(&mut head).map_err(io)?;
    if head.contains(&0) {
        return Ok(());
    }
    from.take(MAX_SEARCHED).read_to_end(&mut head).map_err(io)?;
    match secrets::find(&head) {
        None => Ok(()),
        Some(secret) => refused(format!(
            "`{path}`, line {}: {} stands there. Take it out before you push, and have whoever issued it revoke it: it was sent already",
            secret.line, secret.what
        )),
    }
}

/// Why a file of this kind is refused.
fn objection(path: &str, kind: Kind) -> Option<String> {
    let why = kind.objection()?;
    // What begins with a dot is not published, so that it need not be known; it must not run either.
    if is_hidden(path) && kind.safety() != Safety::MayRunCode {
        return None;
    }
    let hint = match kind {
        Kind::Pickle | Kind::NumpyObjects | Kind::Hdf5 => {
            "; save the weights as safetensors (`save_pretrained(…, safe_serialization=True)`, or `safetensors.torch.save_file`) and leave \
             this file out (`ignore_patterns`, `--exclude`)"
        }
        _ => "; leave it out (`ignore_patterns`, `--exclude`)",
    };
    Some(format!("`{path}`: {why}{hint}"))
}

/// The same by a file's name and its first bytes, before it is uploaded: only what is sure to be refused.
pub(crate) fn refuse_early(path: &str, sample: &[u8]) -> Result<()> {
    let kind = detect(path, sample);
    match objection(path, kind) {
        Some(why) if kind.safety() == Safety::MayRunCode => Err(StagingError::Refused(why)),
        _ => Ok(()),
    }
}
