//! What every command knows: the home folder, and how to speak.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use node::config::Config;
use node::layout::Layout;

use crate::args::Global;
use crate::failure::Failure;

/// What every command knows.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) layout: Layout,
    config: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    /// Where a key's passphrase or a token's PIN is read, instead of asking for it.
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let home = match global.home.or_else(|| from_environment("STEELYARD_HOME")) {
            Some(home) => home,
            None => default_home()?,
        };
        let home = absolute(&home)?;
        Ok(Self {
            layout: Layout::new(home),
            config: global.config.or_else(|| from_environment("STEELYARD_CONFIG")),
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            passphrase_file: global.passphrase_file.or_else(|| from_environment("STEELYARD_PASSPHRASE_FILE")),
        })
    }

    pub(crate) fn home(&self) -> &Path {
        self.layout.home()
    }

    /// Where the settings lie.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.layout.config())
    }

    /// The settings of this home. A file named by hand must exist.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        if let Some(path) = &self.config
            && !path.exists()
        {
            return Err(Failure::usage(format!("there is no settings file {}", path.display()))
                .help("name another with --config, or leave it out to use config.toml in the home folder"));
        }
        Ok(Config::load(self.home(), &self.config_path())?)
    }

    /// Whether progress may be shown.
    pub(crate) fn progress(&self) -> bool {
        !self.quiet && !self.json
    }

    /// `steelyard` with this home, as a person types it.
    pub(crate) fn command(&self) -> String {
        match default_home() {
            Ok(home) if home == self.home() => "steelyard".to_owned(),
            _ => format!("steelyard --home {}", self.home().display()),
        }
    }
}

/// A path in the environment; an empty one is none.
fn from_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// `$XDG_DATA_HOME/steelyard`, by default `~/.local/share/steelyard`.
fn default_home() -> Result<PathBuf, Failure> {
    etcetera::choose_base_strategy().map(|strategy| strategy.data_dir().join("steelyard")).map_err(|_| {
        Failure::usage("there is no home directory to keep a node's folder in").help("name one with --home")
    })
}

/// `path` from the root, so that the node understands it too.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
