//! The command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Cyan.on_default().bold())
    .usage(AnsiColor::Cyan.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::White.on_default());

/// The exit codes, for people.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something else went wrong (the disk, a worker, a fault)
  2  the command line or a setting is wrong
  3  not found, here or at any peer
  4  verification failed: bytes or signatures are not what they should be, or a root or certificate has expired
  5  refused by policy: recalled, not releasable to this nation, unsafe format, …
  6  network: no peer can be reached, or none has the bytes
  7  busy or in conflict: another process owns the folder, a version exists already
130  interrupted";

const OVERVIEW: &str = "\
A nation publishes models that it signs; allies mirror them from several peers at once, verify every byte, decide for \
themselves, and serve. A recall stops a model everywhere within seconds. Nothing that a node serves depends on another \
nation being reachable, honest or still an ally.";

const AFTER: &str = "\
First steps:
  steelyard init --nation alba            make a nation and its first node
  steelyard node                          run it
  steelyard trust add borea/nation.json   trust an ally
  steelyard pull borea/model              fetch, verify and admit a model
  steelyard chat borea/model              talk to it
  steelyard demo --weights model.gguf     see all of it in a minute, on this machine

`steelyard help COMMAND` tells more and shows an example. `steelyard help exit-codes` lists the exit codes.";

/// Publish, mirror, verify and serve AI models together with allies
#[derive(Debug, Parser)]
#[command(
    name = "steelyard",
    version,
    styles = STYLES,
    max_term_width = 100,
    long_about = format!("Publish, mirror, verify and serve AI models together with allies.\n\n{OVERVIEW}"),
    after_help = AFTER,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_flag = false
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    // Not clap's `env`: its usage lines would then show the option as one that must be given.
    /// The node's folder [default: steelyard in the XDG data folder, ~/.local/share] [env: STEELYARD_HOME]
    #[arg(long, global = true, value_name = "FOLDER", help_heading = "Everywhere")]
    pub(crate) home: Option<PathBuf>,
    /// The settings file [default: config.toml in the node's folder] [env: STEELYARD_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Write JSON to standard output: one document, or one a line where a command goes on
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub(crate) quiet: bool,
    /// Log more to standard error; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    pub(crate) verbose: u8,
    // Not clap's `env`, as with --home. It names a file: a secret itself belongs neither here nor into the environment.
    /// The file, readable by you alone, that holds a key's passphrase or a token's PIN [default: asked for at the terminal] [env: STEELYARD_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// When to use colours (NO_COLOR is obeyed too)
    #[arg(
        long = "color",
        alias = "colour",
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    pub(crate) colour: Colour,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

impl Colour {
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => {}
            Self::Always => anstream::ColorChoice::Always.write_global(),
            Self::Never => anstream::ColorChoice::Never.write_global(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::Init),
    Node(commands::node::Node),
    Trust(commands::trust::Trust),
    Key(commands::key::Key),
    Root(commands::root::Root),
    Sign(commands::sign::Sign),
    Publish(Box<commands::publish::Publish>),
    Channel(commands::channel::Channel),
    Pull(commands::pull::Pull),
    Ls(commands::ls::Ls),
    Show(commands::show::Show),
    Verify(commands::verify::Verify),
    Serve(Box<commands::serve::Serve>),
    ServeKey(commands::serve_key::ServeKey),
    Workers(commands::workers::Workers),
    Pools(commands::pools::Pools),
    Chat(commands::chat::Chat),
    Attest(commands::attest::Attest),
    Policy(commands::policy::Policy),
    Recall(commands::recall::Recall),
    Pin(commands::pin::Pin),
    Unpin(commands::pin::Unpin),
    Gc(commands::gc::Gc),
    Export(commands::export::Export),
    Checkout(commands::checkout::Checkout),
    Import(commands::import::Import),
    Have(commands::have::Have),
    Status(commands::status::Status),
    Peers(commands::peers::Peers),
    Transfers(commands::transfers::Transfers),
    Mirror(commands::mirror::Mirror),
    Limits(commands::limits::Limits),
    Token(commands::token::Token),
    Login(commands::login::Login),
    Log(commands::log::Log),
    Evidence(commands::evidence::Evidence),
    Doctor(commands::doctor::Doctor),
    Conformance(commands::conformance::Conformance),
    Demo(commands::demo::Demo),
    Completion(commands::completion::Completion),
    /// The exit codes of every command
    #[command(hide = true, name = "exit-codes", after_help = EXIT_CODES)]
    ExitCodes,
    /// Serve what the node hands over (started by the node, not by people)
    #[command(hide = true)]
    Worker,
    /// Run a program behind walls (started by a worker, not by people)
    #[command(hide = true, name = "vllm-init")]
    VllmInit(VllmInit),
}

/// What `vllm-init` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct VllmInit {
    /// Folders to read, one behind the other; `:`; the program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

impl Command {
    /// Whether the command itself sees to Ctrl-C: it has something to stop in order.
    pub(crate) fn handles_interrupts(&self) -> bool {
        matches!(self, Self::Node(_) | Self::Serve(_) | Self::Chat(_) | Self::Demo(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            if command.is_hide_set() || command.get_name() == "help" {
                continue;
            }
            let mut leaves: Vec<&clap::Command> = command.get_subcommands().collect();
            if leaves.is_empty() {
                leaves.push(command);
            }
            for leaf in leaves {
                let after = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("steelyard "), "{} has no example", leaf.get_name());
                assert!(leaf.get_about().is_some() && leaf.get_long_about().is_some(), "{}", leaf.get_name());
            }
        }
    }
}
