//! A file system that holds nothing but the folder of this process's own descriptors, `/proc/self/fd`, through which an
//! engine opens the very file that was hashed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use super::sys;

const CLONE_NEWNS: u64 = 0x0002_0000;
const MS_RDONLY: u64 = 0x1;
const MS_NOSUID: u64 = 0x2;
const MS_NODEV: u64 = 0x4;
const MS_NOEXEC: u64 = 0x8;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 0x4_0000;

/// Folders over which the new root may be mounted for a moment, in a view that nobody else has. Every system has one.
const PLACES: [&str; 4] = ["/tmp", "/run", "/var", "/usr"];
/// What becomes visible.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A build with CUDA keeps the files of its driver; Landlock says which.
#[cfg(feature = "cuda")]
pub(super) fn enter() -> io::Result<String> {
    Err(io::Error::other("a build with CUDA needs the files of its driver (Landlock says which)"))
}

/// Leaves every file system behind. Descriptors that are open stay good.
#[cfg(not(feature = "cuda"))]
pub(super) fn enter() -> io::Result<String> {
    let place = PLACES.into_iter().find(|place| Path::new(place).is_dir());
    let place = place.ok_or_else(|| io::Error::other("there is no folder to mount over"))?;
    let root = CString::new(place)?;
    sys::unshare(CLONE_NEWNS)?;
    // Nothing that happens here reaches the other namespaces.
    sys::mount(c"none", c"/", c"", MS_REC | MS_PRIVATE, c"")?;
    let careful = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount(c"none", &root, c"tmpfs", careful, c"size=64k,nr_inodes=16,mode=0555")?;
    let inside = format!("{place}{DESCRIPTORS}");
    fs::create_dir_all(&inside)?;
    sys::mount(&CString::new(DESCRIPTORS)?, &CString::new(inside)?, c"", MS_BIND, c"")?;
    sys::mount(c"none", &root, c"", MS_REMOUNT | MS_BIND | MS_RDONLY | careful, c"")?;
    rustix::process::chdir(place)?;
    // The old root lies on top of the new one for a moment (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")?;
    sys::unmount(c".")?;
    rustix::process::chdir("/")?;
    Ok("an empty read-only root with its own descriptors".to_owned())
}
