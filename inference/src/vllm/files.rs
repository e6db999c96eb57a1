//! The folder that vLLM sees: the admitted files, each the very one that was hashed, and room for what it writes.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, open};

use crate::gate::VerifiedFile;
use crate::sealed::view;

/// Where the admitted files are, as vLLM sees it.
pub(super) const MODEL: &str = "/tmp/model";
/// Its home.
pub(super) const HOME: &str = "/tmp/home";
/// Room for what it compiles and keeps, and for what its processes share, in memory.
const SCRATCH: &str = "size=16g,mode=0700";
const SHARED: &str = "size=50%,mode=1777";

/// One admitted file.
pub(crate) struct Shown {
    name: String,
    location: PathBuf,
    verified: File,
}

impl Shown {
    /// `location` is where the store keeps what was hashed as `file`.
    pub(crate) fn new(file: &VerifiedFile, location: &Path) -> io::Result<Self> {
        Ok(Self {
            name: file.path().to_owned(),
            location: location.to_owned(),
            verified: file.file().try_clone()?,
        })
    }

    /// Opens it in this thread's view of the file systems, where a descriptor of another view can't be mounted. It must be the
    /// file that was hashed, not another under its name.
    fn open(&self) -> io::Result<OwnedFd> {
        let opened = open(&self.location, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let (here, hashed) = (fstat(&opened)?, fstat(&self.verified)?);
        if (here.st_dev, here.st_ino) != (hashed.st_dev, hashed.st_ino) {
            let what = format!("`{}` is no longer the file that was hashed", self.name);
            return Err(io::Error::other(what));
        }
        Ok(opened)
    }
}

/// Gives the calling thread, and what it starts, a view of its own: scratch folders that are empty, and the files.
pub(super) fn show(files: &[Shown]) -> io::Result<()> {
    view::alone()?;
    // Before anything hides where they are.
    let opened = files.iter().map(Shown::open).collect::<io::Result<Vec<_>>>()?;
    view::scratch(Path::new("/tmp"), SCRATCH)?;
    if Path::new("/dev/shm").is_dir() {
        view::scratch(Path::new("/dev/shm"), SHARED)?;
    }
    fs::create_dir(HOME)?;
    fs::create_dir(MODEL)?;
    for (file, descriptor) in files.iter().zip(&opened) {
        let place = Path::new(MODEL).join(&file.name);
        File::create(&place)?;
        view::bind_to_read(Path::new(&format!("/proc/self/fd/{}", descriptor.as_raw_fd())), &place)?;
    }
    Ok(())
}
