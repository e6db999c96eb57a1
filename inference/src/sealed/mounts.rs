//! A file system that holds nothing but the folder of this process's own descriptors, `/proc/self/fd`, through which an
//! engine opens the very file that was hashed; and, where a GPU is computed on, its device nodes and, for reading, the
//! libraries of its driver.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::driver::Driver;
use super::sys;

const CLONE_NEWNS: u64 = 0x0002_0000;
const MS_RDONLY: u64 = 0x1;
pub(super) const MS_NOSUID: u64 = 0x2;
pub(super) const MS_NODEV: u64 = 0x4;
const MS_NOEXEC: u64 = 0x8;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
pub(super) const MS_REC: u64 = 0x4000;
pub(super) const MS_PRIVATE: u64 = 0x4_0000;

/// Folders over which the new root may be mounted for a moment, in a view that nobody else has. Every system has one.
const PLACES: [&str; 4] = ["/tmp", "/run", "/var", "/usr"];
/// What becomes visible.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Leaves every file system behind but what a GPU's driver needs. Descriptors that are open stay good.
pub(super) fn enter(driver: &Driver) -> io::Result<String> {
    // It hides what is in that folder, so nothing that is kept may lie there.
    let kept: Vec<&PathBuf> = driver.read.iter().chain(&driver.nodes).collect();
    let free = |place: &Path| place.is_dir() && kept.iter().all(|path| !path.starts_with(place));
    let place = PLACES.into_iter().find(|place| free(Path::new(place)));
    let place = place.ok_or_else(|| io::Error::other("there is no folder to mount over"))?;
    let root = CString::new(place)?;
    sys::unshare(CLONE_NEWNS)?;
    // Nothing that happens here reaches the other namespaces.
    sys::mount(c"none", c"/", c"", MS_REC | MS_PRIVATE, c"")?;
    let careful = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    sys::mount(c"none", &root, c"tmpfs", careful, c"size=256k,nr_inodes=256,mode=0555")?;
    let inside = format!("{place}{DESCRIPTORS}");
    fs::create_dir_all(&inside)?;
    sys::mount(&CString::new(DESCRIPTORS)?, &CString::new(inside)?, c"", MS_BIND, c"")?;
    for path in &driver.read {
        show(path, Path::new(place), false)?;
    }
    for node in &driver.nodes {
        show(node, Path::new(place), true)?;
    }
    sys::mount(c"none", &root, c"", MS_REMOUNT | MS_BIND | MS_RDONLY | careful, c"")?;
    rustix::process::chdir(place)?;
    // The old root lies on top of the new one for a moment (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".")?;
    sys::unmount(c".")?;
    rustix::process::chdir("/")?;
    let root = "an empty read-only root with its own descriptors";
    Ok(if kept.is_empty() { root.to_owned() } else { format!("{root} and the GPU's driver") })
}

/// Binds a file or folder into the new root, where it lies in the old one. What a link leads to is shown in its place.
fn show(path: &Path, place: &Path, node: bool) -> io::Result<()> {
    let inside = place.join(path.strip_prefix("/").map_err(io::Error::other)?);
    if path.is_dir() {
        fs::create_dir_all(&inside)?;
    } else {
        inside.parent().map(fs::create_dir_all).transpose()?;
        fs::File::create(&inside)?;
    }
    bind(path, &inside, !node)
}

/// Binds what is at `from` to `to`, which is there already.
pub(super) fn bind(from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
    let (source, target) = (text(from)?, text(to)?);
    sys::mount(&source, &target, c"", MS_BIND | MS_REC, c"")?;
    if read_only {
        sys::mount(c"none", &target, c"", MS_REMOUNT | MS_BIND | MS_RDONLY | inherited(to)?, c"")?;
    }
    Ok(())
}

/// The flags of a mount that a remount must name again: in a user namespace none of them can be taken away.
fn inherited(path: &Path) -> io::Result<u64> {
    const ST_NOATIME: u64 = 0x400;
    const ST_NODIRATIME: u64 = 0x800;
    const ST_RELATIME: u64 = 0x1000;
    const MS_RELATIME: u64 = 0x20_0000;
    let flags = rustix::fs::statvfs(path)?.f_flag.bits();
    // The first four have one number in both calls.
    let same = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC | ST_NOATIME | ST_NODIRATIME);
    Ok(same | if flags & ST_RELATIME != 0 { MS_RELATIME } else { 0 })
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// With rights over mounts it can be seen without a user namespace, in a thread, whose view alone changes.
    #[test]
    fn of_all_files_those_of_the_driver_stay_and_what_is_read_cannot_be_written() {
        if !rustix::process::getuid().is_root() {
            return eprintln!("not seen here: it takes root");
        }
        // A device and a folder that every machine has.
        let driver = Driver {
            nodes: vec![PathBuf::from("/dev/null")],
            read: ["/proc/cpuinfo", "/usr/lib", "/lib"].map(PathBuf::from).into(),
        };
        let seen = std::thread::spawn(move || {
            let said = enter(&driver)?;
            let mut names: Vec<_> =
                fs::read_dir("/")?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
            names.sort();
            let written =
                fs::File::options().write(true).create(true).truncate(true).open("/usr/lib/steelyard-test");
            let node = fs::write("/dev/null", b"gone");
            let read = fs::read_dir("/usr/lib")?.count();
            Ok::<_, io::Error>((said, names, written.map(drop), node, read, Path::new("/etc").exists()))
        });
        let (said, names, written, node, read, etc) = match seen.join().unwrap() {
            Ok(seen) => seen,
            Err(error) if error.raw_os_error() == Some(1) => {
                return eprintln!("not seen here: the container forbids mounts");
            }
            Err(error) => panic!("{error}"),
        };
        assert!(said.contains("driver"), "{said}");
        assert_eq!(names, ["dev", "lib", "proc", "usr"]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(node.is_ok() && read > 1 && !etc, "{node:?}");
    }
}
