//! Read-only memory maps of files: the one place with `unsafe`.
//!
//! The worker maps weights instead of reading them, so that several workers share one copy in the page cache.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Advice, Mmap};

use crate::digest::Digest;

/// A file's content, mapped read-only.
///
/// The file must not be shortened while it is mapped: the system would end the process with SIGBUS. It must not be
/// written to either. Blobs in the store are never changed in place: they are written under another name, made
/// read-only, and renamed; garbage collection unlinks, and a mapped file that is unlinked stays whole.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps the whole of `file`, which must be a regular file that nobody writes to (see [`Mapped`]).
    pub fn new(file: &File) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a regular file can be mapped"));
        }
        // SAFETY: the pages are mapped PROT_READ, so nothing here can write through them. That the bytes do not change
        // under a `&[u8]` rests on the rule above: the store hands out only finished blobs, which no process modifies.
        // A process of the same user that breaks this rule could as well write to this process's memory.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(map))
    }

    /// Whether the mapped bytes have this digest.
    pub fn matches(&self, digest: &Digest) -> bool {
        // The whole file is read once from front to back. Advice only: a system that does not know it is no worse off.
        let _ = self.0.advise(Advice::Sequential);
        let same = Digest::of(self) == *digest;
        let _ = self.0.advise(Advice::Normal);
        same
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn maps_what_is_there_and_an_empty_file_too() {
        for content in [&b"weights"[..], b""] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            let mapped = Mapped::new(&file).unwrap();
            assert_eq!(&*mapped, content);
            assert!(mapped.matches(&Digest::of(content)));
            assert!(!mapped.matches(&Digest::of(b"other")));
        }
    }

    #[test]
    fn a_directory_is_refused() {
        assert!(Mapped::new(&File::open(".").unwrap()).is_err());
    }
}
