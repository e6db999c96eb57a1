//! A benchmark of several parts, chosen by their names.

use std::path::Path;
use std::process::ExitCode;

use super::report::Bar;
use super::{guard, options};

/// A part could not run, or no part has that name.
const NOT_RUN: u8 = 2;

/// A part: it prints its tables and gives its bars, or says why it did not run.
pub type Part = fn(&Path) -> Result<Vec<Bar>, String>;

/// What a part that can't run on this machine means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotRun {
    /// A failure.
    Fails,
    /// It is left out; a failure only where it was asked for by name.
    IsLeftOut,
}

/// Runs the parts that are `asked` for, all without a name, and ends with their bars.
pub fn run(program: &str, parts: &[(&str, Part)], asked: &[String], cannot: CannotRun) -> ExitCode {
    if let Some(unknown) = asked.iter().find(|name| parts.iter().all(|(part, _)| part != name)) {
        let known: Vec<_> = parts.iter().map(|(part, _)| *part).collect();
        eprintln!("{program} has no part `{unknown}`; it has {}", known.join(", "));
        return ExitCode::from(NOT_RUN);
    }
    let folder = match guard::supervised(&options::folder()) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let mut bars = Vec::new();
    let mut failed = false;
    for (name, part) in parts {
        if !asked.is_empty() && asked.iter().all(|asked| asked != name) {
            continue;
        }
        match part(&folder) {
            Ok(found) => bars.extend(found),
            Err(why) => {
                println!("{name} was not run: {why}\n");
                failed |= cannot == CannotRun::Fails || !asked.is_empty();
            }
        }
    }
    let short = bars.iter().any(|bar| !bar.is_kept());
    bars.iter().for_each(|bar| println!("{bar}"));
    match (failed, short) {
        (true, _) => ExitCode::from(NOT_RUN),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}
