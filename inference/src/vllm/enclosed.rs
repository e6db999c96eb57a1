//! The process between the worker and vLLM: the first of its process namespace. It builds the walls that need no threads and
//! becomes vLLM.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::sealed::view;

/// The newest rights that this program knows of; an older kernel enforces those that it has.
const ABI_KNOWN: ABI = ABI::V7;
/// What every program reads: itself, its libraries, how the machine is set up.
const SYSTEM: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/opt",
    "/etc",
    "/proc",
    "/sys",
    "/dev/urandom",
    "/dev/random",
];
/// What it writes: folders that are its own view's ([`super::files`]).
const SCRATCH: [&str; 2] = ["/tmp", "/dev/shm"];
/// Divides the folders from the program.
pub(super) const DIVIDER: &str = ":";

/// Runs `words`: folders that may be read, `:`, and the program with its arguments. Returns only where that failed.
pub fn enclosed(words: &[String]) -> ExitCode {
    // Its own log is the worker's.
    match become_it(words) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("vllm could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}

fn become_it(words: &[String]) -> std::io::Result<std::convert::Infallible> {
    let missing = || std::io::Error::other("it is started by a worker, which says what to run");
    let divider = words.iter().position(|word| word == DIVIDER).ok_or_else(missing)?;
    let (folders, command) = (&words[..divider], &words[divider + 1..]);
    let (program, arguments) = command.split_first().ok_or_else(missing)?;
    // Ends with the worker's thread that started it, and everything in this namespace with it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    view::own_processes()?;
    walls(folders).map_err(std::io::Error::other)?;
    view::no_more_rights()?;
    Err(Command::new(program).args(arguments).current_dir(super::files::HOME).exec())
}

fn walls(folders: &[String]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let read = AccessFs::from_read(ABI_KNOWN);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let entries = std::fs::read_dir("/dev")?.flatten().map(|entry| entry.path());
    let of_driver =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvidia"));
    let devices = entries.filter(of_driver).chain(["/dev/null", "/dev/zero"].map(PathBuf::from));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_KNOWN))?
        .scope(Scope::from_all(ABI_KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(
            SYSTEM.iter().map(Path::new).chain(folders.iter().map(Path::new)),
            read,
        ))?
        .add_rules(path_beneath_rules(SCRATCH, AccessFs::from_all(ABI_KNOWN)))?
        .add_rules(path_beneath_rules(devices, device))?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("Landlock is not there, which keeps it from the rest of the machine's files".into());
    }
    Ok(())
}
