//! What the node hands over before a worker seals itself: the launch line and the descriptors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Stdin};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};

use registry::admitted::AdmittedFile;
use registry::serving::{Launch, hand};

use super::orders::read_line;
use crate::gate::growing::{self, Growing};
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

/// A file as it was handed in.
struct Given {
    blob: File,
    map: Option<File>,
    /// Where the bytes of a file that is still coming are copied to.
    copy: Option<File>,
}

/// A file, or why it was not handed in.
type Entry = Result<Given, String>;

/// A file off the shelf.
pub(super) enum Taken {
    /// It is whole.
    Whole(Opened),
    /// It is still coming.
    Growing(Box<Growing>),
}

/// The descriptors of the release's files, by path.
#[derive(Default)]
pub(super) struct Shelf(BTreeMap<String, Entry>);

impl Shelf {
    /// Every blob's descriptor.
    pub(super) fn blobs(&self) -> Vec<BorrowedFd<'_>> {
        self.given().map(|given| given.blob.as_fd()).collect()
    }

    fn given(&self) -> impl Iterator<Item = &Given> {
        self.0.values().filter_map(|entry| entry.as_ref().ok())
    }

    /// The length of the longest copy of a file that is still coming; 0 without one.
    pub(super) fn largest_copy(&self) -> u64 {
        let copies = self.given().filter_map(|given| given.copy.as_ref());
        copies.filter_map(|copy| Some(copy.metadata().ok()?.len())).max().unwrap_or(0)
    }

    /// Every descriptor.
    pub(super) fn all(&self) -> Vec<BorrowedFd<'_>> {
        let beside = self.given().flat_map(|given| [given.map.as_ref(), given.copy.as_ref()]);
        self.blobs().into_iter().chain(beside.flatten().map(AsFd::as_fd)).collect()
    }

    /// Takes the descriptors of a file.
    pub(super) fn take(&mut self, file: &AdmittedFile) -> Result<Taken, GateError> {
        let refused =
            |reason: String| GateError::NotHanded { path: file.path.clone(), blob: file.blob, reason };
        match self.0.remove(&file.path) {
            Some(Ok(Given { blob, map, copy })) => {
                let opened = Opened::handed(file, blob, map);
                Ok(match copy {
                    None => Taken::Whole(opened),
                    Some(copy) => Taken::Growing(Box::new(Growing::new(opened, copy)?)),
                })
            }
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
                None => {
                    let blob = next()?.into();
                    let map = if handed.map { Some(next()?.into()) } else { None };
                    let copy = if handed.growing { Some(growing::memory(file.size)?) } else { None };
                    Ok(Given { blob, map, copy })
                }
            };
            shelf.0.insert(file.path.clone(), entry);
        }
        Ok(Self { launch, listener, shelf, input })
    }
}
