//! The OpenAI interface: `/v1/models`, `/v1/completions`, `/v1/chat/completions`, and `/health`.

mod error;
mod messages;
mod reply;
mod request;
mod stream;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use registry::admitted::Admitted;
use registry::digest::Digest;
use registry::reference::{Model, Version};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use error::ApiError;
use reply::{Kind, Reply};
use request::{Input, Request};

use crate::engine::{Done, Engine, Event, Failure, Job, PushError, Queue, Token};
use crate::halt::Halt;
use crate::lease::Leash;
use crate::prompt::{Prompter, TOKENISER_STACK};

/// Largest request body, in bytes: more text than the longest contexts hold.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Of a larger body so many bytes are read and dropped, so that its sender gets to hear the answer.
const MAX_DISCARDED: usize = 16 * MAX_BODY;
/// Longest time for a request's body to arrive. 4 MiB take that long at 140 KB/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What is served.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The model; its text is the name in `/v1/models`.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// The release.
    pub release: Digest,
}

impl From<&Admitted> for Identity {
    fn from(admitted: &Admitted) -> Self {
        Self {
            model: admitted.model().clone(),
            version: admitted.version().clone(),
            release: admitted.release(),
        }
    }
}

/// A loaded model.
struct Served {
    engine: Arc<dyn Engine>,
    prompter: Prompter,
    created: i64,
}

struct Inner {
    identity: Identity,
    name: String,
    queue: Arc<Queue>,
    halt: Halt,
    leash: OnceLock<Leash>,
    served: OnceLock<Arc<Served>>,
    active: Arc<AtomicU32>,
    cut_off: AtomicU32,
}

/// What the handlers share.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// Counts a request for as long as it is answered.
struct Active(Arc<AtomicU32>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What comes of a job as long as it goes well.
enum Heard {
    Text(String),
    Done(Done),
}

impl App {
    /// Answers "loading" until [`App::loaded`].
    pub fn new(identity: Identity, queue: Arc<Queue>, halt: Halt) -> Self {
        let name = identity.model.to_string();
        Self(Arc::new(Inner {
            identity,
            name,
            queue,
            halt,
            leash: OnceLock::new(),
            served: OnceLock::new(),
            active: Arc::default(),
            cut_off: AtomicU32::new(0),
        }))
    }

    /// From now on no request is answered after the end of the lease. Only the first call counts.
    pub fn leashed(&self, leash: Leash) {
        if self.0.leash.set(leash).is_err() {
            tracing::warn!("there is a lease already");
        }
    }

    /// From now on requests are answered. Only the first call counts.
    pub fn loaded(&self, engine: Arc<dyn Engine>) {
        let prompter = Prompter::new(engine.card());
        let served = Served { engine, prompter, created: reply::now() };
        if self.0.served.set(Arc::new(served)).is_err() {
            tracing::warn!("a model is served already");
        }
    }

    /// Requests that are being answered, waiting ones included.
    pub fn active(&self) -> u32 {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Requests that were told that the worker stops, before their answer was complete.
    pub fn cut_off(&self) -> u32 {
        self.0.cut_off.load(Ordering::Relaxed)
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(health))
            .route("/v1/models", get(models))
            .route("/v1/models/{*id}", get(model))
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(chat))
            .fallback(|method: Method, uri: Uri| async move {
                ApiError::no_such_path(method.as_str(), uri.path())
            })
            .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
                ApiError::wrong_method(method.as_str(), uri.path())
            })
            .with_state(self)
    }

    fn model(&self) -> &str {
        &self.0.name
    }

    /// What is served, unless it is recalled, its lease has ended, or it is not loaded yet.
    fn served(&self) -> Result<Arc<Served>, ApiError> {
        if let Some(leash) = self.0.leash.get() {
            leash.check(&self.0.halt);
        }
        if let Some(cause) = self.0.halt.cause() {
            return Err(ApiError::halted(&cause, self.model()));
        }
        self.0.served.get().cloned().ok_or_else(ApiError::loading)
    }

    /// Whether `asked` names what is served: by name, with its version, or by the release's digest.
    fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        let Identity { model, version, release } = &self.0.identity;
        match asked {
            None => Ok(()),
            Some(asked) if asked == self.model() => Ok(()),
            Some(asked) if asked == format!("{model}@{version}") || asked == release.to_string() => Ok(()),
            Some(asked) => {
                let asked: String = asked.chars().take(200).collect();
                Err(ApiError::no_such_model(&asked, self.model()))
            }
        }
    }

    /// Counts a request, unless there are too many already.
    fn enter(&self) -> Result<Arc<Active>, ApiError> {
        let before = self.0.active.fetch_add(1, Ordering::Relaxed);
        let active = Arc::new(Active(Arc::clone(&self.0.active)));
        let limit = self.0.queue.limit();
        if usize::try_from(before).is_ok_and(|before| before < limit) {
            Ok(active)
        } else {
            Err(ApiError::refused(&PushError::Full { limit }, self.model()))
        }
    }

    fn describe(&self, served: &Served) -> Value {
        let Identity { model, version, release } = &self.0.identity;
        let card = served.engine.card();
        json!({
            "id": self.model(), "object": "model", "created": served.created, "owned_by": model.nation.as_str(),
            "steelyard": {
                "release": release, "version": version, "engine": card.engine, "context": card.context,
                "vocabulary": card.vocabulary,
            },
        })
    }

    /// The job's next event, or the order to stop, whichever comes first: an engine in the middle of a long
    /// prompt hears the order later than the asker should.
    async fn next(&self, events: &mut mpsc::Receiver<Event>) -> Result<Heard, ApiError> {
        let event = tokio::select! {
            biased;
            cause = self.0.halt.wait() => Some(Event::Failed(Failure::Halted(cause))),
            event = events.recv() => event,
        };
        match event {
            Some(Event::Text(text)) => Ok(Heard::Text(text)),
            Some(Event::Done(done)) => Ok(Heard::Done(done)),
            None => Err(ApiError::internal("the engine ended without an answer")),
            Some(Event::Failed(failure)) => {
                if matches!(failure, Failure::Halted(_)) {
                    self.0.cut_off.fetch_add(1, Ordering::Relaxed);
                }
                Err(ApiError::failed(&failure, self.model()))
            }
        }
    }

    async fn answer(self, kind: Kind, body: Body) -> Result<Response, ApiError> {
        // First, because a client that is still sending does not hear what is answered.
        let body = read_body(body).await?;
        self.served()?;
        let request = match kind {
            Kind::Completion => Request::completion(&body),
            Kind::Chat => Request::chat(&body),
        }?;
        drop(body);
        self.check_model(request.model.as_deref())?;
        let served = self.served()?;
        let active = self.enter()?;
        let Request { input, max_tokens, mut sampling, seeded, mut stops, stream, include_usage, .. } =
            request;
        if let Input::Messages(_) = &input {
            stops.extend(served.prompter.stops());
        }
        let prompt = tokenise(Arc::clone(&served), input, Arc::clone(&active)).await?;
        if !seeded {
            sampling.seed = reply::random() as u32;
        }
        let prompt_tokens = prompt.len();
        let room =
            served.engine.card().context.saturating_sub(u32::try_from(prompt_tokens).unwrap_or(u32::MAX));
        let max_tokens = max_tokens.unwrap_or(room).min(room);
        let (job, mut events) = Job::new(prompt, sampling, max_tokens, stops);
        self.0.queue.push(job).map_err(|error| ApiError::refused(&error, self.model()))?;
        let fingerprint = self.0.identity.release.short();
        let reply = Reply::new(kind, self.model(), &fingerprint, prompt_tokens);
        if stream {
            return Ok(stream::respond(self, reply, events, include_usage, active));
        }
        let mut text = String::new();
        loop {
            match self.next(&mut events).await? {
                Heard::Text(more) => text.push_str(&more),
                Heard::Done(done) => return Ok(Json(reply.whole(&text, &done)).into_response()),
            }
        }
    }
}

async fn read_body(body: Body) -> Result<Vec<u8>, ApiError> {
    let read = async {
        let mut bytes = Vec::new();
        let mut total = 0;
        let mut stream = body.into_data_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| {
                ApiError::invalid(None, None, format!("The request's body could not be read: {error}"))
            })?;
            total += part.len();
            if total > MAX_DISCARDED {
                break;
            }
            if total <= MAX_BODY {
                bytes.extend_from_slice(&part);
            }
        }
        if total > MAX_BODY { Err(ApiError::too_large(MAX_BODY)) } else { Ok(bytes) }
    };
    let late = || ApiError::too_slow(BODY_TIMEOUT.as_secs());
    tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
}

/// Renders and tokenises on a thread with a deep stack.
async fn tokenise(served: Arc<Served>, input: Input, active: Arc<Active>) -> Result<Vec<Token>, ApiError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("tokeniser".to_owned()).stack_size(TOKENISER_STACK).spawn(
        move || {
            // A request whose asker has left counts until its thread ends.
            let _active = active;
            let engine = served.engine.as_ref();
            let tokens = match input {
                Input::Prompt(prompt) => served
                    .prompter
                    .completion(engine, &prompt)
                    .map_err(|error| ApiError::prompt(&error, "prompt")),
                Input::Messages(messages) => served
                    .prompter
                    .chat(engine, messages)
                    .map_err(|error| ApiError::prompt(&error, "messages")),
            };
            // The asker may have left.
            let _ = send.send(tokens);
        },
    );
    spawned.map_err(|error| ApiError::internal(format!("no thread for the prompt: {error}")))?;
    receive.await.unwrap_or_else(|_| Err(ApiError::internal("the prompt could not be tokenised")))
}

async fn completions(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    app.answer(Kind::Completion, body).await
}

async fn chat(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    app.answer(Kind::Chat, body).await
}

async fn models(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    Ok(Json(json!({ "object": "list", "data": [app.describe(&served)] })))
}

async fn model(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let served = app.served()?;
    app.check_model(Some(&id))?;
    Ok(Json(app.describe(&served)))
}

async fn health(State(app): State<App>) -> Response {
    let Identity { release, .. } = &app.0.identity;
    let (status, word) = match app.served() {
        Ok(_) => (StatusCode::OK, "ok"),
        Err(error) => (error.status, error.code.unwrap_or("unavailable")),
    };
    let body = json!({
        "status": word, "model": app.model(), "release": release, "active_requests": app.active(),
        "lease": app.0.leash.get().and_then(Leash::describe),
    });
    (status, Json(body)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
