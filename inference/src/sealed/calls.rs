//! Numbers of system calls (x86-64; the generic table that AArch64 uses).

/// A call that an architecture does not have; no call has this number.
#[cfg(target_arch = "aarch64")]
const NONE: i64 = 0xFFFF;

macro_rules! calls {
    ($($name:ident = $x86_64:expr, $aarch64:expr;)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            pub(super) const $name: i64 = $x86_64;
            #[cfg(target_arch = "aarch64")]
            pub(super) const $name: i64 = $aarch64;
        )*
    };
}

calls! {
    READ = 0, 63;
    WRITE = 1, 64;
    READV = 19, 65;
    WRITEV = 20, 66;
    PREAD64 = 17, 67;
    PWRITE64 = 18, 68;
    PREADV = 295, 69;
    CLOSE = 3, 57;
    FSTAT = 5, 80;
    NEWFSTATAT = 262, 79;
    STATX = 332, 291;
    LSEEK = 8, 62;
    MMAP = 9, 222;
    MPROTECT = 10, 226;
    MUNMAP = 11, 215;
    MREMAP = 25, 216;
    BRK = 12, 214;
    MADVISE = 28, 233;
    MINCORE = 27, 232;
    MLOCK = 149, 228;
    MUNLOCK = 150, 229;
    MEMBARRIER = 324, 283;
    FUTEX = 202, 98;
    FUTEX_WAITV = 449, 449;
    SET_ROBUST_LIST = 273, 99;
    RSEQ = 334, 293;
    SCHED_YIELD = 24, 124;
    SCHED_GETAFFINITY = 204, 123;
    SCHED_SETAFFINITY = 203, 122;
    GETCPU = 309, 168;
    GETPID = 39, 172;
    GETTID = 186, 178;
    GETPPID = 110, 173;
    GETUID = 102, 174;
    GETEUID = 107, 175;
    GETGID = 104, 176;
    GETEGID = 108, 177;
    UNAME = 63, 160;
    SYSINFO = 99, 179;
    GETRUSAGE = 98, 165;
    CLOCK_GETTIME = 228, 113;
    CLOCK_GETRES = 229, 114;
    CLOCK_NANOSLEEP = 230, 115;
    NANOSLEEP = 35, 101;
    GETTIMEOFDAY = 96, 169;
    RT_SIGACTION = 13, 134;
    RT_SIGPROCMASK = 14, 135;
    RT_SIGRETURN = 15, 139;
    SIGALTSTACK = 131, 132;
    RESTART_SYSCALL = 219, 128;
    EXIT = 60, 93;
    EXIT_GROUP = 231, 94;
    EPOLL_CREATE1 = 291, 20;
    EPOLL_CTL = 233, 21;
    EPOLL_WAIT = 232, NONE;
    EPOLL_PWAIT = 281, 22;
    EPOLL_PWAIT2 = 441, 441;
    EVENTFD2 = 290, 19;
    POLL = 7, NONE;
    PPOLL = 271, 73;
    ACCEPT4 = 288, 242;
    RECVFROM = 45, 207;
    SHUTDOWN = 48, 210;
    GETSOCKNAME = 51, 204;
    GETPEERNAME = 52, 205;
    GETSOCKOPT = 55, 209;
    GETRANDOM = 318, 278;
    FADVISE64 = 221, 223;
    SETPRIORITY = 141, 140;
    CLONE = 56, 220;
    CLONE3 = 435, 435;
    OPENAT = 257, 56;
    FCNTL = 72, 25;
    IOCTL = 16, 29;
    SENDTO = 44, 206;
    SETSOCKOPT = 54, 208;
    PRCTL = 157, 167;
    KILL = 62, 129;
    TGKILL = 234, 131;
    PRLIMIT64 = 302, 261;
    UNSHARE = 272, 97;
    SETNS = 308, 268;
    MOUNT = 165, 40;
    UMOUNT2 = 166, 39;
    CAPSET = 126, 91;
    EXECVE = 59, 221;
    EXECVEAT = 322, 281;
    PTRACE = 101, 117;
    PROCESS_VM_READV = 310, 270;
    IO_URING_SETUP = 425, 425;
    PIDFD_OPEN = 434, 434;
    PIDFD_GETFD = 438, 438;
    BPF = 321, 280;
    KEYCTL = 250, 219;
    USERFAULTFD = 323, 282;
    PERF_EVENT_OPEN = 298, 241;
    OPEN_BY_HANDLE_AT = 304, 265;
    MEMFD_CREATE = 319, 279;
    MEMFD_SECRET = 447, 447;
    SOCKET = 41, 198;
    SOCKETPAIR = 53, 199;
    BIND = 49, 200;
    LISTEN = 50, 201;
    CONNECT = 42, 203;
    SHMGET = 29, 194;
    CHROOT = 161, 51;
}
