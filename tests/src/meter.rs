//! CPU time and memory of running processes, from `/proc`.

use std::fs;

/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 in Linux's interface on every architecture supported here.
const TICKS: f64 = 100.0;

/// CPU seconds (user and system) that the process and its finished children used so far; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    // The command's name stands in brackets and may hold anything; fields are counted from behind it.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: f64 = fields.split_whitespace().skip(11).take(4).filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / TICKS
}

/// CPU seconds that the calling thread ran so far; nanoseconds where the kernel counts them.
pub fn thread_cpu_seconds() -> f64 {
    // The kernel brings the count up to date when it schedules.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    ran.map_or_else(|| cpu_seconds(std::process::id()), |nanoseconds| nanoseconds / 1e9)
}

/// CPU seconds of the process and of every process below it.
pub fn cpu_seconds_of_tree(pid: u32) -> f64 {
    cpu_seconds(pid) + children(pid).into_iter().map(cpu_seconds_of_tree).sum::<f64>()
}

/// Seconds that the machine's cores were in use since it started, whoever used them, and seconds that they could have been.
pub fn machine() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is part of user time (proc_stat(5)).
    let ticks: Vec<f64> = first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    ((all - idle) / TICKS, all / TICKS)
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(pid)
        })
        .collect()
}

/// Most memory that the process had resident so far (`VmHWM`), in bytes.
pub fn peak_resident(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Memory that the process has resident now (`VmRSS`), in bytes.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Forgets the peak so far, so that the next phase is measured by itself.
pub fn reset_peak(pid: u32) {
    // 5 resets VmHWM (proc_pid_clear_refs(5)); without permission the peak simply stays.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
