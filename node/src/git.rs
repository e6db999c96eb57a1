//! The names that git, and with it the hub's clients, have for things: hashes of files, and commits.

use registry::Digest;
use sha1::{Digest as _, Sha1};

/// Digits of a commit's name.
pub(crate) const COMMIT: usize = 40;

/// Hashes a file of `size` bytes, which are to follow.
pub(crate) fn blob_hasher(size: u64) -> Sha1 {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {size}\0"));
    hasher
}

/// The hash of a file's content.
pub(crate) fn blob_hash(content: &[u8]) -> String {
    let mut hasher = blob_hasher(content.len() as u64);
    hasher.update(content);
    data_encoding::HEXLOWER.encode(&hasher.finalize())
}

/// The commit of what has this digest: its first digits.
pub(crate) fn commit_of(digest: &Digest) -> String {
    let mut hex = digest.to_hex();
    hex.truncate(COMMIT);
    hex
}
