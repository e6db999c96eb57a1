//! The system calls for which no safe wrapper is at hand: the only `unsafe` code of this package.
//!
//! Each function takes what it passes to the kernel by reference or by number, so that no pointer outlives its call. The
//! probes ([`attempt`]) try calls that a sealed process is refused; where they are not refused, they touch no memory but the
//! page that they are given.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::calls;

unsafe extern "C" {
    /// The C library's own wrapper (syscall(2)): it takes numbers and pointers as they are, and sets `errno`.
    fn syscall(number: c_long, ...) -> c_long;
}

/// A buffer for a probe, longer than any structure that the calls below read or write.
pub(super) type Page = [u8; 4096];

/// One argument of a system call.
pub(super) enum Arg<'a> {
    /// A number, flags or a descriptor.
    Number(u64),
    /// A text that the kernel reads.
    Text(&'a CStr),
    /// Memory that the kernel reads or writes: never more than a page for the calls of [`attempt`].
    Page(&'a mut Page),
}

/// # Safety
/// As of the call itself: every pointer among `args` must be good for what the kernel does with it.
unsafe fn call(number: i64, args: &mut [Arg<'_>]) -> io::Result<usize> {
    let mut words = [0usize; 6];
    for (word, arg) in words.iter_mut().zip(args) {
        *word = match arg {
            Arg::Number(number) => *number as usize,
            Arg::Text(text) => text.as_ptr() as usize,
            Arg::Page(page) => page.as_mut_ptr() as usize,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: the caller's; the C library passes the words on unchanged.
    let result = unsafe { syscall(number as c_long, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Leaves the namespaces named by `flags` for new ones.
pub(super) fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: numbers only. Descriptors and memory stay shared.
    unsafe { call(calls::UNSHARE, &mut [Arg::Number(flags)]) }.map(drop)
}

/// mount(2). The texts are read, nothing is written.
pub(super) fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    let mut args =
        [Arg::Text(source), Arg::Text(target), Arg::Text(kind), Arg::Number(flags), Arg::Text(data)];
    // SAFETY: all pointers are to texts that live until the call returns.
    unsafe { call(calls::MOUNT, &mut args) }.map(drop)
}

/// Takes the file system at `target` away, lazily.
pub(super) fn unmount(target: &CStr) -> io::Result<()> {
    const MNT_DETACH: u64 = 2;
    // SAFETY: the text lives until the call returns.
    unsafe { call(calls::UMOUNT2, &mut [Arg::Text(target), Arg::Number(MNT_DETACH)]) }.map(drop)
}

/// Tells the libraries that compute by threads of their own (rayon, and candle's pools) how many those may be: they ask the
/// environment, and this process has none. Call it before anything computes; where there are several threads already it does
/// nothing, since another might be reading the environment.
pub(crate) fn limit_computing_threads(threads: u32) {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone {
        // SAFETY: no other thread exists that could read or change the environment meanwhile.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
}

/// Gives up every capability of this thread.
pub(super) fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two sets of 32 bits.
    const VERSION: u32 = 0x2008_0522;
    let (mut header, mut none) = ([0; 4096], [0; 4096]);
    header[..4].copy_from_slice(&VERSION.to_ne_bytes());
    // SAFETY: the header of 8 bytes and the sets of 24, all zero, lie within the pages.
    unsafe { call(calls::CAPSET, &mut [Arg::Page(&mut header), Arg::Page(&mut none)]) }.map(drop)
}

/// No program that this process might start gains rights.
pub(super) fn no_new_privileges() -> io::Result<()> {
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    let mut args = [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0].map(Arg::Number);
    // SAFETY: numbers only.
    unsafe { call(calls::PRCTL, &mut args) }.map(drop)
}

const F_SETOWN: u64 = 8;
const F_SETLEASE: u64 = 1024;
const F_GETLEASE: u64 = 1025;
const F_RDLCK: u64 = 0;
const F_UNLCK: usize = 2;

/// Takes a read lease (fcntl(2)): whoever opens the file for writing or shortens it waits, and this process gets SIGIO.
pub(crate) fn take_read_lease(file: BorrowedFd<'_>) -> io::Result<()> {
    // To the process: else the signal is for the thread that takes the lease, and is lost when that has ended.
    let mut args = [file.as_raw_fd() as u64, F_SETOWN, u64::from(std::process::id())].map(Arg::Number);
    // SAFETY: numbers only; the descriptor is borrowed.
    unsafe { call(calls::FCNTL, &mut args) }?;
    let mut args = [file.as_raw_fd() as u64, F_SETLEASE, F_RDLCK].map(Arg::Number);
    // SAFETY: numbers only; the descriptor is borrowed.
    unsafe { call(calls::FCNTL, &mut args) }.map(drop)
}

/// Whether somebody waits for the lease on this file to end.
pub(crate) fn lease_is_being_broken(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut args = [file.as_raw_fd() as u64, F_GETLEASE].map(Arg::Number);
    // SAFETY: numbers only; the descriptor is borrowed.
    unsafe { call(calls::FCNTL, &mut args) }.map(|kind| kind == F_UNLCK)
}

/// A call that a sealed process is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe(i64);

macro_rules! probes {
    ($($name:ident),* $(,)?) => {
        impl Probe {
            $(pub(super) const $name: Self = Self(calls::$name);)*
        }
    };
}

// None of them starts anything in this process or reads or writes more than the pages given: `execve` is given what is no
// program, and `clone` is not among them.
probes!(
    UNSHARE,
    SETNS,
    EXECVE,
    EXECVEAT,
    PTRACE,
    IO_URING_SETUP,
    PIDFD_OPEN,
    PIDFD_GETFD,
    BPF,
    KEYCTL,
    USERFAULTFD,
    PERF_EVENT_OPEN,
    OPEN_BY_HANDLE_AT,
    MEMFD_CREATE,
    MEMFD_SECRET,
    SOCKET,
    SOCKETPAIR,
    BIND,
    LISTEN,
    CONNECT,
    SENDTO,
    SHMGET,
    CHROOT,
    PRCTL,
    MMAP,
    KILL,
);

/// Makes a call; the number that it gave.
pub(super) fn attempt(probe: Probe, args: &mut [Arg<'_>]) -> io::Result<usize> {
    // SAFETY: see the list above; pages are longer than what any of these calls reads or writes, and texts are terminated.
    unsafe { call(probe.0, args) }
}

/// Closes a descriptor that nothing in this process owns: one that an attempt gave, or one that was inherited by accident.
pub(super) fn close(descriptor: usize) {
    // SAFETY: a number only, and the callers see to it that no owner was made for it.
    let _ = unsafe { call(calls::CLOSE, &mut [Arg::Number(descriptor as u64)]) };
}

/// mount(2) of an empty file system, as an attempt.
pub(super) fn attempt_mount(target: &CStr) -> io::Result<()> {
    mount(c"none", target, c"tmpfs", 0, c"")
}

/// Reads 8 bytes of another process's memory at an address where there is hardly any: `EFAULT` says that the right to read
/// was there.
pub(super) fn read_memory_of(process: u32) -> io::Result<usize> {
    const NOWHERE: usize = 4096;
    let mut into = [0u8; 8];
    let local = [into.as_mut_ptr() as usize, into.len()];
    let remote = [NOWHERE, into.len()];
    let (process, local, remote) = (process as usize, local.as_ptr() as usize, remote.as_ptr() as usize);
    // SAFETY: both vectors have one entry each and live until the call returns; the kernel writes at most 8 bytes to `into`.
    let result =
        unsafe { syscall(calls::PROCESS_VM_READV as c_long, process, local, 1usize, remote, 1usize, 0usize) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
