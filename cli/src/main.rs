//! `steelyard`: publish, mirror, verify and serve AI models together with allies trusted only so far.

mod args;
mod ask;
mod client;
mod commands;
mod context;
mod draft;
mod failure;
mod human;
mod keys;
mod logging;
mod output;
mod progress;
mod secret;
mod settings;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use context::Context;
use failure::Failure;

/// The longest buffer that is used again: more than any of a transfer.
const LARGEST_BUFFER: usize = 8 * 1024 * 1024;

/// How long what still runs when a command is over (a read, a write to the disk) may take to end.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error, std::env::args_os().any(|word| word == "--json")),
    };
    cli.global.colour.apply();
    if let Command::Worker = cli.command {
        return inference::worker::main();
    }
    if let Command::VllmInit(words) = &cli.command {
        return inference::vllm::enclosed(&words.words);
    }
    let json = cli.global.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::fail(&failure, json),
    }
}

/// Has the allocator keep large buffers. glibc takes each over 128 KiB from the kernel anew, page by page, and gives it back when it
/// is freed; until one is freed, which shows it that buffers of this length come and go (mallopt(3), "dynamic mmap threshold").
/// A transfer frees and takes some in every frame: a tenth of its processor time. Other allocators take no notice of this.
fn keep_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST_BUFFER)));
}

fn run(cli: Cli) -> Result<(), Failure> {
    keep_buffers();
    let context = Context::new(cli.global)?;
    logging::start(&context, &cli.command)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let handles_interrupts = cli.command.handles_interrupts();
        let work = commands::run(&context, cli.command);
        if handles_interrupts {
            return work.await;
        }
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    });
    // The store is closed before the process ends, since the index's own threads must not outlive what they use; but
    // blocking work that nobody waits for any more (hashing for a draft) does not hold the process for longer.
    runtime.shutdown_timeout(CLOSING);
    result
}
