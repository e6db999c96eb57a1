//! Long jobs and live events as server-sent events.
//!
//! A job's stream carries `progress` events and ends with exactly one `done` or `error` (problem details). Whoever
//! closes the stream early cancels the job.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, PollNext, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Problem};
use crate::events::Event;

/// Progress events waiting for a slow reader; newer ones are dropped meanwhile, since each tells the whole state.
const WAITING: usize = 16;
/// A comment so often keeps proxies and readers from giving up on a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a job tells how far it is.
#[derive(Debug)]
pub(crate) struct Progress<T>(mpsc::Sender<T>);

impl<T> Clone for Progress<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Progress<T> {
    /// One that nobody listens to.
    pub(crate) fn unheard() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Tells the reader, unless it is behind; never blocks.
    pub(crate) fn tell(&self, state: T) {
        let _ = self.0.try_send(state);
    }
}

fn event(name: &str, data: &impl Serialize) -> Sent {
    Sent::default().event(name).json_data(data).unwrap_or_else(|error| {
        // Only maps with keys that are no strings can't be written, and no type here has one.
        Sent::default().event("error").data(error.to_string())
    })
}

fn answer(events: impl Stream<Item = Sent> + Send + 'static) -> Response {
    Sse::new(events.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// Runs `job` for as long as its reader reads.
pub(crate) fn job<P, D, F>(job: impl FnOnce(Progress<P>) -> F) -> Response
where
    P: Serialize + Send + 'static,
    D: Serialize + Send + 'static,
    F: Future<Output = Result<D, Problem>> + Send + 'static,
{
    let (tell, told) = mpsc::channel(WAITING);
    let end = job(Progress(tell));
    let progress = stream::unfold(told, |mut told: mpsc::Receiver<P>| async move {
        told.recv().await.map(|state| (event("progress", &state), told))
    });
    let end = stream::once(async move {
        match end.await {
            Ok(done) => event("done", &done),
            Err(problem) => event("error", &problem),
        }
    });
    // Progress told before the end is sent before it.
    answer(stream::select_with_strategy(progress, end, |(): &mut ()| PollNext::Left))
}

/// Sends what happens, as far as `wanted` lets it through, until the node stops. A reader that was too slow gets `lagged` with how many
/// events it missed.
pub(crate) fn events<F>(
    watched: broadcast::Receiver<Event>,
    wanted: impl Fn(Event) -> F + Send + Sync + 'static,
    stop: CancellationToken,
) -> Response
where
    F: Future<Output = Option<Event>> + Send + 'static,
{
    let events = stream::unfold((watched, wanted), |(mut watched, wanted)| async move {
        loop {
            match watched.recv().await {
                Ok(happened) => {
                    if let Some(happened) = wanted(happened).await {
                        return Some((event(happened.name(), &happened), (watched, wanted)));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let told = serde_json::json!({ "event": "lagged", "missed": missed });
                    return Some((event("lagged", &told), (watched, wanted)));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    answer(events.take_until(async move { stop.cancelled().await }))
}

/// Runs blocking work off the reactor. A panic in it becomes a problem for its caller alone.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "a blocking job failed");
            Err(Problem::new(Code::Internal, "a job inside the node failed; its log says more"))
        }
    }
}
