//! `steelyard serve`: a worker that serves an admitted release, watched in the foreground.

mod explain;
mod interrupts;
mod pool;
mod proof;
mod ready;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use node::api::types::{Event, StopCause, WorkerInfo, WorkerRequest, WorkerState, WorkerStop};
use node::client::Happened;
use registry::Reference;
use registry::serving::{EngineName, Options, Wall};

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, BOLD, DIM, NAME, paint};
use crate::progress::Bar;
use crate::transfer;
pub(super) use interrupts::Interrupts;
pub(super) use pool::show as show_pool;
pub(super) use ready::{Ready, ready_or_started};

/// How often the state is asked for, should an event be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long the node may take to begin the worker that takes the place of one that is over: it only decides about the release.
const NEXT: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK_FOR_NEXT: Duration = Duration::from_millis(100);

/// Serve one or several releases with an OpenAI-compatible interface
///
/// Several are served at one address: the request's `model` chooses. As many as have room are loaded, the others when somebody asks
/// for them, in the place of those that were used longest ago.
///
/// A release that is not here is fetched meanwhile: it is served when the last of what is computed on has come.
///
/// Starts a worker process with walls around it: no network, no files but the admitted ones, which the node opens for it, and
/// only the system calls that serving needs. It hashes the files again and serves /v1/chat/completions, /v1/completions and
/// /v1/models. This command shows its state and stops it on Ctrl-C; with --detach the running node keeps
/// it. When the release is recalled the worker stops at once, and this command ends with exit code 5, the reason and the
/// time that it took.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard serve borea/smollm2
  steelyard serve borea/smollm2@1.0.0 --listen 127.0.0.1:8000 --threads 4
  steelyard serve borea/smollm2 --prove-sealed
  steelyard serve borea/smollm2 --explain
  steelyard serve borea/smollm2:stable --follow
  steelyard serve borea/smollm2 --adapter cora/smollm2-legal
  steelyard serve borea/smollm2 alba/chat alba/vectors --memory 8GiB --idle-timeout 10m
  steelyard serve borea/smollm2 alba/chat --on-demand --detach
  curl http://127.0.0.1:4810/v1/models")]
pub(crate) struct Serve {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<Reference>,
    /// Where to listen [default: worker.listen of the settings, 127.0.0.1:4810]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Let the running node keep the worker, and return when it is ready
    #[arg(long)]
    detach: bool,
    /// Compute threads [default: one fewer than the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// Tokens of context [default: the model's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    context: Option<u32>,
    /// Have the worker try to break out, and show how each attempt was refused; exit code 1 when one was not
    ///
    /// The attempts are real system calls, made inside the live worker by a thread that serves: connecting, looking names up,
    /// running programs, reading and writing files, tracing and killing the node, and more. A worker that serves the
    /// release already is asked; else one is started for as long as it takes.
    #[arg(long, conflicts_with = "detach")]
    prove_sealed: bool,
    /// Serve without this wall where the kernel can't build it: namespaces, mounts, landlock or seccomp (repeatable)
    #[arg(long, value_name = "WALL")]
    allow_missing: Vec<Wall>,
    /// Insist on an engine: llama.cpp, candle or vllm [default: the first that can]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineName>,
    /// Start nothing; say which engine would serve it, why not the others, and whether it fits into memory
    #[arg(long, conflicts_with_all = ["detach", "listen", "prove_sealed"])]
    explain: bool,
    /// Follow the channel: when it moves to a release that may be served, that one takes the place, without a request being lost
    ///
    /// The new release is fetched, checked and loaded while the old one serves; then the new worker accepts at the same address, and
    /// the old one ends the requests that are under way. When the release that is served is recalled nothing is served any more.
    #[arg(long, conflicts_with_all = ["explain", "prove_sealed"])]
    follow: bool,
    /// With --follow: when the release that is served is recalled, go back to the one before it
    #[arg(long, requires = "follow")]
    rollback_to_previous: bool,
    /// With --follow: end the old worker before the new one begins, where memory has no room for both
    #[arg(long, requires = "follow")]
    stop_first: bool,
    /// An adapter (LoRA) that goes with the model: a release of its own, made for this one (repeatable)
    ///
    /// A request chooses by its `model`: the model's name for the model itself, an adapter's for the model with that adapter. The
    /// adapter's signed lineage must name this release, or what this release is a quantisation of. When an adapter is recalled the
    /// model goes on without it. Serving an adapter's own reference serves its model with it.
    #[arg(long = "adapter", value_name = "REFERENCE", conflicts_with_all = ["explain", "prove_sealed"])]
    adapters: Vec<Reference>,
    /// Memory that what is served here may need, all models together, such as 8GiB [default: what the machine has to give; for several models a tenth less]
    #[arg(long, value_name = "SIZE", value_parser = human::size)]
    memory: Option<u64>,
    /// Unload a model that nobody asked for so long, such as 10m; the next request loads it again
    #[arg(long, value_name = "TIME", value_parser = human::seconds, conflicts_with_all = ["explain", "prove_sealed"])]
    idle_timeout: Option<u64>,
    /// Load nothing before somebody asks for it
    #[arg(long, conflicts_with_all = ["explain", "prove_sealed"])]
    on_demand: bool,
}

impl Serve {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        self.check()?;
        let mut interrupts = Interrupts::new()?;
        if self.detach && Client::running(context).is_none() {
            return Err(Failure::new(Exit::Network, "--detach needs a running node that keeps the worker")
                .help(format!("start it with `{} node`, or leave out --detach", context.command())));
        }
        let need = if self.explain { Need::Folder } else { Need::Network };
        let client = tokio::select! {
            client = Client::open(context, need) => client?,
            () = interrupts.next() => return Err(Failure::interrupted()),
        };
        let ended = if self.prove_sealed {
            tokio::select! {
                proved = self.prove(context, &client) => proved,
                () = interrupts.next() => Err(Failure::interrupted()),
            }
        } else if self.is_pool() && !self.explain {
            self.serve_pool(context, &client, &mut interrupts).await
        } else {
            self.serve(context, &client, &mut interrupts).await
        };
        client.close().await;
        ended
    }

    fn request(
        &self,
        client: &Client,
        context: &Context,
        listen: Option<SocketAddr>,
    ) -> Result<WorkerRequest, Failure> {
        let mut request = request(client, context, self.reference(), listen, self.chosen())?;
        request.allow_missing.clone_from(&self.allow_missing);
        request.follow = self.follow;
        request.rollback_to_previous = self.rollback_to_previous;
        request.stop_first = self.stop_first;
        request.adapters = self.adapters.iter().map(ToString::to_string).collect();
        Ok(request)
    }

    /// How long another worker may take the place of one that is over.
    fn patience(&self) -> Duration {
        if self.rollback_to_previous || self.stop_first { NEXT } else { Duration::ZERO }
    }

    /// What is served, where it is one; the command line takes no fewer.
    fn reference(&self) -> &Reference {
        &self.references[0]
    }

    fn chosen(&self) -> Chosen {
        // Several share it.
        let memory = self.memory.filter(|_| !self.is_pool());
        Chosen { threads: self.threads, context: self.context, engine: self.engine, memory }
    }

    async fn serve(
        &self,
        context: &Context,
        client: &Client,
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        if self.explain {
            let options = options(client, context, self.chosen())?;
            let vllm = settings(client, context)?.vllm;
            return match &self.references[..] {
                [one] => explain::explain(context, client, one, &options, vllm).await,
                several => explain::all(context, client, several, &options, vllm, self.memory).await,
            };
        }
        let request = self.request(client, context, self.listen)?;
        let worker = tokio::select! {
            worker = start(context, client, &request) => worker?,
            // Letting go of the job stops a worker that is not ready yet.
            () = interrupts.next() => return Err(Failure::interrupted()),
        };
        if context.json {
            output::json_line(&worker)?;
        } else {
            report(&worker, self.reference().model(), self.detach)?;
        }
        if self.detach {
            return Ok(());
        }
        let current = AtomicU64::new(worker.id);
        let followed = tokio::select! {
            over = follow_on(client, &current, self.patience()) => Some(over),
            () = interrupts.next() => None,
        };
        let over = match followed {
            Some(over) => over?,
            None => client.delete(&format!("/v1/workers/{}", current.load(Ordering::Relaxed))).await?,
        };
        if context.json {
            output::json_line(&over)?;
        }
        ending(&over).map_err(|failure| if context.json { failure.reported() } else { failure })
    }
}

/// What was given by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) threads: Option<u32>,
    pub(super) context: Option<u32>,
    pub(super) engine: Option<EngineName>,
    pub(super) memory: Option<u64>,
}

/// The request for a worker; options that were not given are the settings'.
pub(super) fn request(
    client: &Client,
    context: &Context,
    reference: &Reference,
    listen: Option<SocketAddr>,
    chosen: Chosen,
) -> Result<WorkerRequest, Failure> {
    let by_hand = chosen != Chosen::default();
    Ok(WorkerRequest {
        reference: reference.to_string(),
        listen: listen.map(|address| address.to_string()),
        options: if by_hand { Some(options(client, context, chosen)?) } else { None },
        allow_missing: Vec::new(),
        follow: false,
        rollback_to_previous: false,
        stop_first: false,
        adapters: Vec::new(),
    })
}

/// What was given by hand, and of the rest what the settings say.
fn options(client: &Client, context: &Context, chosen: Chosen) -> Result<Options, Failure> {
    let settings = settings(client, context)?;
    let some = |value: u32| (value > 0).then_some(value);
    Ok(Options {
        threads: chosen.threads.or(some(settings.threads)),
        context: chosen.context.or(some(settings.context)),
        parallel: some(settings.parallel),
        cache: some(settings.cache),
        max_requests: settings.max_requests,
        engine: chosen.engine,
        memory: chosen.memory,
    })
}

/// The settings for workers. The running node may have others than the file by now, but those that matter were given by
/// hand.
fn settings(client: &Client, context: &Context) -> Result<node::config::Worker, Failure> {
    Ok(match client {
        Client::InProcess(host) => host.node().config().worker.clone(),
        Client::Node(_) => context.config()?.worker,
    })
}

/// A port of this machine's own choice, for a worker that one command needs.
pub(super) fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Starts a worker and waits until it is ready.
pub(super) async fn start(
    context: &Context,
    client: &Client,
    request: &WorkerRequest,
) -> Result<WorkerInfo, Failure> {
    let bar = Bar::new(context.progress(), &format!("starting a worker for {}", request.reference));
    client.job("/v1/workers", request, |info: WorkerInfo| show(&bar, &info)).await
}

/// Shows how far a worker is that does not serve yet.
pub(super) fn show(bar: &Bar, info: &WorkerInfo) {
    match info.state {
        WorkerState::Fetching => match &info.transfer {
            Some(transfer) => transfer::show(bar, transfer),
            None => bar.message(&format!("finding {}", info.reference)),
        },
        WorkerState::Verifying => bar.bytes(info.bytes_done, info.bytes_total, "verifying"),
        WorkerState::Suspended => bar.message("its lease ended; waiting for allies"),
        WorkerState::Loading => {
            bar.message(&format!("loading into {}", info.engine.as_deref().unwrap_or("the engine")))
        }
        _ => bar.message("starting"),
    }
}

/// Waits until the worker `current`, and whichever took its place, is over. `patience` is how long one may take the place of one that
/// is over.
async fn follow_on(client: &Client, current: &AtomicU64, patience: Duration) -> Result<WorkerInfo, Failure> {
    let mut over = None;
    let mut events = client.events("worker").await?;
    let mut suspended = false;
    loop {
        let id = current.load(Ordering::Relaxed);
        let now: Vec<WorkerInfo> = client.get("/v1/workers").await.map_err(node_gone)?;
        let next = now.iter().find(|worker| worker.id == id).and_then(|worker| worker.replaced_by);
        if let Some(next) = next.and_then(|next| now.iter().find(|worker| worker.id == next)) {
            output::note(format!("{}@{} is served now", next.model, next.version));
            current.store(next.id, Ordering::Relaxed);
            over = None;
            continue;
        }
        match now.into_iter().find(|worker| worker.id == id) {
            Some(worker) if worker.state.is_over() => {
                if over.get_or_insert_with(Instant::now).elapsed() >= patience {
                    return Ok(worker);
                }
                tokio::time::sleep(LOOK_FOR_NEXT).await;
                continue;
            }
            Some(_) => {}
            None => return Err(node_gone(Failure::new(Exit::Network, "the node restarted"))),
        }
        let happened = tokio::time::timeout(LOOK_AGAIN, async {
            loop {
                match events.next().await {
                    Ok(Some(Happened::Event(event))) => match *event {
                        // Another may have taken its place: the list says so.
                        Event::Worker(worker) if worker.id == id && worker.state.is_over() => {
                            return Ok(());
                        }
                        // It takes a place, perhaps this one.
                        Event::Worker(worker) if worker.replaces == Some(id) => return Ok(()),
                        Event::Worker(worker) if worker.id == id => {
                            tell_death(&worker);
                            tell_lease(&worker, &mut suspended);
                        }
                        _ => {}
                    },
                    Ok(Some(Happened::Missed)) => return Ok(()),
                    Ok(None) => return Err(node_gone(Failure::new(Exit::Network, "the node stopped"))),
                    Err(failure) => return Err(node_gone(failure.into())),
                }
            }
        });
        match happened.await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(failure)) => return Err(failure),
        }
    }
}

/// Says once that the worker is suspended, and once that it is back.
fn tell_lease(worker: &WorkerInfo, suspended: &mut bool) {
    match worker.state {
        WorkerState::Suspended if !std::mem::replace(suspended, true) => {
            let why = worker.stop.as_ref().map(|stop| stop.reason.as_str()).unwrap_or_default();
            output::warn(format!("{} is not served at the moment: {why}", worker.model));
        }
        WorkerState::Ready if std::mem::replace(suspended, false) => {
            output::note(format!("{} is served again", worker.model));
        }
        _ => {}
    }
}

/// Says that the worker's process died and is started again.
fn tell_death(worker: &WorkerInfo) {
    if worker.state == WorkerState::Restarting {
        let why = worker.error.as_deref().unwrap_or("no reason is known");
        output::warn(format!("{} is started again: {why}", worker.model));
    }
}

fn node_gone(failure: Failure) -> Failure {
    Failure::new(
        Exit::Network,
        format!("the node is gone and its workers with it: {}", failure.problem.detail),
    )
}

fn report(worker: &WorkerInfo, asked: Option<&registry::Model>, detached: bool) -> Result<(), Failure> {
    let address = worker.address.map(|address| format!("http://{address}/v1")).unwrap_or_default();
    let ms = |ms: Option<u64>| ms.map(human::millis).unwrap_or_default();
    output::line(format!(
        "{} {} is served at {}",
        output::mark(true),
        paint(NAME.bold(), format!("{}@{}", worker.model, worker.version)),
        paint(BOLD, &address)
    ))?;
    output::line(paint(
        DIM,
        format!(
            "  {} verified in {}, loaded into {} in {}",
            human::bytes(worker.bytes_total),
            ms(worker.verify_ms),
            worker.engine.as_deref().unwrap_or("the engine"),
            ms(worker.load_ms)
        ),
    ))?;
    for adapter in &worker.adapters {
        let name = paint(NAME, adapter.model.to_string());
        output::line(format!(
            "  with the adapter {name}@{}, which requests choose by its name",
            adapter.version
        ))?;
    }
    let missing: Vec<&str> =
        worker.walls.iter().filter(|wall| !wall.stands).map(|wall| wall.wall.name()).collect();
    if missing.is_empty() {
        let walls: Vec<&str> = worker.walls.iter().map(|wall| wall.wall.name()).collect();
        output::line(paint(DIM, format!("  sealed by {}", walls.join(", "))))?;
    } else {
        output::warn(format!("it is served without {}, as was allowed", missing.join(", ")));
    }
    output::line(format!(
        "\n  curl {address}/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\": \"{}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n",
        // Whoever asked for an adapter asks it.
        asked
            .filter(|asked| worker.adapters.iter().any(|adapter| adapter.model == **asked))
            .map_or_else(|| worker.served_as.clone().unwrap_or_default(), ToString::to_string)
    ))?;
    if detached {
        return output::line(paint(DIM, "The node keeps it. `steelyard status` shows it."));
    }
    output::line(paint(DIM, "Stop with Ctrl-C."))
}

/// What a worker's end means for the command.
fn ending(worker: &WorkerInfo) -> Result<(), Failure> {
    match (&worker.stop, &worker.error) {
        (Some(stop), _) if stop.cause == StopCause::Requested => {
            output::note(paint(DIM, format!("stopped in {}", human::millis(stop.took_ms))));
            Ok(())
        }
        (Some(stop), _) => Err(stopped(worker, stop)),
        (None, error) => Err(Failure::new(
            Exit::Other,
            format!("the worker failed: {}", error.as_deref().unwrap_or("no reason is known")),
        )),
    }
}

fn stopped(worker: &WorkerInfo, stop: &WorkerStop) -> Failure {
    let name = format!("{}@{}", worker.model, worker.version);
    let what = match stop.cause {
        StopCause::LeaseEnded => format!("the lease of {name} ended"),
        StopCause::Damaged => format!("the weights of {name} are not what was admitted any more"),
        StopCause::Recalled => format!("{name} was recalled and is served no longer"),
        _ => format!("{name} may no longer be served"),
    };
    let how = if stop.killed { "killed" } else { "stopped" };
    let cut = match stop.active_requests {
        Some(n) if n > 0 => format!(", {} cut off", human::count(u64::from(n), "request")),
        _ => String::new(),
    };
    output::note(format!(
        "{} at {}, {} after this node knew{cut}",
        paint(BAD.bold(), how),
        stop.at,
        paint(BOLD, human::millis(stop.took_ms))
    ));
    Failure::new(Exit::Policy, format!("{what}: {}", stop.reason))
        .help(format!("`steelyard show {}` tells why", worker.release))
}
