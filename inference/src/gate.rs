//! Opens the blobs of an admitted release, and nothing else.
//!
//! That the bytes were right when they were pulled says nothing about now, so each file is hashed here, at
//! load, through one descriptor; the engine is given that descriptor (`/proc/self/fd/N`), so what was checked
//! is what it maps.
//!
//! A process of the same user that can write to the store could still change bytes after the hashing, in
//! place. The store's files are read-only, and a change while hashing is noticed.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use registry::admitted::AdmittedFile;
use registry::digest::{self, Digest};
use registry::mapped::Mapped;
use registry::serving::FailCode;
use rustix::fs::{Advice, FileType, Mode, OFlags, Stat};

use crate::halt::Halt;

/// A file that must not be served.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The content is not what was admitted.
    #[error(
        "`{path}` is not what was admitted: its blob is {expected}, but the file's content is {found}. It was changed on \
         disk. `steelyard verify` finds every such file; remove the release and pull it again"
    )]
    HashMismatch {
        /// Path in the release.
        path: String,
        /// What the signed release says.
        expected: Digest,
        /// What the file holds.
        found: Digest,
    },
    /// The file is longer or shorter than what was admitted.
    #[error(
        "`{path}` is not what was admitted: {expected} has {expected_size} bytes, the file has {found_size}. \
         `steelyard verify` finds every such file; remove the release and pull it again"
    )]
    Size {
        /// Path in the release.
        path: String,
        /// The blob.
        expected: Digest,
        /// Bytes that the signed release says.
        expected_size: u64,
        /// Bytes on disk.
        found_size: u64,
    },
    /// The file was written to while it was hashed.
    #[error(
        "`{path}` ({blob}) was written to while it was being checked. Nothing may write to the store: find what does, then \
         run `steelyard verify`"
    )]
    Changed {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
    },
    /// The blob's file is a link, a pipe, a device or a folder.
    #[error(
        "the blob of `{path}` ({blob}) at {} is not a regular file. Blobs are never links: remove it and pull the release \
         again",
        location.display()
    )]
    NotRegular {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
        /// Where it should be.
        location: PathBuf,
    },
    /// The file can't be opened or read.
    #[error("the blob of `{path}` ({blob}) at {} can't be read: {source}. Pull the release again", location.display())]
    Unreadable {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
        /// Where it should be.
        location: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The worker was told to stop meanwhile.
    #[error("stopped while checking `{path}`")]
    Halted {
        /// Path in the release.
        path: String,
    },
}

impl GateError {
    /// What the supervisor is told.
    pub fn code(&self) -> FailCode {
        match self {
            Self::HashMismatch { .. } | Self::Size { .. } | Self::Changed { .. } => FailCode::HashMismatch,
            Self::NotRegular { .. } | Self::Unreadable { .. } | Self::Halted { .. } => FailCode::Unreadable,
        }
    }
}

/// A blob that was hashed through the descriptor held here, and matched. Read-only.
#[derive(Debug)]
pub struct VerifiedFile {
    file: File,
    path: String,
    blob: Digest,
    size: u64,
}

impl VerifiedFile {
    /// A path by which this process opens the very file that was hashed, whatever its name on disk leads to
    /// by now. It is good for as long as this value lives.
    pub fn engine_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Reads the very file that was hashed. All readers share one position.
    pub fn reader(&self) -> impl Read + Seek {
        &self.file
    }

    /// Maps the very file that was hashed.
    pub fn map(&self) -> io::Result<Mapped> {
        Mapped::new(&self.file)
    }

    /// Path in the release.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The blob.
    pub fn blob(&self) -> Digest {
        self.blob
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Opens and hashes `files`, each on a thread of its own: one BLAKE3 stream is faster than most disks,
/// several files are read at once. `progress` is told the bytes hashed so far of all files together, from any
/// thread.
pub fn open_all(
    files: &[&AdmittedFile],
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<Vec<VerifiedFile>, GateError> {
    let done = AtomicU64::new(0);
    let add = |bytes: u64| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    // Files beyond the cores wait for their turn: more threads would only make the disk seek.
    let width = std::thread::available_parallelism().map_or(1, usize::from);
    let mut verified = Vec::with_capacity(files.len());
    for batch in files.chunks(width) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = batch.iter().map(|file| scope.spawn(|| open(file, &add, halt))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for (file, result) in batch.iter().zip(results) {
            let panicked = || unreadable(file, io::Error::other("the hashing thread died"));
            verified.push(result.unwrap_or_else(|_| Err(panicked()))?);
        }
    }
    Ok(verified)
}

/// Opens and hashes one file. `add` is told the bytes of each block.
pub fn open(file: &AdmittedFile, add: &dyn Fn(u64), halt: &Halt) -> Result<VerifiedFile, GateError> {
    // NONBLOCK: opening a pipe that somebody put there must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(&file.location, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP => not_regular(file),
        error => unreadable(file, error.into()),
    })?;
    let mut opened = File::from(opened);
    let before = stat(file, &opened)?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(not_regular(file));
    }
    let found_size = u64::try_from(before.st_size).unwrap_or_default();
    if found_size != file.size {
        return Err(GateError::Size {
            path: file.path.clone(),
            expected: file.blob,
            expected_size: file.size,
            found_size,
        });
    }
    // Only a hint; a file system that knows none is as good.
    let _ = rustix::fs::fadvise(&opened, 0, None, Advice::Sequential);
    // One byte more than admitted would already be a mismatch, so a file that grows for ever ends here.
    let limited = (&mut opened).take(file.size.saturating_add(1));
    let found = digest::blake3_file(Metered { inner: limited, add, halt }).map_err(|error| {
        if halt.is_set() { GateError::Halted { path: file.path.clone() } } else { unreadable(file, error) }
    })?;
    if found != file.blob {
        return Err(GateError::HashMismatch { path: file.path.clone(), expected: file.blob, found });
    }
    if !same_content(&before, &stat(file, &opened)?) {
        return Err(GateError::Changed { path: file.path.clone(), blob: file.blob });
    }
    Ok(VerifiedFile { file: opened, path: file.path.clone(), blob: file.blob, size: file.size })
}

fn stat(file: &AdmittedFile, opened: &File) -> Result<Stat, GateError> {
    rustix::fs::fstat(opened).map_err(|error| unreadable(file, error.into()))
}

fn same_content(before: &Stat, after: &Stat) -> bool {
    let written = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    written(before) == written(after)
}

fn unreadable(file: &AdmittedFile, source: io::Error) -> GateError {
    GateError::Unreadable {
        path: file.path.clone(),
        blob: file.blob,
        location: file.location.clone(),
        source,
    }
}

fn not_regular(file: &AdmittedFile) -> GateError {
    GateError::NotRegular { path: file.path.clone(), blob: file.blob, location: file.location.clone() }
}

/// Counts what is read, and ends the reading when the worker is told to stop.
struct Metered<'a, R> {
    inner: R,
    add: &'a dyn Fn(u64),
    halt: &'a Halt,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.halt.is_set() {
            return Err(io::Error::other("told to stop"));
        }
        let bytes = self.inner.read(buffer)?;
        if bytes > 0 {
            (self.add)(bytes as u64);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use registry::serving::StopCode;

    use super::*;
    use crate::halt::Cause;
    use crate::tiny::Scratch;

    fn admitted(location: &Path, content: &[u8]) -> AdmittedFile {
        AdmittedFile {
            path: "weights.gguf".to_owned(),
            blob: Digest::of(content),
            size: content.len() as u64,
            media_type: "application/octet-stream".to_owned(),
            chunk_map: Digest::of(b"no map is read here"),
            location: location.to_owned(),
        }
    }

    fn refusal(file: &AdmittedFile) -> GateError {
        open(file, &|_| {}, &Halt::default()).err().unwrap()
    }

    #[test]
    fn right_bytes_are_opened_and_stay_the_same_whatever_happens_to_the_name() {
        let scratch = Scratch::new();
        let content = vec![7u8; 700_001];
        let location = scratch.file("blob", &content);
        let total = AtomicU64::new(0);
        let file = admitted(&location, &content);
        let opened = open_all(
            &[&file, &file],
            &|done| {
                total.fetch_max(done, Ordering::Relaxed);
            },
            &Halt::default(),
        )
        .unwrap();
        assert_eq!(total.into_inner(), 2 * content.len() as u64);
        fs::remove_file(&location).unwrap();
        fs::write(&location, b"something else").unwrap();
        assert_eq!(fs::read(opened.first().unwrap().engine_path()).unwrap(), content);
    }

    #[test]
    fn one_flipped_bit_is_refused_with_both_digests_and_the_way_out() {
        let scratch = Scratch::new();
        let mut content = vec![7u8; 300_000];
        let file = admitted(&scratch.file("blob", b""), &content);
        content[299_999] ^= 1;
        fs::write(&file.location, &content).unwrap();
        let error = refusal(&file);
        let text = error.to_string();
        assert!(matches!(error, GateError::HashMismatch { .. }), "{text}");
        assert_eq!(error.code(), FailCode::HashMismatch);
        for part in
            ["weights.gguf", &file.blob.to_string(), &Digest::of(&content).to_string(), "steelyard verify"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_wrong_length_is_refused_without_hashing() {
        let scratch = Scratch::new();
        for content in [&b"short"[..], b"much longer than it was"] {
            let file = AdmittedFile { size: 9, ..admitted(&scratch.file("blob", content), b"nine byte") };
            assert!(matches!(refusal(&file), GateError::Size { expected_size: 9, .. }));
        }
    }

    #[test]
    fn links_pipes_folders_and_absent_files_are_refused() {
        let scratch = Scratch::new();
        let target = scratch.file("target", b"content");
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let pipe = scratch.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for location in [&link, &pipe, &scratch.path().to_owned()] {
            let error = refusal(&admitted(location, b"content"));
            assert!(matches!(error, GateError::NotRegular { .. }), "{error}");
        }
        let error = refusal(&admitted(&scratch.path().join("absent"), b"content"));
        assert!(matches!(error, GateError::Unreadable { .. }), "{error}");
        assert_eq!(error.code(), FailCode::Unreadable);
    }

    #[test]
    fn a_recall_ends_the_hashing() {
        let scratch = Scratch::new();
        let file = admitted(&scratch.file("blob", b"content"), b"content");
        let halt = Halt::default();
        halt.set(Cause { code: StopCode::Recalled, reason: "bad".to_owned() });
        assert!(matches!(open(&file, &|_| {}, &halt), Err(GateError::Halted { .. })));
    }
}
