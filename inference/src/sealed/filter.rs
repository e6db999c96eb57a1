//! Seccomp: the system calls that serving needs, some of them with certain arguments only, and no other.
//!
//! What is not on the list fails with `EPERM`, so that a library that asks for more than it needs goes on without; a call by
//! another architecture's table ends the process.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[allow(clippy::wildcard_imports)]
use super::calls::*;
use super::driver::Driver;

/// Calls that are allowed whatever their arguments are.
const PLAIN: &[i64] = &[
    // Descriptors that are open.
    READ,
    WRITE,
    READV,
    WRITEV,
    PREAD64,
    PWRITE64,
    PREADV,
    CLOSE,
    FSTAT,
    NEWFSTATAT,
    STATX,
    LSEEK,
    FADVISE64,
    // Memory, other than making code of it.
    MUNMAP,
    MREMAP,
    BRK,
    MADVISE,
    MINCORE,
    MLOCK,
    MUNLOCK,
    MEMBARRIER,
    // Threads.
    FUTEX,
    FUTEX_WAITV,
    SET_ROBUST_LIST,
    RSEQ,
    SCHED_YIELD,
    SCHED_GETAFFINITY,
    SCHED_SETAFFINITY,
    GETCPU,
    EXIT,
    EXIT_GROUP,
    // Who and where this is.
    GETPID,
    GETTID,
    GETPPID,
    GETUID,
    GETEUID,
    GETGID,
    GETEGID,
    UNAME,
    SYSINFO,
    GETRUSAGE,
    // Time and signals to itself.
    CLOCK_GETTIME,
    CLOCK_GETRES,
    CLOCK_NANOSLEEP,
    NANOSLEEP,
    GETTIMEOFDAY,
    RT_SIGACTION,
    RT_SIGPROCMASK,
    RT_SIGRETURN,
    SIGALTSTACK,
    RESTART_SYSCALL,
    GETRANDOM,
    // Waiting for connections, and for what comes over them.
    EPOLL_CREATE1,
    EPOLL_CTL,
    EPOLL_WAIT,
    EPOLL_PWAIT,
    EPOLL_PWAIT2,
    EVENTFD2,
    POLL,
    PPOLL,
    ACCEPT4,
    RECVFROM,
    SHUTDOWN,
    GETSOCKNAME,
    GETPEERNAME,
    GETSOCKOPT,
];

const PROT_EXEC: u64 = 4;
/// Everything in the flags of `open` that is more than reading what is there: write, create, truncate, append, temporary.
const OPEN_MORE: u64 = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20_000_000;
/// Those of them that ask for writing.
const OPEN_WRITING: u64 = 0o3;
const CLONE_THREAD: u64 = 0x0001_0000;
/// Time, mount, cgroup, uts, ipc, user, pid and network namespaces.
const CLONE_NEW: u64 = 0x0000_0080 | 0x0002_0000 | 0x7E00_0000;
/// Descriptor and status flags, a duplicate, and read leases (`F_SETLEASE`, `F_GETLEASE`).
const FCNTL_ALLOWED: &[u64] = &[1, 2, 3, 4, 1024, 1025, 1030];
/// Whom a signal about a descriptor goes to: this process alone.
const F_SETOWN: u64 = 8;
/// `TCGETS` (is this a terminal?), `FIONREAD`, `FIONBIO`.
const IOCTL_ALLOWED: &[u64] = &[0x5401, 0x541B, 0x5421];
/// A thread's name, and a name for memory.
const PRCTL_ALLOWED: &[u64] = &[15, 16, 0x5356_4D41];
/// Levels and options: no delay, probes of the connection, quick acknowledgements, the time until a stalled reader is cut
/// off; buffers, keeping alive, lingering.
const OPTIONS_ALLOWED: &[(u64, u64)] =
    &[(6, 1), (6, 4), (6, 5), (6, 6), (6, 12), (6, 18), (1, 7), (1, 8), (1, 9), (1, 13)];
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// Filters the calls of every thread of this process.
pub(super) fn apply(driver: &Driver) -> io::Result<String> {
    let gpu = driver.is_there();
    let (main, threads) = programs(gpu).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&threads).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&main).map_err(io::Error::other)?;
    Ok(format!("{} calls allowed, others EPERM", allowed(gpu).len()))
}

/// The filter of what is allowed, and that which hides `clone3`.
fn programs(gpu: bool) -> Result<(BpfProgram, BpfProgram), seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules = BTreeMap::new();
    for (call, sets) in allowed(gpu) {
        let mut made = Vec::new();
        for set in sets {
            let conditions: Result<Vec<_>, _> = set.into_iter().map(Need::condition).collect();
            made.push(SeccompRule::new(conditions?)?);
        }
        rules.insert(call, made);
    }
    let main = SeccompFilter::new(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow, arch)?;
    // The C library tries `clone3`, whose flags lie in memory where a filter can't see them, and takes `clone` only when the
    // kernel does not know the other.
    let unknown = BTreeMap::from([(CLONE3, Vec::new())]);
    let threads = SeccompFilter::new(unknown, SeccompAction::Allow, SeccompAction::Errno(ENOSYS), arch)?;
    Ok((main.try_into()?, threads.try_into()?))
}

/// What an argument must be.
struct Need {
    argument: u8,
    length: Len,
    operator: Op,
    value: u64,
}

impl Need {
    fn condition(self) -> Result<SeccompCondition, seccompiler::BackendError> {
        SeccompCondition::new(self.argument, self.length, self.operator, self.value)
    }
}

/// The argument, an `int`, is this.
fn is(argument: u8, value: u64) -> Need {
    Need { argument, length: Len::Dword, operator: Op::Eq, value }
}

/// The argument is a null pointer.
fn is_null(argument: u8) -> Need {
    Need { argument, length: Len::Qword, operator: Op::Eq, value: 0 }
}

/// Of the argument's bits in `mask`, exactly those of `value` are set.
fn masked(argument: u8, mask: u64, value: u64) -> Need {
    Need { argument, length: Len::Dword, operator: Op::MaskedEq(mask), value }
}

/// The argument has none of these bits.
fn without(argument: u8, bits: u64) -> Need {
    masked(argument, bits, 0)
}

/// The argument is one of these.
fn each(argument: u8, values: &[u64]) -> Vec<Vec<Need>> {
    values.iter().map(|value| vec![is(argument, *value)]).collect()
}

/// `gpu` says whether a driver is spoken to. Every allowed call with sets of needs of which one must be met; without a set, whatever its arguments are.
fn allowed(gpu: bool) -> BTreeMap<i64, Vec<Vec<Need>>> {
    let own = u64::from(std::process::id());
    let mut all: BTreeMap<i64, Vec<Vec<Need>>> = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let mut when = |call: i64, sets: Vec<Vec<Need>>| drop(all.insert(call, sets));
    // A GPU's nodes are opened for writing, too, when more of its memory is asked for; Landlock lets nothing else be.
    let more = if gpu { OPEN_MORE & !OPEN_WRITING } else { OPEN_MORE };
    when(OPENAT, vec![vec![without(2, more)]]);
    when(CLONE, vec![vec![masked(0, CLONE_THREAD | CLONE_NEW, CLONE_THREAD)]]);
    // For the second filter, which has the last word about it.
    when(CLONE3, Vec::new());
    if gpu {
        // CUDA compiles kernels when it first runs them, and speaks to its device by `ioctl`.
        [MMAP, MPROTECT, IOCTL].into_iter().for_each(|call| when(call, Vec::new()));
    } else {
        // Nothing is made into code.
        for call in [MMAP, MPROTECT] {
            when(call, vec![vec![without(2, PROT_EXEC)]]);
        }
        when(IOCTL, each(1, IOCTL_ALLOWED));
    }
    let mut fcntl = each(1, FCNTL_ALLOWED);
    fcntl.push(vec![is(1, F_SETOWN), is(2, own)]);
    when(FCNTL, fcntl);
    when(PRCTL, each(0, PRCTL_ALLOWED));
    let options = OPTIONS_ALLOWED.iter().map(|(level, name)| vec![is(1, *level), is(2, *name)]);
    when(SETSOCKOPT, options.collect());
    // To whom the connection leads, never to an address: TCP Fast Open would connect a closed socket anew.
    when(SENDTO, vec![vec![is_null(4)]]);
    // Signals to this process, as `abort` sends one.
    for call in [KILL, TGKILL] {
        when(call, vec![vec![is(0, own)]]);
    }
    // Limits are read, not set.
    when(PRLIMIT64, vec![vec![is_null(2)]]);
    // A thread lowers its own priority.
    when(SETPRIORITY, vec![vec![is(0, 0), is(1, 0)]]);
    all
}
