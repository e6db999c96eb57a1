//! A benchmark leaves nothing behind, however it ends: it runs as a child of itself, and the parent, which does nothing else,
//! ends every process that still works in the run's folder, removes the run's network namespaces, and removes the folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::options;
use crate::http::runtime;

/// Names the run's folder to the child.
const RUN: &str = "STEELYARD_BENCH_RUN";
/// Processes that were told to end are gone by then.
const GONE: Duration = Duration::from_secs(10);
/// Exit code after an interruption: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Where the child works: `Some` in the child. In the parent it returns when all is over and tidied.
///
/// # Errors
/// The exit code, in the parent.
pub fn supervised(parent: &Path) -> Result<PathBuf, ExitCode> {
    if let Some(folder) = std::env::var_os(RUN).map(PathBuf::from) {
        // Whatever is started without a folder of its own works in the run's.
        std::env::set_current_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        return Ok(folder);
    }
    let folder = tempfile::Builder::new()
        .prefix("steelyard-bench-")
        .tempdir_in(parent)
        .unwrap_or_else(|error| panic!("a folder in {}: {error}", parent.display()));
    let code = watch(folder.path());
    sweep(folder.path());
    Err(code)
}

/// The run's folder on a disk, made; for what is too large for memory. It goes with the other.
pub fn on_disk(folder: &Path) -> PathBuf {
    let path = options::disk().join(run_name(folder));
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// A name that no other run uses, for what does not lie in the folder.
pub fn run_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn watch(folder: &Path) -> ExitCode {
    let me = std::env::current_exe().expect("this executable's path");
    let mut command = tokio::process::Command::new(me);
    command.args(std::env::args_os().skip(1)).env(RUN, folder).kill_on_drop(true);
    runtime().block_on(async {
        let mut child = command.spawn().expect("start the benchmark");
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler");
        tokio::select! {
            status = child.wait() => {
                let code = status.expect("the benchmark's end").code().and_then(|code| u8::try_from(code).ok());
                ExitCode::from(code.unwrap_or(INTERRUPTED))
            }
            _ = tokio::signal::ctrl_c() => stop(&mut child).await,
            _ = terminated.recv() => stop(&mut child).await,
        }
    })
}

async fn stop(child: &mut tokio::process::Child) -> ExitCode {
    eprintln!("interrupted: tidying up");
    let _ = child.kill().await;
    ExitCode::from(INTERRUPTED)
}

/// Ends what still works in `folder`, then removes the run's namespaces. (The folder goes with its owner.)
fn sweep(folder: &Path) {
    let on_disk = options::disk().join(run_name(folder));
    let start = Instant::now();
    loop {
        let mut left = working_in(folder);
        left.extend(working_in(&on_disk));
        if left.is_empty() || start.elapsed() > GONE {
            break;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = fs::remove_dir_all(on_disk);
    let prefix = format!("{}-", run_name(folder));
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        if let Some(name) = line.split_whitespace().next().filter(|name| name.starts_with(&prefix)) {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// Processes whose working directory is `folder` or below: every process of a run is started there.
fn working_in(folder: &Path) -> Vec<Pid> {
    let inside =
        |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| inside(*pid))
        .filter_map(Pid::from_raw)
        .collect()
}
