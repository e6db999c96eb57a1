//! The walls around this process, built before it reads a byte of what it serves.
//!
//! ```text
//! node                                  worker
//!   opens blobs and maps read-only        reads the launch line: JSON of the node's own
//!   binds the listener            ──►     seal: namespaces, mounts, limits, Landlock, seccomp
//!   starts a process without an           starts its threads, which inherit all of it
//!   environment                           hashes, parses and serves what it was handed
//! ```
//!
//! Each wall stands by itself, and most ways out are closed twice: a socket can't be made (seccomp), there is no interface
//! to send on (namespaces), and Landlock lets no TCP through. What a kernel can't give is refused, unless the operator does
//! without it by name.
//!
//! What stays open is what serving needs: the descriptors that were handed in, connections accepted from the listener,
//! memory, threads and clocks. A worker that is taken over by hostile weights can answer its own clients wrongly, use the
//! processor, and lie to its node; it can't reach anything else.

mod calls;
mod driver;
mod filter;
mod landlock;
mod limits;
mod mounts;
mod namespaces;
pub mod probe;
mod sys;
pub(crate) mod view;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use registry::serving::{Wall, WallReport};

pub(crate) use sys::{lease_is_being_broken, limit_computing_threads, take_read_lease};

/// A wall that can't be built.
#[derive(Debug, thiserror::Error)]
#[error(
    "the worker's wall `{wall}` can't be built on this kernel ({kernel}): {reason}. To serve without it, say so by name: `--allow-missing {wall}`, or `allow_missing = [\"{wall}\"]` under [worker] in the settings"
)]
pub struct SealError {
    /// Which.
    pub wall: Wall,
    /// The kernel's version.
    pub kernel: String,
    /// What the kernel said, and what to do.
    pub reason: String,
}

/// What stands.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The kernel's version.
    pub kernel: String,
    /// Every wall.
    pub walls: Vec<WallReport>,
}

/// Closes every descriptor but the three standard ones and `keep`: whoever started the node may have left some open, which
/// it passes on. Call it before anything else is opened.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers = fs::read_dir("/proc/self/fd")?.flatten();
    let open: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let kept = |number: i32| number <= 2 || keep.iter().any(|kept| kept.as_raw_fd() == number);
    // The folder that was read is among them, and closed already.
    open.into_iter().filter(|number| !kept(*number)).for_each(|number| sys::close(number as usize));
    Ok(())
}

/// Builds every wall around this process. Call it while there is one thread: namespaces can't be left otherwise, and
/// Landlock binds the threads that are made later. `weights` are the descriptors that may be opened again.
///
/// What is in `missing` may be absent; everything else must stand. `largest_copy` is the length of the longest file in memory that
/// will be written to (`gate::growing`).
pub fn seal(weights: &[BorrowedFd<'_>], missing: &[Wall], largest_copy: u64) -> Result<Sealed, SealError> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut walls = Vec::new();
    let mut build = |wall: Wall, built: io::Result<String>| {
        let (stands, detail) = match built {
            Ok(detail) => (true, detail),
            Err(error) if missing.contains(&wall) => (false, error.to_string()),
            Err(error) => {
                return Err(SealError { wall, kernel: kernel.clone(), reason: error.to_string() });
            }
        };
        walls.push(WallReport { wall, stands, detail });
        Ok(stands)
    };
    warm();
    let driver = driver::Driver::find();
    let own = build(Wall::Namespaces, namespaces::enter())?;
    let alone = if own { mounts::enter(&driver) } else { Err(io::Error::other("it needs the namespaces")) };
    build(Wall::Mounts, alone)?;
    // Neither can fail on a kernel that runs this program, and neither is a wall by itself.
    let limited = limits::apply(&driver, largest_copy);
    build(Wall::Landlock, limited.and_then(|()| landlock::apply(weights, &driver)))?;
    devices(&driver);
    build(Wall::Seccomp, filter::apply(&driver))?;
    Ok(Sealed { kernel, walls })
}

/// Builds what can be built of the walls around a worker that starts vLLM: namespaces in which loopback is the only link. The
/// other walls are around vLLM itself ([`crate::vllm`]), but no filter of system calls fits it, so that `seccomp` must be in
/// `missing`. Call it while there is one thread.
pub fn enclose(missing: &[Wall]) -> Result<Sealed, SealError> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let refused = |wall, reason: String| SealError { wall, kernel: kernel.clone(), reason };
    let reason =
        "vllm compiles and starts programs, which no filter of system calls could tell from an attack";
    if !missing.contains(&Wall::Seccomp) {
        return Err(refused(Wall::Seccomp, reason.to_owned()));
    }
    warm();
    let entered = namespaces::enter().and_then(|own| crate::vllm::up().map(|()| own));
    let entered = entered.map_err(|error| refused(Wall::Namespaces, error.to_string()))?;
    let stand = |wall, stands, detail: String| WallReport { wall, stands, detail };
    let walls = vec![
        stand(Wall::Namespaces, true, format!("{entered}, pid for vllm; loopback is the only link")),
        stand(
            Wall::Mounts,
            true,
            "vllm sees the machine's files, but scratch folders of its own and the model's for reading"
                .to_owned(),
        ),
        stand(
            Wall::Landlock,
            true,
            "vllm reads its own and the system's folders and writes its scratch folders".to_owned(),
        ),
        stand(Wall::Seccomp, false, reason.to_owned()),
    ];
    Ok(Sealed { kernel, walls })
}

/// What needs something that the walls take away: the runtime's signal handling makes a pair of sockets when it is first
/// used, and the number of processors is read from files.
fn warm() {
    crate::cores();
    crate::engine::memory_at_start();
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build());
}

/// CUDA makes threads when it starts, and threads that were there before Landlock would not be bound by it; it opens
/// devices and libraries, and makes sockets between its threads, which seccomp forbids. So it starts between the two.
fn devices(driver: &driver::Driver) {
    if !driver.is_there() {
        return;
    }
    if let Err(why) = crate::engine::gpu::open() {
        tracing::warn!("{why}; the CPU computes");
    }
    #[cfg(feature = "cuda-llama")]
    tracing::debug!(devices = llama_cpp_2::list_llama_ggml_backend_devices().len(), "llama.cpp's devices");
}
