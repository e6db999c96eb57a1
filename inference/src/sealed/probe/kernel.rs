//! Ways into the kernel, and out of the walls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::super::sys::{Arg, Page, Probe, attempt, close};
use super::Found;

const CLONE_NEWUSER: u64 = 0x1000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;

pub(super) fn attempts(found: &mut Found) {
    found.note(
        "make a user namespace",
        in_a_thread(|| attempt(Probe::UNSHARE, &mut [Arg::Number(CLONE_NEWUSER)])),
    );
    found.note(
        "make a network namespace",
        in_a_thread(|| attempt(Probe::UNSHARE, &mut [Arg::Number(CLONE_NEWNET)])),
    );
    found.note(
        "enter process 1's network namespace",
        in_a_thread(|| {
            let file = File::open("/proc/1/ns/net").or_else(|_| File::open("/proc/self/fd/0"));
            let number = file.as_ref().map_or(0, |file| file.as_raw_fd() as u64);
            attempt(Probe::SETNS, &mut [number, 0].map(Arg::Number))
        }),
    );
    let mut page = [0; 4096];
    let mut args = [Arg::Number(1), Arg::Page(&mut page)];
    found.note("io_uring", attempt(Probe::IO_URING_SETUP, &mut args).map(close));
    found.note("load a program into the kernel (bpf)", bpf().map(close));
    found.note("use the kernel's keyrings (keyctl)", keyring());
    found.note(
        "handle page faults (userfaultfd)",
        attempt(Probe::USERFAULTFD, &mut [Arg::Number(1)]).map(close),
    );
    found.note("watch other processes (perf)", perf().map(close));
    found.note("become dumpable again", attempt(Probe::PRCTL, &mut [4, 1, 0, 0, 0].map(Arg::Number)));
    found.note("make memory both writable and code", code());
    found.note("raise its own limits", raise());
}

fn in_a_thread(work: impl FnOnce() -> io::Result<usize> + Send + 'static) -> io::Result<usize> {
    std::thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
}

fn word(page: &mut Page, at: usize, value: u32) {
    if let Some(place) = page.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

/// A map of one entry: `BPF_MAP_CREATE`.
fn bpf() -> io::Result<usize> {
    let mut attributes = [0; 4096];
    // Type array, keys of 4 bytes, values of 8, one entry.
    [2, 4, 8, 1].into_iter().enumerate().for_each(|(index, value)| word(&mut attributes, index * 4, value));
    attempt(Probe::BPF, &mut [Arg::Number(0), Arg::Page(&mut attributes), Arg::Number(72)])
}

/// The number of the session's keyring: `KEYCTL_GET_KEYRING_ID`.
fn keyring() -> io::Result<usize> {
    let session = u64::from(u32::from_ne_bytes((-3i32).to_ne_bytes()));
    attempt(Probe::KEYCTL, &mut [0, session, 0].map(Arg::Number))
}

/// A counter of this thread's own page faults, the tamest that there is.
fn perf() -> io::Result<usize> {
    let mut attributes = [0; 4096];
    // Type software, size, event page faults; without the kernel and the hypervisor.
    [1, 64, 2].into_iter().enumerate().for_each(|(index, value)| word(&mut attributes, index * 4, value));
    word(&mut attributes, 40, 0b110_0000);
    let anywhere = u64::MAX;
    let mut args = [
        Arg::Page(&mut attributes),
        Arg::Number(0),
        Arg::Number(anywhere),
        Arg::Number(anywhere),
        Arg::Number(0),
    ];
    attempt(Probe::PERF_EVENT_OPEN, &mut args)
}

/// Anonymous memory that may be written and executed.
fn code() -> io::Result<usize> {
    const ANY: u64 = 7;
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    attempt(Probe::MMAP, &mut [0, 4096, ANY, PRIVATE_ANONYMOUS, u64::MAX, 0].map(Arg::Number))
}

fn raise() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // To what it is: where that is not refused, nothing changes.
    Ok(setrlimit(Resource::Core, getrlimit(Resource::Core))?)
}
