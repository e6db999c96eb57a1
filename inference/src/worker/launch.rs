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

/// The descriptors of the files of the model's release (0) and of its adapters' (from 1 on), by path.
#[derive(Default)]
pub(super) struct Shelf(BTreeMap<(usize, String), Entry>);

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

    /// Takes the descriptors of a file of the model's.
    pub(super) fn take(&mut self, file: &AdmittedFile) -> Result<Taken, GateError> {
        self.take_of(0, file)
    }

    /// Takes the descriptors of a file of an adapter's, by the adapter's number; it is never one that is still coming.
    pub(super) fn take_whole(&mut self, adapter: usize, file: &AdmittedFile) -> Result<Opened, GateError> {
        match self.take_of(adapter, file)? {
            Taken::Whole(opened) => Ok(opened),
            Taken::Growing(_) => Err(GateError::NotHanded {
                path: file.path.clone(),
                blob: file.blob,
                reason: "it is still coming".to_owned(),
            }),
        }
    }

    fn take_of(&mut self, release: usize, file: &AdmittedFile) -> Result<Taken, GateError> {
        let refused =
            |reason: String| GateError::NotHanded { path: file.path.clone(), blob: file.blob, reason };
        match self.0.remove(&(release, file.path.clone())) {
            Some(Ok(Given { blob, map, copy })) => {
                let opened = Opened::handed(file, blob, map);
                Ok(match copy {
                    None => Taken::Whole(opened),
                    Some(copy) => Taken::Growing(Box::new(Growing::new(opened, copy)?)),
                })
            }
            Some(Err(reason)) => Err(refused(reason)),
            None => {
                let most = if release == 0 { hand::MAX_FILES } else { hand::MAX_ADAPTER_FILES };
                Err(refused(format!("a worker takes {most} files of such a release at most")))
            }
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
        if launch.adapters.len() > hand::MAX_ADAPTERS {
            return Err(io::Error::other(format!("more than {} adapters", hand::MAX_ADAPTERS)));
        }
        let model = (&launch.admitted, &launch.handed);
        let adapters = launch.adapters.iter().map(|adapter| (&adapter.admitted, &adapter.handed));
        let releases = std::iter::once(model).chain(adapters).enumerate();
        let all = releases
            .flat_map(|(place, (admitted, handed))| handed.iter().map(move |one| (place, admitted, one)));
        for (release, admitted, handed) in all {
            let file = admitted.files().get(handed.file);
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
            shelf.0.insert((release, file.path.clone()), entry);
        }
        Ok(Self { launch, listener, shelf, input })
    }
}
