//! What this machine had to give when the worker started.

use std::sync::OnceLock;

use registry::machine::available_memory;

/// Bytes that there were when this was asked first: a sealed worker can't read the kernel's files any more.
pub(crate) fn memory_at_start() -> Option<u64> {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    *MEMORY.get_or_init(available_memory)
}
