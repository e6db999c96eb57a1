//! Ways to files.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use registry::serving::Proving;

use super::super::sys::{Arg, Probe, attempt, attempt_mount, close};
use super::Found;

/// Files of the system that everybody may read, and the node's own environment and memory.
const READ: [&str; 4] = ["/etc/passwd", "/proc/1/environ", "/proc/cpuinfo", "/sys/kernel/notes"];

pub(super) fn attempts(found: &mut Found, proving: &Proving) {
    for path in READ {
        found.note(format!("read {path}"), File::open(path));
    }
    for path in &proving.read {
        found.note(format!("read {}", path.display()), File::open(path));
    }
    let memory = format!("/proc/{}/mem", proving.node);
    found.note(format!("open {memory}"), File::open(&memory));
    found.note("read the node's environment", File::open(format!("/proc/{}/environ", proving.node)));
    found.note("list the root folder", fs::read_dir("/"));
    found.note("list the node's folder", fs::read_dir(&proving.write));
    found.note("change its own memory through a file", OpenOptions::new().write(true).open("/proc/self/mem"));
    let made = proving.write.join(format!("steelyard-proof-{}", std::process::id()));
    found.note(format!("write {}", made.display()), write(&made));
    found.note("make a folder", fs::create_dir(&made).and_then(|()| fs::remove_dir(&made)));
    found.note(
        "make a link",
        std::os::unix::fs::symlink("/etc/passwd", &made).and_then(|()| fs::remove_file(&made)),
    );
    found.note("open a file by its handle", by_handle());
    found.note("make a file in memory (memfd)", memory_file(Probe::MEMFD_CREATE));
    found.note("make secret memory", attempt(Probe::MEMFD_SECRET, &mut [Arg::Number(0)]).map(close));
    found.note("change its root folder", root(&proving.write));
    found.note("mount a file system", mount(&proving.write));
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(b"out");
    fs::remove_file(path)?;
    written
}

fn by_handle() -> io::Result<()> {
    let mut handle = [0; 4096];
    // As long as ext4's, of a type that exists; what it names need not.
    handle[..4].copy_from_slice(&8u32.to_ne_bytes());
    handle[4..8].copy_from_slice(&1u32.to_ne_bytes());
    // The current folder's mount.
    let here = u64::from(u32::from_ne_bytes((-100i32).to_ne_bytes()));
    let mut args = [Arg::Number(here), Arg::Page(&mut handle), Arg::Number(0)];
    match attempt(Probe::OPEN_BY_HANDLE_AT, &mut args) {
        // ESTALE: the right was there, the file is not.
        Err(error) if error.raw_os_error() == Some(116) => Ok(()),
        other => other.map(close),
    }
}

pub(super) fn memory_file(probe: Probe) -> io::Result<()> {
    attempt(probe, &mut [Arg::Text(c"proof"), Arg::Number(0)]).map(close)
}

fn root(to: &Path) -> io::Result<()> {
    // Only where a view of its own keeps the change from this process's other threads.
    let path = CString::new(to.as_os_str().as_bytes())?;
    own_view(|| attempt(Probe::CHROOT, &mut [Arg::Text(&path)]).map(drop))
}

fn mount(over: &Path) -> io::Result<()> {
    let path = CString::new(over.as_os_str().as_bytes())?;
    own_view(|| attempt_mount(&path))
}

/// Makes an attempt in a mount namespace of the thread's own where one can be had, so that what succeeds is seen by nobody.
fn own_view(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    const CLONE_NEWNS: u64 = 0x0002_0000;
    std::thread::scope(|scope| {
        let work = move || {
            let _ = attempt(Probe::UNSHARE, &mut [Arg::Number(CLONE_NEWNS)]).and_then(|_| {
                super::super::sys::mount(c"none", c"/", c"", 0x4000 | 0x4_0000, c"").map(|()| 0)
            });
            work()
        };
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
    })
}
