//! `steelyard serve --prove-sealed`: the walls around a live worker, and what it found when it tried them.

use node::api::types::{Proof, WorkerInfo};

use super::Serve;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, DIM, GOOD, NAME, Table, cell, paint};

impl Serve {
    /// Has a worker of the release try to break out.
    pub(super) async fn prove(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let request = || self.request(client, context, self.listen.or(Some(super::anywhere())));
        let ready = super::ready_or_started(context, client, self.reference(), request).await?;
        let (worker, started) = (ready.worker, ready.started);
        let proof: Result<Proof, Failure> =
            client.post(&format!("/v1/workers/{}/prove", worker.id), &serde_json::json!({})).await;
        if started {
            client.delete::<WorkerInfo>(&format!("/v1/workers/{}", worker.id)).await?;
        }
        let proof = proof?;
        if context.json {
            output::json(&proof)?
        } else {
            report(&proof)?
        }
        judge(&proof).map_err(|failure| if context.json { failure.reported() } else { failure })
    }
}

fn report(proof: &Proof) -> Result<(), Failure> {
    let worker = &proof.worker;
    output::line(format!(
        "The worker of {} (process {}) on Linux {}:\n",
        paint(NAME.bold(), format!("{}@{}", worker.model, worker.version)),
        worker.pid.unwrap_or_default(),
        worker.kernel.as_deref().unwrap_or("?"),
    ))?;
    let mut walls = Table::new(&["wall", "", ""]);
    for wall in &worker.walls {
        let (style, stands) = if wall.stands { (GOOD, "stands") } else { (BAD, "missing") };
        walls.row([cell(NAME, wall.wall.name()), cell(style, stands), cell(DIM, wall.detail.clone())]);
    }
    output::print(&walls.render())?;
    let mut attempts = Table::new(&["attempt", "", ""]);
    for attempt in &proof.attempts {
        let (style, came, how) = match &attempt.refused {
            Some(how) => (GOOD, "refused", how.as_str()),
            None => (BAD.bold(), "SUCCEEDED", ""),
        };
        attempts.row([attempt.what.clone().into(), cell(style, came), cell(DIM, how)]);
    }
    output::print(&format!("\n{}", attempts.render()))
}

/// What the attempts mean for the command.
fn judge(proof: &Proof) -> Result<(), Failure> {
    let out: Vec<&str> =
        proof.attempts.iter().filter(|it| it.refused.is_none()).map(|it| it.what.as_str()).collect();
    if proof.attempts.is_empty() {
        return Err(Failure::new(Exit::Other, "the worker tried nothing, so nothing is proved"));
    }
    if out.is_empty() {
        let all = human::count(proof.attempts.len() as u64, "attempt");
        output::note(format!("{} {all}, each refused.", output::mark(true)));
        return Ok(());
    }
    let all = proof.attempts.len();
    Err(Failure::new(Exit::Other, format!("{} of {all} attempts succeeded: {}", out.len(), out.join("; ")))
        .help("the walls that are missing are shown above; a newer kernel, or `--allow-missing` left out, builds them"))
}
