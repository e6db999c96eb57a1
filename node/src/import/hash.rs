//! The hashes that sources name files by.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use data_encoding::HEXLOWER;
use registry::digest::{FileHasher, Sha256};
use sha1::Digest as _;

use super::{Check, ImportError, disk};
use crate::git;

/// Bytes read at a time.
const BLOCK: usize = 256 * 1024;

/// The name of a blob of git: SHA-1 over `blob LENGTH`, a zero byte and the content. It finds what changed by accident and not
/// what somebody made up; hubs name small files by nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitHash([u8; 20]);

impl GitHash {
    /// Reads 40 lowercase hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for GitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Reads the file once and compares it with what it must be; its SHA-256.
pub(super) fn verify(file: &Path, path: &str, size: u64, check: &Check) -> Result<Sha256, ImportError> {
    let wrong = |why: String| ImportError::Wrong { path: path.to_owned(), why };
    let mut content = File::open(file).map_err(disk(file))?;
    let length = content.metadata().map_err(disk(file))?.len();
    if length != size {
        return Err(wrong(format!("it has {length} bytes, {size} were announced")));
    }
    let mut hasher = FileHasher::default();
    let mut git = matches!(check, Check::Git(_)).then(|| git::blob_hasher(size));
    let mut block = vec![0; BLOCK];
    loop {
        match content.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&block[..count]);
                if let Some(git) = &mut git {
                    git.update(&block[..count]);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(disk(file)(error)),
        }
    }
    let sha256 = hasher.finish().sha256;
    match (check, git) {
        (Check::Sha256(wanted), _) if *wanted != sha256 => {
            Err(wrong(format!("its SHA-256 is {sha256}, not {wanted}")))
        }
        (Check::Git(wanted), Some(git)) => {
            let found = GitHash(git.finalize().into());
            if found == *wanted {
                Ok(sha256)
            } else {
                Err(wrong(format!("its git hash is {found}, not {wanted}")))
            }
        }
        _ => Ok(sha256),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gits_own_names_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "what is up, doc?").unwrap();
        // The example of git's own book.
        let git = Check::Git(GitHash::from_hex("bd9dbf5aae1a3862dd1526723246b20206e5fc37").unwrap());
        assert!(verify(file.path(), "x", 16, &git).is_ok());
        assert!(verify(file.path(), "x", 17, &git).is_err());
        std::fs::write(file.path(), "what is up, doc!").unwrap();
        assert!(matches!(verify(file.path(), "x", 16, &git), Err(ImportError::Wrong { .. })));
        assert!(GitHash::from_hex("BD9D").is_none());
    }
}
