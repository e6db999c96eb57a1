//! Attempts to break out, by real system calls, from inside a worker that serves.
//!
//! Each is what hostile code would try first. In a process without walls most of them succeed, which a test shows; they do
//! no harm there: a signal that is ignored, a file that is removed again, a mount in a namespace of the thread's own.

mod files;
mod kernel;
mod network;
mod processes;

use std::io;

use registry::serving::{Attempt, MAX_ATTEMPTS, Proving};

/// Makes every attempt; what each came to. Call it in the process and on a thread that serves.
pub fn run(proving: &Proving) -> Vec<Attempt> {
    let mut found = Found(Vec::new());
    network::attempts(&mut found, &proving.connect);
    files::attempts(&mut found, proving);
    processes::attempts(&mut found, proving.node);
    kernel::attempts(&mut found);
    found.0.truncate(MAX_ATTEMPTS);
    found.0
}

/// What came of the attempts so far.
pub(super) struct Found(Vec<Attempt>);

impl Found {
    /// Notes an attempt.
    pub(super) fn note<T>(&mut self, what: impl Into<String>, result: io::Result<T>) {
        self.0.push(Attempt { what: what.into(), refused: result.err().map(|error| name(&error)) });
    }
}

/// The name of an error, as manuals have it; its words where it has none.
fn name(error: &io::Error) -> String {
    const NAMES: [(i32, &str); 22] = [
        (1, "EPERM"),
        (2, "ENOENT"),
        (3, "ESRCH"),
        (5, "EIO"),
        (6, "ENXIO"),
        (8, "ENOEXEC"),
        (9, "EBADF"),
        (12, "ENOMEM"),
        (13, "EACCES"),
        (14, "EFAULT"),
        (16, "EBUSY"),
        (20, "ENOTDIR"),
        (22, "EINVAL"),
        (24, "EMFILE"),
        (30, "EROFS"),
        (38, "ENOSYS"),
        (95, "EOPNOTSUPP"),
        (97, "EAFNOSUPPORT"),
        (99, "EADDRNOTAVAIL"),
        (101, "ENETUNREACH"),
        (106, "EISCONN"),
        (111, "ECONNREFUSED"),
    ];
    let known = error.raw_os_error().and_then(|code| NAMES.iter().find(|(number, _)| *number == code));
    known.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}
