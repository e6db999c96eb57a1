//! `steelyard serve-key`: who may ask the workers.

use clap::{Args, Subcommand};
use node::serve_keys::{Entry, ServeKeys};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, DIM, NAME, Table, cell, paint};

/// Make, list and revoke the API keys of the workers' interface
#[derive(Debug, Args)]
#[command(
    long_about = "Make, list and revoke the API keys of the workers' interface.\n\nWorkers that listen on loopback answer anybody unless \
`worker.anonymous` in the settings says `never`; others want a key, which clients send as OpenAI's do. Only a hash of each is kept. \
Running workers hear of a change within a second. Each key has its own queue: whoever asks for much waits for whoever asks for little."
)]
pub(crate) struct ServeKey {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Revoke(Revoke),
}

/// Make a key and show it, once
///
/// It goes to standard output alone, so that it can be put into a file without being seen; the node keeps its hash.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard serve-key add 'ministry chat' > key.txt")]
struct Add {
    /// Whose it is, for people
    #[arg(value_name = "NAME")]
    name: String,
}

/// List the keys
///
/// Their names and when they were made; the keys themselves are kept nowhere.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard serve-key list")]
struct List {}

/// Revoke a key: the next request with it is refused
///
/// Answers that are under way are completed. Running workers hear of it at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard serve-key revoke 'ministry chat'")]
struct Revoke {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

impl ServeKey {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let keys = ServeKeys::new(context.layout.serve_keys());
        match self.action {
            Action::Add(add) => {
                let (token, entry) = keys.add(&add.name)?;
                if context.json {
                    return output::json(
                        &json!({ "key": token, "id": entry.key.id, "name": entry.key.name }),
                    );
                }
                output::line(&token)?;
                output::note(paint(DIM, "It is shown this once; only its hash is kept."));
                Ok(())
            }
            Action::List(_) => list(context, &keys.list()?),
            Action::Revoke(revoke) => {
                let entry = keys.revoke(&revoke.name)?;
                if context.json {
                    return output::json(&entry);
                }
                output::line(format!(
                    "{} {} opens nothing any more.",
                    output::mark(true),
                    paint(NAME, &entry.key.name)
                ))
            }
        }
    }
}

fn list(context: &Context, keys: &[Entry]) -> Result<(), Failure> {
    if context.json {
        return output::json(&keys);
    }
    if keys.is_empty() {
        return output::line("There are no API keys.");
    }
    let mut table = Table::new(&["name", "made", "hash"]);
    for entry in keys {
        table.row([
            cell(NAME, entry.key.name.as_str()),
            entry.created.to_string().into(),
            cell(DIM, entry.key.hash.short()),
        ]);
    }
    output::print(&table.render())
}
