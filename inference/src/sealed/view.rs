//! Parts of the walls for a program that this process starts: its own view of file systems and processes.

use std::ffi::CString;
use std::io;
use std::path::Path;

use super::mounts::{self, MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC};
use super::sys;

const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;

/// From now on what the calling thread mounts is seen by itself, and by what it starts, alone.
pub(crate) fn alone() -> io::Result<()> {
    sys::unshare(CLONE_NEWNS)?;
    sys::mount(c"none", c"/", c"", MS_REC | MS_PRIVATE, c"")
}

/// What the calling thread starts next is the first process of a namespace of its own. Threads can't be made after.
pub(crate) fn processes_apart() -> io::Result<()> {
    sys::unshare(CLONE_NEWPID)
}

/// Hides a folder behind an empty one in memory.
pub(crate) fn scratch(folder: &Path, options: &str) -> io::Result<()> {
    let folder = CString::new(folder.as_os_str().as_encoded_bytes())?;
    sys::mount(c"none", &folder, c"tmpfs", MS_NOSUID | MS_NODEV, &CString::new(options)?)
}

/// Shows a file at `place`, for reading.
pub(crate) fn bind_to_read(file: &Path, place: &Path) -> io::Result<()> {
    mounts::bind(file, place, true)
}

/// Shows this process its own namespace's processes in /proc, and no others.
pub(crate) fn own_processes() -> io::Result<()> {
    alone()?;
    sys::mount(c"none", c"/proc", c"proc", MS_NOSUID | MS_NODEV, c"")
}

/// Gives up all rights, and those that programs might bring.
pub(crate) fn no_more_rights() -> io::Result<()> {
    sys::no_new_privileges()?;
    sys::drop_capabilities()
}
