//! `steelyard serve` with several models: a pool at one address, watched in the foreground.

use std::collections::BTreeMap;
use std::time::Duration;

use node::api::types::{MemberState, PoolInfo, PoolMember, PoolRequest};
use node::client::Happened;

use super::{Interrupts, Serve, options};
use crate::client::Client;
use crate::commands::pools;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BOLD, DIM, paint};
use crate::progress::Bar;

/// How often the pool is looked at, should an event be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A worker's news is told before its pool has drawn its conclusions.
const CONCLUSIONS: Duration = Duration::from_millis(100);

impl Serve {
    /// Whether what is served is a pool: several models, or one that comes and goes.
    pub(super) fn is_pool(&self) -> bool {
        self.references.len() > 1 || self.on_demand || self.idle_timeout.is_some()
    }

    /// Refuses what makes no sense for several models.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !self.is_pool() {
            return Ok(());
        }
        let why = if self.prove_sealed {
            "--prove-sealed tries the walls of one worker; name one model"
        } else if self.rollback_to_previous {
            "--rollback-to-previous is for one model: in a pool, a model whose release is recalled is answered 410 until its channel moves on"
        } else if self.stop_first {
            "--stop-first is for one model: in a pool, a new release is loaded beside the old one, and other models make room"
        } else if !self.adapters.is_empty() {
            "--adapter goes with one model; name one, without --on-demand and --idle-timeout"
        } else if self.idle_timeout == Some(0) {
            "--idle-timeout is longer than nothing; leave it out to keep models loaded"
        } else {
            return Ok(());
        };
        Err(Failure::usage(why))
    }

    pub(super) async fn serve_pool(
        &self,
        context: &Context,
        client: &Client,
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        let chosen = self.chosen();
        let by_hand = chosen != super::Chosen::default();
        let request = PoolRequest {
            references: self.references.iter().map(ToString::to_string).collect(),
            listen: self.listen.map(|address| address.to_string()),
            memory: self.memory,
            idle_secs: self.idle_timeout,
            on_demand: self.on_demand,
            options: if by_hand { Some(options(client, context, chosen)?) } else { None },
            allow_missing: self.allow_missing.clone(),
            follow: self.follow,
        };
        let pool = tokio::select! {
            pool = start(context, client, &request) => pool?,
            // Letting go of the job stops a pool that is not ready yet.
            () = interrupts.next() => return Err(Failure::interrupted()),
        };
        if context.json {
            output::json_line(&pool)?;
        } else {
            report(&pool, self.detach)?;
        }
        if self.detach {
            return Ok(());
        }
        tokio::select! {
            gone = watch(client, &pool) => return gone,
            () = interrupts.next() => {}
        }
        let over: PoolInfo = client.delete(&format!("/v1/pools/{}", pool.id)).await?;
        if context.json {
            return output::json_line(&over);
        }
        output::note(paint(DIM, "stopped"));
        Ok(())
    }
}

async fn start(context: &Context, client: &Client, request: &PoolRequest) -> Result<PoolInfo, Failure> {
    let bar = Bar::new(context.progress(), "opening a pool");
    client.job("/v1/pools", request, |info: PoolInfo| show(&bar, &info)).await
}

/// Shows what is loaded at the moment.
pub(crate) fn show(bar: &Bar, pool: &PoolInfo) {
    let of = |state| pool.members.iter().filter(move |member| member.state == state);
    let ready = of(MemberState::Ready).count();
    let all = human::count(pool.members.len(), "model");
    match of(MemberState::Loading).next() {
        Some(member) => bar.message(&format!("loading {}: {ready} of {all} loaded", member.reference)),
        None => bar.message(&format!("{ready} of {all} loaded")),
    }
}

fn report(pool: &PoolInfo, detached: bool) -> Result<(), Failure> {
    let address = format!("http://{}/v1", pool.address);
    let all = human::count(pool.members.len(), "model");
    let verb = if pool.members.len() == 1 { "is" } else { "are" };
    output::line(format!("{} {all} {verb} served at {}\n", output::mark(true), paint(BOLD, &address)))?;
    output::print(&pools::members(pool).render())?;
    output::line(paint(DIM, format!("\n  {}", pools::room(pool))))?;
    if let Some(first) = pool.members.first() {
        output::line(format!(
            "\n  curl {address}/chat/completions -H 'content-type: application/json' \\\n    -d '{{\"model\": \"{}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n",
            first.model
        ))?;
    }
    if detached {
        return output::line(paint(DIM, "The node keeps it. `steelyard pools` shows it."));
    }
    output::line(paint(DIM, "Stop with Ctrl-C."))
}

/// Says what is loaded and unloaded, until the pool is gone.
async fn watch(client: &Client, pool: &PoolInfo) -> Result<(), Failure> {
    let mut events = client.events("worker").await?;
    let mut known: BTreeMap<String, PoolMember> = BTreeMap::new();
    for member in &pool.members {
        known.insert(member.reference.clone(), member.clone());
    }
    let path = format!("/v1/pools/{}", pool.id);
    loop {
        let happened = tokio::time::timeout(LOOK_AGAIN, events.next()).await;
        match happened {
            Ok(Ok(Some(Happened::Event(_) | Happened::Missed))) => tokio::time::sleep(CONCLUSIONS).await,
            Ok(Ok(None)) => return Err(super::node_gone(Failure::new(Exit::Network, "the node stopped"))),
            Ok(Err(failure)) => return Err(super::node_gone(failure.into())),
            Err(_) => {}
        }
        let now: PoolInfo = match client.get(&path).await {
            Ok(now) => now,
            Err(failure) if failure.exit == Exit::NotFound => {
                output::note(paint(DIM, "the pool was stopped"));
                return Ok(());
            }
            Err(failure) => return Err(super::node_gone(failure)),
        };
        for member in now.members {
            let before = known.insert(member.reference.clone(), member.clone());
            tell(before.as_ref(), &member);
        }
    }
}

/// Says how a member changed, if it did.
fn tell(before: Option<&PoolMember>, now: &PoolMember) {
    let name = format!("{}@{}", now.model, now.version);
    let was = |of: fn(&PoolMember) -> u64| before.map_or(0, of);
    // Both may have happened since it was looked last.
    if now.unloads > was(|it| it.unloads) {
        output::note(format!("{name} is unloaded"));
    }
    if now.loads > was(|it| it.loads) {
        let needs = now.needs.map(|needs| format!(", {}", human::bytes(needs))).unwrap_or_default();
        output::note(format!("{name} is loaded{needs}"));
    }
    match &now.error {
        Some(error) if before.and_then(|it| it.error.as_ref()) != Some(error) => {
            output::warn(format!("{name} is not loaded: {error}"));
        }
        _ => {}
    }
}
