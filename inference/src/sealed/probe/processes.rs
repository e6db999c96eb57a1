//! Ways to other processes, and to new ones.

use std::fs::File;
use std::io::{self, Write};
use std::process::Command;

use super::super::sys::{Arg, Probe, attempt, close, read_memory_of};
use super::Found;

/// A signal that every process ignores unless it asked for it: SIGURG.
const HARMLESS: u64 = 23;
const PROGRAM: &str = "/bin/true";

pub(super) fn attempts(found: &mut Found, node: u32) {
    let node = u64::from(node);
    found.note(format!("start {PROGRAM}"), start(PROGRAM));
    found.note("become another program (execve)", execute(Probe::EXECVE));
    found.note("become another program (execveat)", execute(Probe::EXECVEAT));
    found.note("start a program from memory (memfd)", from_memory());
    found.note("send the node a signal", attempt(Probe::KILL, &mut [node, HARMLESS].map(Arg::Number)));
    found.note("send process 1 a signal", attempt(Probe::KILL, &mut [1, HARMLESS].map(Arg::Number)));
    found.note("trace the node (ptrace)", trace(node));
    found.note("read the node's memory", memory(node));
    found.note("hold the node by a descriptor (pidfd)", hold(node).map(close));
    found.note("take a descriptor of the node's", take(node));
    found.note("share memory with other processes (shmget)", share());
}

fn start(program: &str) -> io::Result<()> {
    let status = Command::new(program).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// Names what is no program, so that where the call is not refused, it fails.
fn execute(probe: Probe) -> io::Result<usize> {
    let mut none = [0; 4096];
    let mut nothing = [0; 4096];
    let here = u64::from(u32::from_ne_bytes((-100i32).to_ne_bytes()));
    let path = Arg::Text(c"/dev/null");
    let (arguments, environment) = (Arg::Page(&mut none), Arg::Page(&mut nothing));
    match probe {
        Probe::EXECVEAT => {
            attempt(probe, &mut [Arg::Number(here), path, arguments, environment, Arg::Number(0)])
        }
        _ => attempt(probe, &mut [path, arguments, environment]),
    }
}

fn from_memory() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let file = attempt(Probe::MEMFD_CREATE, &mut [Arg::Text(c"proof"), Arg::Number(0)])?;
    let path = format!("/proc/self/fd/{file}");
    let started = File::options().write(true).open(&path).and_then(|mut out| {
        out.write_all(b"#!/bin/true\n")?;
        drop(out);
        let program = File::open(&path)?;
        start(&format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd()))
    });
    close(file);
    started
}

/// Seizes the node without stopping it, and lets it go: the tracer is a thread that ends.
fn trace(node: u64) -> io::Result<usize> {
    const PTRACE_SEIZE: u64 = 0x4206;
    let seize = move || attempt(Probe::PTRACE, &mut [PTRACE_SEIZE, node, 0, 0].map(Arg::Number));
    std::thread::spawn(seize).join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
}

fn memory(node: u64) -> io::Result<usize> {
    const EFAULT: i32 = 14;
    match read_memory_of(u32::try_from(node).unwrap_or_default()) {
        Err(error) if error.raw_os_error() == Some(EFAULT) => Ok(0),
        other => other,
    }
}

fn hold(node: u64) -> io::Result<usize> {
    attempt(Probe::PIDFD_OPEN, &mut [node, 0].map(Arg::Number))
}

fn take(node: u64) -> io::Result<()> {
    // Without a hold, whatever descriptor: the call itself must be refused.
    let held = hold(node).ok();
    let taken = attempt(Probe::PIDFD_GETFD, &mut [held.unwrap_or(0) as u64, 0, 0].map(Arg::Number));
    if let Some(held) = held {
        close(held);
    }
    taken.map(close)
}

fn share() -> io::Result<usize> {
    /// Private, so that it goes with nobody attached only where it is removed; of one page.
    const IPC_PRIVATE: u64 = 0;
    const SIZE: u64 = 4096;
    // An identifier that nobody attaches to costs nothing until the namespace ends; mode 0 lets nobody in.
    attempt(Probe::SHMGET, &mut [IPC_PRIVATE, SIZE, 0].map(Arg::Number))
}
