//! How a node hands descriptors to its worker: everything that the worker will read or listen on, opened by the node.
//!
//! A worker can open no path. So the node opens each blob and its chunk map read-only, binds the listener, and sends the
//! descriptors over the Unix socket that is the worker's standard input (`SCM_RIGHTS`), in messages of one zero byte each,
//! before the [`super::Launch`] line, which begins with another byte. Nothing is left to be inherited by accident.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::admitted::{AdmittedFile, Handoff};

/// Descriptors in one message; the kernel takes up to 253.
const BATCH: usize = 64;
/// The byte that each message of descriptors carries.
const MARK: u8 = 0;
/// Most files of a release that are handed in: sharded weights have some hundreds, and each file costs two descriptors.
pub const MAX_FILES: usize = 512;
/// Most adapters that go with a model in one worker.
pub const MAX_ADAPTERS: usize = 32;
/// Most files of an adapter that are handed in: it has one of weights, and one or two that say how to read them.
pub const MAX_ADAPTER_FILES: usize = 8;
/// Most descriptors that are handed in: the listener, and two for each file.
pub const MAX_DESCRIPTORS: usize = 1 + 2 * (MAX_FILES + MAX_ADAPTERS * MAX_ADAPTER_FILES);
/// Ends of names that engines know; such files are handed in first where a release has too many.
const KNOWN: [&str; 6] = [".gguf", ".safetensors", ".json", ".jinja", ".model", ".txt"];

/// Why a blob is not handed in.
#[derive(Debug, thiserror::Error)]
pub enum HandError {
    /// The blob's file is a link, a pipe, a device or a folder.
    #[error("it is not a regular file. Blobs are never links: remove it and pull the release again")]
    NotRegular,
    /// It can't be opened.
    #[error("{0}. Pull the release again")]
    Io(#[from] io::Error),
}

/// A file of the release whose descriptors were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Its place among the release's files.
    pub file: usize,
    /// Whether its chunk map's descriptor follows that of its blob.
    pub map: bool,
    /// Whether its bytes are still coming: it is told of them by [`super::Order::Here`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growing: bool,
    /// Why neither was sent, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What a worker is handed.
#[derive(Debug)]
pub struct Hand {
    descriptors: Vec<OwnedFd>,
    handed: Vec<Handed>,
}

/// Opens a blob read-only, and nothing but a regular file.
pub fn open(location: &Path) -> Result<File, HandError> {
    // NONBLOCK: opening a pipe that somebody put there must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(location, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP => HandError::NotRegular,
        error => HandError::Io(error.into()),
    })?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened).map_err(io::Error::from)?.st_mode);
    if kind == FileType::RegularFile { Ok(File::from(opened)) } else { Err(HandError::NotRegular) }
}

impl Hand {
    /// Opens what `handoff` names; `map` opens a file's chunk map, which is only needed to say where damage is.
    pub fn open(
        listener: &TcpListener,
        handoff: &Handoff,
        map: impl Fn(&AdmittedFile) -> Option<File>,
    ) -> io::Result<Self> {
        Self::with(listener, handoff, |_| None, map)
    }

    /// The same where some of the files are still coming: `growing` has what is read of such a one while it grows.
    pub fn with(
        listener: &TcpListener,
        handoff: &Handoff,
        growing: impl Fn(&AdmittedFile) -> Option<File>,
        map: impl Fn(&AdmittedFile) -> Option<File>,
    ) -> io::Result<Self> {
        let mut hand = Self { descriptors: vec![listener.as_fd().try_clone_to_owned()?], handed: Vec::new() };
        hand.handed = hand.add(chosen(handoff.files()), growing, map);
        Ok(hand)
    }

    /// Opens what an adapter's `handoff` names, behind everything that was opened before; what the [`super::Launch`] line says of
    /// it.
    pub fn adapter(&mut self, handoff: &Handoff, map: impl Fn(&AdmittedFile) -> Option<File>) -> Vec<Handed> {
        self.add(at_most(MAX_ADAPTER_FILES, handoff.files()), |_| None, map)
    }

    fn add(
        &mut self,
        files: Vec<(usize, &AdmittedFile)>,
        growing: impl Fn(&AdmittedFile) -> Option<File>,
        map: impl Fn(&AdmittedFile) -> Option<File>,
    ) -> Vec<Handed> {
        let mut handed = Vec::new();
        for (index, file) in files {
            let grows = growing(file);
            let growing = grows.is_some();
            match grows.map_or_else(|| open(&file.location), Ok) {
                Ok(blob) => {
                    self.descriptors.push(blob.into());
                    let map = map(file).map(OwnedFd::from);
                    handed.push(Handed { file: index, map: map.is_some(), growing, refused: None });
                    self.descriptors.extend(map);
                }
                Err(error) => {
                    let refused = format!("{}: {error}", file.location.display());
                    handed.push(Handed { file: index, map: false, growing, refused: Some(refused) });
                }
            }
        }
        handed
    }

    /// What the [`super::Launch`] line says of it.
    pub fn handed(&self) -> Vec<Handed> {
        self.handed.clone()
    }

    /// Sends everything. It waits in the socket until the worker takes it.
    pub fn send(&self, socket: &UnixStream) -> io::Result<()> {
        for batch in self.descriptors.chunks(BATCH) {
            let batch: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&batch)) {
                return Err(io::Error::other("too many descriptors in one message"));
            }
            rustix::net::sendmsg(socket, &[IoSlice::new(&[MARK])], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

/// The files of a model's release to hand in, with their places: all of them, or those first that engines know.
pub fn chosen(files: &[AdmittedFile]) -> Vec<(usize, &AdmittedFile)> {
    at_most(MAX_FILES, files)
}

fn at_most(most: usize, files: &[AdmittedFile]) -> Vec<(usize, &AdmittedFile)> {
    let mut chosen: Vec<_> = files.iter().enumerate().collect();
    if chosen.len() > most {
        let unknown = |file: &AdmittedFile| !KNOWN.iter().any(|end| file.path.to_lowercase().ends_with(end));
        chosen.sort_by_key(|(index, file)| (unknown(file), *index));
        chosen.truncate(most);
    }
    chosen
}

/// Takes the descriptors off `socket`, and the first byte of what follows them; no byte at the end of the input. A pipe or
/// a file carries none.
pub fn receive(socket: impl AsFd) -> io::Result<(Vec<OwnedFd>, Option<u8>)> {
    let mut descriptors = Vec::new();
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut byte)];
        let bytes = match rustix::net::recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::NOTSOCK) => rustix::io::read(&socket, &mut byte)?,
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                descriptors.extend(sent);
            }
        }
        match byte {
            _ if bytes == 0 => return Ok((descriptors, None)),
            [MARK] if descriptors.len() <= MAX_DESCRIPTORS => {}
            [MARK] => return Err(io::Error::other(format!("more than {MAX_DESCRIPTORS} descriptors"))),
            [first] => return Ok((descriptors, Some(first))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::path::PathBuf;

    use super::*;
    use crate::digest::Digest;

    fn handoff(files: usize, location: &Path) -> Handoff {
        let files: Vec<_> = (0..files)
            .map(|number| AdmittedFile {
                path: format!("{number}.bin"),
                blob: Digest::of(b""),
                size: 0,
                media_type: String::new(),
                chunk_map: Digest::of(b""),
                location: location.to_owned(),
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "release": Digest::of(b"r"), "model": "alba/x", "version": "1", "format": "gguf",
            "admitted": "2026-11-01T00:00:00Z", "files": files,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_sent_arrives_in_order_before_the_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut content = tempfile::NamedTempFile::new().unwrap();
        content.write_all(b"weights").unwrap();
        let many = handoff(MAX_FILES + 3, content.path());
        let hand = Hand::open(&listener, &many, |_| None).unwrap();
        assert_eq!(hand.handed().len(), MAX_FILES);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        hand.send(&ours).unwrap();
        ours.write_all(b"{\"launch\"").unwrap();
        let (mut descriptors, first) = receive(&theirs).unwrap();
        assert_eq!((descriptors.len(), first), (1 + MAX_FILES, Some(b'{')));
        let port = TcpListener::from(descriptors.remove(0)).local_addr().unwrap();
        assert_eq!(port, listener.local_addr().unwrap());
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "weights");
    }

    #[test]
    fn links_pipes_folders_and_absent_files_are_not_handed_in() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("target"), b"content").unwrap();
        std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for location in [at("link"), at("pipe"), folder.path().to_owned()] {
            assert!(matches!(open(&location), Err(HandError::NotRegular)), "{}", location.display());
        }
        assert!(matches!(open(&at("absent")), Err(HandError::Io(_))));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hand = Hand::open(&listener, &handoff(1, &PathBuf::from("/nonexistent/blob")), |_| None).unwrap();
        let refused = hand.handed().remove(0).refused.unwrap();
        assert!(refused.contains("/nonexistent/blob") && refused.contains("Pull"), "{refused}");
    }

    #[test]
    fn a_pipe_carries_no_descriptors() {
        let (read, mut write) = io::pipe().unwrap();
        write.write_all(b"x").unwrap();
        let (descriptors, first) = receive(&read).unwrap();
        assert!(descriptors.is_empty() && first == Some(b'x'));
        drop(write);
        assert_eq!(receive(&read).unwrap().1, None);
    }
}
