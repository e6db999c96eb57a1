//! `steelyard completion`: completion for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output;

/// Write completion for a shell
///
/// Load what it writes from your shell's start file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard completion bash > ~/.local/share/bash-completion/completions/steelyard
  steelyard completion fish > ~/.config/fish/completions/steelyard.fish
  steelyard completion zsh > ~/.zfunc/_steelyard")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "steelyard", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}
