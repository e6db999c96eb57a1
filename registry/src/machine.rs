//! What this machine has to give. It reads a few of the kernel's own files, and nothing else.

use std::fs::File;
use std::io::Read;

/// Longest of the kernel's files that are read here.
const MAX_READ: u64 = 64 * 1024;
/// Where the hierarchy of control groups is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes that can be taken without pushing others out: what the kernel calls available, less where a control group allows
/// less. `None` where the kernel's files can't be read, as in a sealed process.
pub fn available_memory() -> Option<u64> {
    let available = mem_available(&read("/proc/meminfo")?)?;
    Some(cgroup_left().map_or(available, |left| available.min(left)))
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_READ).read_to_string(&mut text).ok()?;
    Some(text)
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What is left of this process's control group (version 2), if it has a limit.
fn cgroup_left() -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A path that leads out of the hierarchy is not ours to read.
    if path.contains("..") {
        return None;
    }
    let number = |file: &str| read(&format!("{CGROUPS}{path}/{file}"))?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    // Pages of files count as in use, but are given back when they are needed.
    let files = read(&format!("{CGROUPS}{path}/memory.stat")).and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("file "))?.trim().parse::<u64>().ok()
    });
    let used = number("memory.current")?.saturating_sub(files.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let meminfo = "MemTotal:       24000000 kB\nMemFree:  5 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(mem_available(meminfo), Some(22_000_000 * 1024));
        assert_eq!(mem_available("MemTotal: 5 kB\n"), None);
        assert_eq!(mem_available("MemAvailable: 18446744073709551615 kB\n"), None);
        assert!(available_memory().unwrap() > 1024 * 1024);
    }
}
