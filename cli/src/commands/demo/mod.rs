//! `steelyard demo`: the whole of it in a minute, with real processes for three fictional nations on this machine.

mod nation;
mod say;
mod story;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use etcetera::BaseStrategy;
use node::layout::Layout;
use serde_json::Value;

use super::serve::Interrupts;
use crate::context::{Context, absolute};
use crate::failure::{Exit, Failure};
use crate::output::{self, DIM, paint};

/// The file that marks a folder as a demo's: nothing else is ever removed.
const MARK: &str = "steelyard-demo.json";
/// The three nations.
const NAMES: [&str; 3] = ["alba", "borea", "cora"];
/// How long a node may take to stop.
const STOP: Duration = Duration::from_secs(15);

/// See all of it in a minute: three nations on this machine share a real model
///
/// Starts three nodes as separate processes, each with its own keys and folder: alba publishes, borea mirrors, cora fetches from
/// both at once while one of them holds damaged bytes, serves the model and answers a question; then alba recalls it. Every
/// command that is run is printed, so that you can do the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard demo --weights SmolLM2-135M-Instruct.Q4_1.gguf
  steelyard demo --weights model.gguf --keep
  steelyard demo --clean")]
pub(crate) struct Demo {
    /// The weights to share: a GGUF file
    #[arg(long, value_name = "FILE", env = "STEELYARD_WEIGHTS", required_unless_present = "clean")]
    weights: Option<PathBuf>,
    /// Where the three nodes live [default: steelyard/demo in the XDG cache folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Leave the three nodes up, and say how to play with them
    #[arg(long)]
    keep: bool,
    /// Stop the nodes that --keep left up, and remove their folder
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.json {
            return Err(Failure::usage("the demo is for people: it has no JSON"));
        }
        let dir = match &self.dir {
            Some(dir) => absolute(dir)?,
            None => etcetera::choose_base_strategy()
                .map_err(|_| {
                    Failure::usage("there is no home directory for the demo's folder")
                        .help("name one with --dir")
                })?
                .cache_dir()
                .join("steelyard/demo"),
        };
        if self.clean {
            return clean(&dir).await;
        }
        let Some(weights) = &self.weights else { return Err(Failure::usage("--weights is needed")) };
        let weights = absolute(weights)?;
        if !weights.is_file() {
            return Err(Failure::new(Exit::NotFound, format!("there is no file {}", weights.display()))
                .help(
                    "name a GGUF file; `make weights` fetches SmolLM2-135M-Instruct and says where it is",
                ));
        }
        prepare(&dir).await?;
        let mut interrupts = Interrupts::new()?;
        let mut world = nation::World::new(&dir)?;
        let told = tokio::select! {
            told = story::tell(&mut world, &weights) => told,
            () = interrupts.next() => Err(Failure::interrupted()),
        };
        match told {
            Ok(()) if self.keep => {
                world.leave();
                story::how_to_play(&dir, &weights)
            }
            Ok(()) => {
                world.stop().await;
                std::fs::remove_dir_all(&dir)?;
                Ok(())
            }
            Err(failure) => {
                world.stop().await;
                if failure.exit != Exit::Interrupted && !failure.closed {
                    world.show_logs();
                    return Err(
                        failure.or_help(format!("everything is still in {} for looking into", dir.display()))
                    );
                }
                std::fs::remove_dir_all(&dir)?;
                Err(failure)
            }
        }
    }
}

/// Makes the folder; what an earlier demo left is removed, unless it still runs.
async fn prepare(dir: &Path) -> Result<(), Failure> {
    if dir.join(MARK).is_file() {
        if NAMES
            .iter()
            .any(|name| node::client::http::connect_unix(&Layout::new(dir.join(name)).socket()).is_ok())
        {
            return Err(Failure::new(Exit::Busy, format!("a demo is up already in {}", dir.display()))
                .help("stop it with `steelyard demo --clean`, or name another folder with --dir"));
        }
        std::fs::remove_dir_all(dir)?;
    } else if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(Exit::Busy, format!("{} is not empty and no demo's folder", dir.display()))
            .help("name another folder with --dir"));
    }
    std::fs::create_dir_all(dir)?;
    Ok(std::fs::write(dir.join(MARK), "{}\n")?)
}

async fn clean(dir: &Path) -> Result<(), Failure> {
    if !dir.join(MARK).is_file() {
        return output::line(paint(DIM, format!("No demo is up: there is none in {}.", dir.display())));
    }
    for name in NAMES {
        let socket = Layout::new(dir.join(name)).socket();
        if node::client::http::unix(&socket, hyper::Method::POST, "/v1/shutdown", Vec::new()).await.is_err() {
            continue;
        }
        let started = std::time::Instant::now();
        while node::client::http::connect_unix(&socket).is_ok() || still_holds(&dir.join(name)) {
            if started.elapsed() > STOP {
                return Err(Failure::new(Exit::Busy, format!("the node of {name} does not stop"))
                    .help(format!("look at {}", dir.join(format!("{name}.log")).display())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        output::line(format!("{} {name} stopped", output::mark(true)))?;
    }
    std::fs::remove_dir_all(dir)?;
    output::line(format!("{} {} removed", output::mark(true), dir.display()))
}

/// Whether a process still owns the store: the socket goes before it does.
fn still_holds(home: &Path) -> bool {
    matches!(
        registry::store::Store::open(&Layout::new(home).store()),
        Err(registry::store::StoreError::Busy { .. })
    )
}

/// A field of a JSON document, or a loud failure: the demo relies on what the commands say.
fn field<'a>(document: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    match &document[name] {
        Value::Null => {
            Err(Failure::new(Exit::Other, format!("the command's answer has no `{name}`: {document}")))
        }
        value => Ok(value),
    }
}
