//! What the node hands over before a worker seals itself: the launch line and the descriptors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Stdin};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};

use registry::admitted::AdmittedFile;
use registry::serving::{Launch, hand};

use super::orders::read_line;
use crate::gate::{GateError, Opened};

/// The rest of the input.
pub(super) type Input = BufReader<io::Chain<Cursor<Vec<u8>>, Stdin>>;

/// Everything that a worker begins with.
pub(super) struct Begun {
    pub(super) launch: Launch,
    pub(super) listener: TcpListener,
    pub(super) shelf: Shelf,
    pub(super) input: Input,
}

/// A file as it was handed in: its blob and its chunk map, or why not.
type Entry = Result<(File, Option<File>), String>;

/// The descriptors of the release's files, by path.
#[derive(Default)]
pub(super) struct Shelf(BTreeMap<String, Entry>);

impl Shelf {
    /// Every blob's descriptor.
    pub(super) fn blobs(&self) -> Vec<BorrowedFd<'_>> {
        self.0.values().filter_map(|entry| entry.as_ref().ok()).map(|(blob, _)| blob.as_fd()).collect()
    }

    /// Every descriptor.
    pub(super) fn all(&self) -> Vec<BorrowedFd<'_>> {
        let maps = self.0.values().filter_map(|entry| entry.as_ref().ok()?.1.as_ref());
        self.blobs().into_iter().chain(maps.map(AsFd::as_fd)).collect()
    }

    /// Takes the descriptors of a file.
    pub(super) fn take(&mut self, file: &AdmittedFile) -> Result<Opened, GateError> {
        let refused =
            |reason: String| GateError::NotHanded { path: file.path.clone(), blob: file.blob, reason };
        match self.0.remove(&file.path) {
            Some(Ok((blob, map))) => Ok(Opened::handed(file, blob, map)),
            Some(Err(reason)) => Err(refused(reason)),
            None => Err(refused(format!("a worker takes {} files of a release at most", hand::MAX_FILES))),
        }
    }
}

impl Begun {
    /// Reads the descriptors and the launch line off the standard input.
    pub(super) fn read() -> io::Result<Self> {
        let (descriptors, first) = hand::receive(io::stdin())?;
        let Some(first) = first else { return Err(io::Error::other("its input is empty")) };
        let mut input = BufReader::new(Cursor::new(vec![first]).chain(io::stdin()));
        let line = read_line(&mut input)?.unwrap_or_default();
        let launch: Launch = serde_json::from_slice(&line).map_err(io::Error::other)?;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| io::Error::other("a descriptor is missing"));
        let listener = TcpListener::from(next()?);
        let mut shelf = Shelf::default();
        for handed in &launch.handed {
            let file = launch.admitted.files().get(handed.file);
            let file =
                file.ok_or_else(|| io::Error::other("a file was handed in that the release does not have"))?;
            let entry = match &handed.refused {
                Some(reason) => Err(reason.clone()),
                None => Ok((next()?.into(), if handed.map { Some(next()?.into()) } else { None })),
            };
            shelf.0.insert(file.path.clone(), entry);
        }
        Ok(Self { launch, listener, shelf, input })
    }
}
