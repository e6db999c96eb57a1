//! What a person may set for the benchmarks, all by the environment.

use std::path::PathBuf;

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many bytes the part moves: `STEELYARD_BENCH_<PART>_MIB`, else `STEELYARD_BENCH_MIB`, else so many MiB.
pub fn size(part: &str, default_mib: u64) -> u64 {
    let common = number("STEELYARD_BENCH_MIB", default_mib);
    number(&format!("STEELYARD_BENCH_{part}_MIB"), common).max(1) << 20
}

/// A list of numbers from the environment, separated by spaces or commas.
pub fn list(name: &str, default: &[usize]) -> Vec<usize> {
    let given = std::env::var(name).unwrap_or_default();
    let numbers: Vec<usize> =
        given.split([' ', ',']).filter_map(|word| word.parse().ok()).filter(|n| *n > 0).collect();
    if numbers.is_empty() { default.to_vec() } else { numbers }
}

/// Whether the peers are measured too: `STEELYARD_BENCH_PEERS=0` leaves them out.
pub fn with_peers() -> bool {
    number("STEELYARD_BENCH_PEERS", 1) != 0
}

/// Where the files lie: `STEELYARD_BENCH_DIR`, else memory, so that the disk is not what is measured.
pub fn folder() -> PathBuf {
    std::env::var_os("STEELYARD_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from)
}

/// A folder on a disk: `STEELYARD_BENCH_DISK`, else the system's place for what is temporary but may be large.
pub fn disk() -> PathBuf {
    std::env::var_os("STEELYARD_BENCH_DISK").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
