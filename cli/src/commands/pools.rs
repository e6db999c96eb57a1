//! `steelyard pools`: several models behind one address, what is loaded of them, and what may be changed while they are served.

use clap::{Args, Subcommand};
use node::api::types::{MemberState, PoolInfo, PoolModelRequest};
use registry::Reference;

use super::serve::show_pool;
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, BOLD, Cell, DIM, GOOD, NAME, Table, WARN, cell, paint};
use crate::progress::Bar;

/// Show pools, and load, unload, add and remove their models
///
/// A pool is several models behind one address, as `steelyard serve A B` starts it. Without a further word, lists them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard pools
  steelyard pools load 1 borea/smollm2
  steelyard pools add 1 alba/chat@2.0.0
  steelyard pools stop 1
  steelyard --json pools | jq '.[].members[] | {model, state, needs}'")]
pub(crate) struct Pools {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the pools
    ///
    /// Each with its address, its memory, and how each of its models is.
    #[command(after_help = "Example:\n  steelyard pools list")]
    List,
    /// Load a model of a pool
    ///
    /// Room is made for it as for a request: what was used longest ago is unloaded. A load that failed lately is tried again at once.
    #[command(after_help = "Example:\n  steelyard pools load 1 borea/smollm2")]
    Load(Model),
    /// Unload a model of a pool
    ///
    /// It takes no more requests, ends those under way, for two minutes at most, and its memory is free when the command returns. The
    /// next request loads it again.
    #[command(after_help = "Example:\n  steelyard pools unload 1 borea/smollm2")]
    Unload(Model),
    /// Add a model to a pool
    ///
    /// It is served from then on, and loaded when somebody asks for it.
    #[command(after_help = "Example:\n  steelyard pools add 1 alba/chat:beta")]
    Add {
        /// The pool, as `steelyard pools` numbers it
        #[arg(value_name = "ID")]
        id: u64,
        /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
        #[arg(value_name = "REFERENCE")]
        reference: Reference,
    },
    /// Remove a model from a pool
    ///
    /// It is unloaded as by `unload`, and not served there any more.
    #[command(after_help = "Example:\n  steelyard pools remove 1 alba/chat")]
    Remove(Model),
    /// Stop a pool and all its workers
    ///
    /// Requests end with a clear error, and the memory is free when the command returns.
    #[command(after_help = "Example:\n  steelyard pools stop 1")]
    Stop {
        /// The pool, as `steelyard pools` numbers it
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// A model of a pool.
#[derive(Debug, Args)]
struct Model {
    /// The pool, as `steelyard pools` numbers it
    #[arg(value_name = "ID")]
    id: u64,
    /// The model, as it was named or as requests name it
    #[arg(value_name = "MODEL")]
    model: String,
}

impl Pools {
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
            Self::Load(Model { id, model }) => {
                let bar = Bar::new(context.progress(), &format!("loading {model}"));
                let request = PoolModelRequest { reference: model.clone() };
                let path = format!("/v1/pools/{id}/load");
                let pool: PoolInfo =
                    client.job(&path, &request, |info: PoolInfo| show_pool(&bar, &info)).await?;
                drop(bar);
                told(context, &pool, &format!("{model} is loaded"))
            }
            Self::Unload(Model { id, model }) => {
                let request = PoolModelRequest { reference: model.clone() };
                let pool = client.post(&format!("/v1/pools/{id}/unload"), &request).await?;
                told(context, &pool, &format!("{model} is unloaded"))
            }
            Self::Add { id, reference } => {
                let request = PoolModelRequest { reference: reference.to_string() };
                let pool = client.post(&format!("/v1/pools/{id}/models"), &request).await?;
                told(context, &pool, &format!("{reference} is in pool {id}"))
            }
            Self::Remove(Model { id, model }) => {
                let pool = client.delete(&format!("/v1/pools/{id}/models/{}", segment(&model))).await?;
                told(context, &pool, &format!("{model} is no more in pool {id}"))
            }
            Self::Stop { id } => {
                let pool: PoolInfo = client.delete(&format!("/v1/pools/{id}")).await?;
                if context.json {
                    return output::json(&pool);
                }
                output::line(format!("{} pool {id} stopped", output::mark(true)))
            }
        }
    }
}

/// What was done, and how the pool is now.
fn told(context: &Context, pool: &PoolInfo, what: &str) -> Result<(), Failure> {
    if context.json {
        return output::json(pool);
    }
    output::line(format!("{} {what}\n", output::mark(true)))?;
    output::print(&members(pool).render())
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let pools: Vec<PoolInfo> = client.get("/v1/pools").await?;
    if context.json {
        return output::json(&pools);
    }
    if pools.is_empty() {
        return output::line(paint(DIM, "No pool runs. `steelyard serve A B` starts one."));
    }
    for (place, pool) in pools.iter().enumerate() {
        if place > 0 {
            output::line("")?;
        }
        let address = paint(BOLD, format!("http://{}/v1", pool.address));
        output::line(format!("pool {}  {address}  {}\n", pool.id, paint(DIM, room(pool))))?;
        output::print(&members(pool).render())?;
    }
    Ok(())
}

/// What of its memory a pool has, and what makes it unload.
pub(crate) fn room(pool: &PoolInfo) -> String {
    let mut words = match pool.budget {
        u64::MAX => format!("{} of memory in use", human::bytes(pool.used)),
        budget => format!("{} of {} of memory in use", human::bytes(pool.used), human::bytes(budget)),
    };
    if let Some(idle) = pool.idle_secs {
        let idle = std::time::Duration::from_secs(idle);
        words.push_str(&format!("; unloaded when idle for {}", human::duration(idle)));
    }
    if pool.follow {
        words.push_str("; channels are followed");
    }
    if pool.waiting > 0 {
        words.push_str(&format!("; {} waiting", human::count(pool.waiting, "request")));
    }
    words
}

/// A row for each model of a pool.
pub(crate) fn members(pool: &PoolInfo) -> Table {
    let mut table = Table::new(&["model", "release", "state", "needs", "requests", "loads", "worker", "why"]);
    for member in &pool.members {
        let style = match member.state {
            MemberState::Ready => GOOD,
            MemberState::Unloaded if member.error.is_some() => BAD,
            MemberState::Unloaded => DIM,
            MemberState::Loading | MemberState::Unloading => WARN,
        };
        let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
        let needs = match member.needs {
            Some(needs) => human::bytes(needs),
            // More than its weights.
            None => format!("> {}", human::bytes(member.weights)),
        };
        let requests = match (member.requests, member.waiting) {
            (active, 0) => number(active.into()),
            (active, waiting) => format!("{active}+{waiting}"),
        };
        table.row([
            cell(NAME, member.reference.clone()),
            Cell::from(member.version.to_string()),
            cell(style, member.state.as_str()),
            Cell::from(needs).right(),
            Cell::from(requests).right(),
            Cell::from(number(member.loads)).right(),
            Cell::from(member.worker.map(|worker| worker.to_string()).unwrap_or_default()).right(),
            cell(DIM, member.error.clone().unwrap_or_default()),
        ]);
    }
    table
}
