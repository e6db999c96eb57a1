//! What is no wall but costs nothing: no capabilities, no new ones, no core dump, no file that grows beyond the copies of what is
//! still coming.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use super::driver::Driver;
use super::sys;

/// Most descriptors: those handed in (`registry::serving::hand::MAX_DESCRIPTORS`), the server's connections, and some.
const MAX_DESCRIPTORS: u64 = 2048;

pub(super) fn apply(driver: &Driver, largest_copy: u64) -> io::Result<()> {
    sys::no_new_privileges()?;
    sys::drop_capabilities()?;
    // Nobody of the same user attaches to this process or reads its memory, which holds what people ask.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, MAX_DESCRIPTORS)?;
    // CUDA writes to files in memory.
    if !driver.is_there() {
        limit(Resource::Fsize, largest_copy)?;
    }
    Ok(())
}

/// Lowers a limit for good; one that is lower already stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let most = now.maximum.map_or(most, |maximum| maximum.min(most));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}
