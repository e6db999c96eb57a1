//! The OpenAI interface: `/v1/models`, `/v1/completions`, `/v1/chat/completions`, `/v1/embeddings`, `/health` and
//! `/metrics`.

mod access;
mod answers;
mod embeddings;
mod error;
mod fields;
mod format;
mod lanes;
mod logprobs;
mod messages;
mod proxy;
mod reply;
mod request;
mod stream;
mod tools;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use registry::admitted::Admitted;
use registry::digest::Digest;
use registry::reference::{Model, Version};
use registry::serving::Access;
use serde_json::{Value, json};

pub use access::Connection;
use access::{Active, Asked, Gatekeeper};
use answers::Answers;
pub use error::ApiError;
use format::Form;
use lanes::Adapted;
pub(crate) use lanes::WithAdapter;
pub(crate) use proxy::Upstream;
use reply::{Kind, Reply};
use request::{Input, Request};

use crate::engine::grammar::{Grammar, GrammarError, Grammars};
use crate::engine::{Engine, Failure, Job, Queue, Token};
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
    /// Made when the first answer is to be kept to a form.
    grammars: OnceLock<Option<Grammars>>,
}

impl Served {
    /// Makes grammars for this model. The first call takes long.
    fn grammars(&self) -> Result<&Grammars, GrammarError> {
        let make = || self.engine.words().and_then(|words| Grammars::new(words).ok());
        self.grammars.get_or_init(make).as_ref().ok_or(GrammarError::Unsupported)
    }
}

struct Inner {
    identity: Identity,
    name: String,
    queue: Arc<Queue>,
    halt: Halt,
    leash: OnceLock<Leash>,
    /// What goes with the model.
    adapters: OnceLock<Vec<Adapted>>,
    served: OnceLock<Arc<Served>>,
    /// The engine beside the worker, where it is not in it.
    upstream: OnceLock<Upstream>,
    gatekeeper: Gatekeeper,
    active: Arc<AtomicU32>,
    /// Requests at work for each key.
    by_key: Arc<Mutex<HashMap<u32, usize>>>,
    cut_off: AtomicU32,
}

/// What the handlers share, and whom a request is for: the model (0), or the adapter of this number.
#[derive(Clone)]
pub struct App(Arc<Inner>, u32);

impl App {
    /// Answers "loading" until [`App::loaded`].
    pub fn new(identity: Identity, queue: Arc<Queue>, halt: Halt) -> Self {
        let name = identity.model.to_string();
        let inner = Inner {
            identity,
            name,
            queue,
            halt,
            leash: OnceLock::new(),
            adapters: OnceLock::new(),
            served: OnceLock::new(),
            upstream: OnceLock::new(),
            gatekeeper: Gatekeeper::new(Access::default()),
            active: Arc::default(),
            by_key: Arc::default(),
            cut_off: AtomicU32::new(0),
        };
        Self(Arc::new(inner), 0)
    }

    /// From now on no request is answered after the end of the lease. Only the first call counts.
    pub fn leashed(&self, leash: Leash) {
        if self.0.leash.set(leash).is_err() {
            tracing::warn!("there is a lease already");
        }
    }

    /// From now on only those may ask.
    pub fn admit(&self, access: Access) {
        self.0.gatekeeper.change(access);
    }

    /// From now on requests are answered. Only the first call counts.
    pub fn loaded(&self, engine: Arc<dyn Engine>) {
        let prompter = Prompter::new(engine.card());
        let served = Served { engine, prompter, created: reply::now(), grammars: OnceLock::new() };
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
        let answers = Router::new()
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embed))
            .route("/metrics", get(metrics));
        self.around(answers)
    }

    /// What every engine's routes have beside those that answer.
    fn around(self, answers: Router<Self>) -> Router {
        answers
            .route("/health", get(health))
            .route("/v1/models", get(models))
            .route("/v1/models/{*id}", get(model))
            .fallback(|method: Method, uri: Uri| async move {
                ApiError::no_such_path(method.as_str(), uri.path())
            })
            .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
                ApiError::wrong_method(method.as_str(), uri.path())
            })
            .with_state(self)
    }

    /// What is served, unless it is recalled, its lease has ended, or it is not loaded yet.
    fn served(&self) -> Result<Arc<Served>, ApiError> {
        self.standing()?;
        self.0.served.get().cloned().ok_or_else(ApiError::loading)
    }

    /// Nothing, unless the model (or the adapter) is recalled or its lease has ended.
    fn standing(&self) -> Result<(), ApiError> {
        if let Some(leash) = self.0.leash.get() {
            leash.check(&self.0.halt);
        }
        if let Some(cause) = self.0.halt.cause().or_else(|| self.withdrawn()) {
            return Err(ApiError::halted(&cause, self.model()));
        }
        Ok(())
    }

    /// Gives a job to the engine.
    fn push(&self, mut job: Job) -> Result<(), ApiError> {
        self.mark(&mut job);
        self.0.queue.push(job).map_err(|error| {
            self.0.queue.metrics().refused();
            ApiError::refused(&error, self.model())
        })
    }

    fn halt(&self) -> &Halt {
        &self.0.halt
    }

    /// The error for a request that was cut off.
    fn cut_off_by(&self, failure: &Failure) -> ApiError {
        if matches!(failure, Failure::Halted(_)) {
            self.0.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        ApiError::failed(failure, self.model())
    }

    /// What is served, as the models' list shows it.
    fn shown(&self) -> Result<Value, ApiError> {
        if self.0.upstream.get().is_some() {
            return Ok(self.shown_upstream(self.upstream()?));
        }
        Ok(self.describe(&*self.served()?))
    }

    fn describe(&self, served: &Served) -> Value {
        let Identity { model, version, release } = self.identity();
        let card = served.engine.card();
        let base = (self.1 > 0).then_some(&self.0.identity);
        json!({
            "id": self.model(), "object": "model", "created": served.created, "owned_by": model.nation.as_str(),
            "steelyard": {
                "release": release, "version": version, "engine": card.engine, "context": card.context,
                "vocabulary": card.vocabulary, "embedding": card.embedding,
                "base": base.map(|base| base.release),
            },
            "parent": base.map(|base| base.model.to_string()),
        })
    }

    async fn answer(self, kind: Kind, asked: Asked, body: Body) -> Result<Response, ApiError> {
        let begun = Instant::now();
        // First, because a client that is still sending does not hear what is answered.
        let body = read_body(body).await?;
        self.served()?;
        let request = match kind {
            Kind::Completion => Request::completion(&body),
            Kind::Chat => Request::chat(&body),
        }?;
        drop(body);
        let app = self.chosen(request.model.as_deref())?;
        let served = app.served()?;
        if served.engine.card().embedding.is_some() {
            return Err(ApiError::wrong_purpose(app.model(), "makes embeddings and generates no text"));
        }
        let asked = asked.within(request.timeout, begun);
        let active = app.enter(asked.caller)?;
        let style = served.prompter.style();
        let finds_calls = !request.tools.told().is_empty();
        if finds_calls && style == crate::calls::Style::Unknown {
            return Err(ApiError::no_tools());
        }
        let wanted =
            stream::Wanted { include_usage: request.include_usage, likely: request.logprobs.is_some() };
        let (streams, asked_for) = (request.stream, request.clone());
        let prepared = prepare(Arc::clone(&served), request, Arc::clone(&active)).await?;
        let prompt_tokens = prepared.prompt.len();
        let events = app.ask(&served, asked_for, asked, prepared)?;
        let answers = Answers::new(events, finds_calls.then_some(style));
        let fingerprint = app.identity().release.short();
        let reply = Reply::new(kind, app.model(), &fingerprint, prompt_tokens);
        let adapter = app.with_adapter();
        let mut response = if streams {
            stream::respond(app, reply, answers, &wanted, active)
        } else {
            let (answers, usage) = answers.whole(&app, wanted.likely).await?;
            Json(reply.whole(answers, usage)).into_response()
        };
        // For the receipt.
        response.extensions_mut().insert(adapter);
        Ok(response)
    }

    /// Gives the engine a job for each answer that is wanted.
    fn ask(
        &self,
        served: &Served,
        request: Request,
        asked: Asked,
        prepared: Prepared,
    ) -> Result<Vec<tokio::sync::mpsc::Receiver<crate::engine::Event>>, ApiError> {
        let Prepared { prompt, grammar } = prepared;
        let Request { input, max_tokens, mut sampling, seeded, mut stops, bias, logprobs, choices, .. } =
            request;
        let vocabulary = served.engine.card().vocabulary;
        if let Some((token, _)) = bias.iter().find(|(token, _)| token.cast_unsigned() >= vocabulary) {
            let message = format!("there is no token {token}; the vocabulary has {vocabulary}");
            return Err(fields::wrong("logit_bias", message));
        }
        if let Input::Messages(_) = &input {
            stops.extend(served.prompter.stops());
        }
        if !seeded {
            sampling.seed = reply::random() as u32;
        }
        let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = served.engine.card().context.saturating_sub(length);
        let max_tokens = max_tokens.unwrap_or(room).min(room);
        let mut events = Vec::new();
        for choice in 0..choices {
            // Each answer is another one, and the same again for the same seed.
            let sampling = crate::engine::Sampling { seed: sampling.seed.wrapping_add(choice), ..sampling };
            let (mut job, answer) = Job::new(prompt.clone(), sampling, max_tokens, stops.clone());
            job.bias.clone_from(&bias);
            job.logprobs = logprobs;
            job.grammar = grammar.as_ref().map(Grammar::again);
            job.caller = asked.caller;
            job.deadline = Some(asked.deadline);
            self.push(job)?;
            events.push(answer);
        }
        Ok(events)
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

/// What a job is made of.
struct Prepared {
    prompt: Vec<Token>,
    grammar: Option<Grammar>,
}

/// Does `work` on a thread with a deep stack.
async fn on_deep_stack<T: Send + 'static>(
    active: Arc<Active>,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("tokeniser".to_owned()).stack_size(TOKENISER_STACK).spawn(
        move || {
            // A request whose asker has left counts until its thread ends.
            let _active = active;
            // The asker may have left.
            let _ = send.send(work());
        },
    );
    spawned.map_err(|error| ApiError::internal(format!("no thread for the prompt: {error}")))?;
    receive.await.unwrap_or_else(|_| Err(ApiError::internal("the prompt could not be tokenised")))
}

/// Renders and tokenises, and compiles what the answer must look like.
async fn prepare(served: Arc<Served>, request: Request, active: Arc<Active>) -> Result<Prepared, ApiError> {
    on_deep_stack(active, move || {
        let engine = served.engine.as_ref();
        let Request { input, form, tools, .. } = request;
        let grammar = match form {
            Form::Json(schema) => {
                let made = served.grammars().and_then(|grammars| grammars.json(schema));
                Some(made.map_err(|error| ApiError::form(&error, "response_format"))?)
            }
            Form::Text if tools.choice.must() => {
                let style = served.prompter.style();
                let made = served
                    .grammars()
                    .and_then(|grammars| style.grammar(grammars, &tools.tools, tools.choice, tools.parallel));
                made.map_err(|error| ApiError::form(&error, "tools"))?
            }
            Form::Text => None,
        };
        let prompt = match input {
            Input::Prompt(prompt) => served
                .prompter
                .completion(engine, &prompt)
                .map_err(|error| ApiError::prompt(&error, "prompt")),
            Input::Messages(messages) => served
                .prompter
                .chat(engine, messages, tools.told())
                .map_err(|error| ApiError::prompt(&error, "messages")),
        };
        Ok(Prepared { prompt: prompt?, grammar })
    })
    .await
}

async fn completions(State(app): State<App>, asked: Asked, body: Body) -> Result<Response, ApiError> {
    app.answer(Kind::Completion, asked, body).await
}

async fn chat(State(app): State<App>, asked: Asked, body: Body) -> Result<Response, ApiError> {
    app.answer(Kind::Chat, asked, body).await
}

async fn embed(State(app): State<App>, asked: Asked, body: Body) -> Result<Response, ApiError> {
    let body = read_body(body).await?;
    embeddings::answer(app, asked, &body).await
}

/// For Prometheus.
async fn metrics(State(app): State<App>, _: Asked) -> Response {
    let mut text = app.0.queue.metrics().text(app.0.queue.generated());
    text.push_str(&crate::engine::devices());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn models(State(app): State<App>, _: Asked) -> Result<Json<Value>, ApiError> {
    let mut data = vec![app.shown()?];
    for adapter in app.shown_adapters() {
        data.push(adapter.shown()?);
    }
    Ok(Json(json!({ "object": "list", "data": data })))
}

async fn model(State(app): State<App>, _: Asked, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    app.shown()?;
    Ok(Json(app.chosen(Some(&id))?.shown()?))
}

async fn health(State(app): State<App>) -> Response {
    let Identity { release, .. } = &app.0.identity;
    let ready = if app.0.upstream.get().is_some() { app.standing() } else { app.served().map(drop) };
    let (status, word) = match ready {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(error) => (error.status, error.code.unwrap_or("unavailable")),
    };
    let body = json!({
        "status": word, "model": app.model(), "release": release, "active_requests": app.active(),
        "lease": app.0.leash.get().and_then(Leash::describe), "adapters": app.adapters_health(),
    });
    (status, Json(body)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
