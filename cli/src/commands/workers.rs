//! `steelyard workers`: what is served, and putting another release in its place.

use clap::{Args, Subcommand};
use node::api::types::{SwapRequest, WorkerInfo, WorkerState};
use registry::{Reference, Timestamp};

use super::serve;
use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell, paint};
use crate::progress::Bar;

/// Show workers, and put another release in the place of one
///
/// Without a further word, lists the workers that serve and those that are lately over, with why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard workers
  steelyard workers swap 1 borea/smollm2@1.1.0
  steelyard workers swap 1 borea/smollm2@1.1.0 --adapter cora/smollm2-legal@1.1.0
  steelyard workers rollback 2
  steelyard workers stop 2
  steelyard --json workers | jq '.[] | {id, state, requests}'")]
pub(crate) struct Workers {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the workers
    ///
    /// Those that serve, and those that are lately over, with why.
    #[command(after_help = "Example:\n  steelyard workers list")]
    List,
    /// Serve another release at the same address, without a request being lost
    ///
    /// The new release is checked and loaded while the old one serves; then its worker accepts at the same listener, and the old one
    /// takes no more and ends the requests that are under way, for two minutes at most. When the new one can't be served, the old
    /// one goes on. A worker that follows a channel does so no longer.
    #[command(after_help = "Example:\n  steelyard workers swap 1 borea/smollm2@1.1.0")]
    Swap {
        /// The worker, as `steelyard workers` numbers it
        #[arg(value_name = "ID")]
        id: u64,
        /// What takes its place: nation/name:channel, nation/name@version or b3:…
        #[arg(value_name = "REFERENCE")]
        reference: Reference,
        /// End the old worker before the new one begins, where memory has no room for both: nobody is answered meanwhile
        #[arg(long)]
        stop_first: bool,
        /// An adapter that goes with it (repeatable) [default: those that went with the release before]
        #[arg(long = "adapter", value_name = "REFERENCE", conflicts_with = "without_adapters")]
        adapters: Vec<Reference>,
        /// Serve it without any adapter
        #[arg(long)]
        without_adapters: bool,
    },
    /// Go back to the release that was served in the worker's place before
    ///
    /// It is a swap like any other: the release is checked anew, and one that was recalled meanwhile is refused.
    #[command(after_help = "Example:\n  steelyard workers rollback 2")]
    Rollback {
        /// The worker, as `steelyard workers` numbers it
        #[arg(value_name = "ID")]
        id: u64,
        /// End the worker before the other one begins, where memory has no room for both: nobody is answered meanwhile
        #[arg(long)]
        stop_first: bool,
    },
    /// Stop a worker
    ///
    /// Its requests end with a clear error, and its memory is free when the command returns.
    #[command(after_help = "Example:\n  steelyard workers stop 2")]
    Stop {
        /// The worker, as `steelyard workers` numbers it
        #[arg(value_name = "ID")]
        id: u64,
    },
}

impl Workers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let done = self.what.unwrap_or(What::List).run(context, &client).await;
        client.close().await;
        done
    }
}

impl What {
    async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        match self {
            Self::List => list(context, client).await,
            Self::Swap { id, reference, stop_first, adapters, without_adapters } => {
                let chosen = without_adapters || !adapters.is_empty();
                let adapters = chosen.then(|| adapters.iter().map(ToString::to_string).collect());
                let request = SwapRequest { reference: Some(reference.to_string()), stop_first, adapters };
                swap(context, client, id, &request).await
            }
            Self::Rollback { id, stop_first } => {
                swap(context, client, id, &SwapRequest { reference: None, stop_first, adapters: None }).await
            }
            Self::Stop { id } => {
                let over: WorkerInfo = client.delete(&format!("/v1/workers/{id}")).await?;
                if context.json {
                    return output::json(&over);
                }
                output::line(format!("{} worker {id} stopped", output::mark(true)))
            }
        }
    }
}

async fn swap(context: &Context, client: &Client, id: u64, request: &SwapRequest) -> Result<(), Failure> {
    let bar = Bar::new(context.progress(), &format!("starting what takes the place of worker {id}"));
    let path = format!("/v1/workers/{id}/swap");
    let worker: WorkerInfo = client.job(&path, request, |info: WorkerInfo| serve::show(&bar, &info)).await?;
    drop(bar);
    if context.json {
        return output::json(&worker);
    }
    let name = paint(NAME.bold(), format!("{}@{}", worker.model, worker.version));
    let address = worker.address.map(|address| format!("http://{address}/v1")).unwrap_or_default();
    output::line(format!("{} {name} is served at {address} by worker {}", output::mark(true), worker.id))?;
    let how = if request.stop_first { "was stopped before" } else { "ends the requests that are under way" };
    output::line(paint(DIM, format!("  worker {id} {how}")))
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let workers: Vec<WorkerInfo> = client.get("/v1/workers").await?;
    if context.json {
        return output::json(&workers);
    }
    if workers.is_empty() {
        return output::line(paint(DIM, "No worker runs. `steelyard serve` starts one."));
    }
    output::print(&table(&workers, Timestamp::now()).render())
}

/// A row for each worker, and why it is as it is.
fn table(workers: &[WorkerInfo], now: Timestamp) -> Table {
    let head =
        ["id", "release", "state", "address", "engine", "requests", "memory", "restarts", "since", "why"];
    let mut table = Table::new(&head);
    for worker in workers {
        let state = serde_json::to_value(worker.state).ok();
        let state = state.and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default();
        let style = match worker.state {
            WorkerState::Ready => GOOD,
            WorkerState::Failed => BAD,
            WorkerState::Stopped => DIM,
            _ => WARN,
        };
        let is_over = worker.state.is_over();
        let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
        table.row([
            Cell::from(worker.id.to_string()).right(),
            cell(NAME, format!("{}@{}", worker.model, worker.version)),
            cell(style, state),
            worker.address.filter(|_| !is_over).map(|it| it.to_string()).unwrap_or_default().into(),
            cell(DIM, worker.engine.clone().unwrap_or_default()),
            Cell::from(if is_over { String::new() } else { number(worker.requests.into()) }).right(),
            Cell::from(worker.memory.map(human::bytes).unwrap_or_default()).right(),
            Cell::from(number(worker.restarts.into())).right(),
            cell(DIM, human::relative(worker.started, now)),
            cell(DIM, why(worker)),
        ]);
    }
    table
}

/// What a person should know of it.
fn why(worker: &WorkerInfo) -> String {
    let mut parts = Vec::new();
    for adapter in worker.adapters.iter().filter(|_| !worker.state.is_over()) {
        let name = format!("{}@{}", adapter.model, adapter.version);
        parts.push(match &adapter.withdrawn {
            None => format!("with {name}"),
            Some(why) => format!("without {name}: {why}"),
        });
    }
    if let Some(pool) = worker.pool {
        parts.push(format!("pool {pool}"));
    }
    if let Some(channel) = worker.follows.as_ref().filter(|_| !worker.state.is_over()) {
        parts.push(format!("follows {channel}"));
    }
    if let Some(next) = worker.replaced_by {
        parts.push(format!("worker {next} took its place"));
    }
    match (&worker.stop, &worker.error) {
        (Some(stop), _) if worker.replaced_by.is_none() => parts.push(stop.reason.clone()),
        (None, Some(error)) => parts.push(error.clone()),
        _ => {}
    }
    if worker.state == WorkerState::Fetching
        && let Some(transfer) = &worker.transfer
    {
        parts.push(format!(
            "{} of {}",
            human::bytes(transfer.bytes_done),
            human::bytes(transfer.bytes_total)
        ));
    }
    parts.join("; ")
}
