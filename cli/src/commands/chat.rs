//! `steelyard chat`: talk to a model that is served here, or serve it for as long as the talk takes.

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use node::api::types::WorkerInfo;
use registry::Reference;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::serve::{self, Interrupts};
use crate::ask;
use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, DIM, NAME, paint};

/// Talk to a model
///
/// Uses the worker that serves it already, or starts one for as long as the talk takes. With a PROMPT, or with text on
/// standard input, it answers once; on a terminal without either it is a conversation (Ctrl-D ends it, /reset begins anew).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard chat borea/smollm2
  steelyard chat borea/smollm2 'Why is the sky blue?' --temperature 0
  steelyard chat borea/smollm2 --key-file ~/key.txt 'And the sea?'
  cat notes.txt | steelyard chat borea/smollm2 --system 'Summarise in one sentence.'")]
pub(crate) struct Chat {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// What to ask [default: standard input]
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// How the model should behave
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0 always takes the likeliest token, 1 follows the model's own distribution
    #[arg(long, value_name = "T", value_parser = parse_temperature)]
    temperature: Option<f32>,
    /// A file that holds the key with which the worker is asked, where it wants one; only you may be able to read it
    #[arg(long, value_name = "FILE")]
    key_file: Option<std::path::PathBuf>,
    /// Compute threads, where a worker is started [default: one fewer than the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(value),
        _ => Err("a temperature is a number between 0 and 2".to_owned()),
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Serialize)]
struct Answer {
    model: String,
    release: registry::Digest,
    answer: String,
    pieces: usize,
    seconds: f64,
    finish_reason: Option<String>,
}

/// A worker to talk to.
struct Line<'a> {
    address: SocketAddr,
    ready: serve::Ready,
    options: &'a Chat,
    key: Option<Zeroizing<String>>,
}

impl Chat {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        // Before signals are taken: what is read here may take as long as its writer likes.
        let prompt = self.prompt()?;
        let key = self.key_file.as_deref().map(registry::key::read_passphrase).transpose()?;
        if context.json && prompt.is_none() {
            return Err(Failure::usage("--json is for one answer, not for a conversation")
                .help("give a PROMPT, or text on standard input"));
        }
        let mut interrupts = Interrupts::new()?;
        let talk = async {
            let client = Client::open(context, Need::Network).await?;
            Ok::<_, Failure>(client)
        };
        let client = tokio::select! {
            client = talk => client?,
            () = interrupts.next() => return Err(Failure::interrupted()),
        };
        let ended = self.connect_and_talk(context, &client, &mut interrupts, prompt, key).await;
        client.close().await;
        ended
    }

    /// The one question, unless it is a conversation.
    fn prompt(&self) -> Result<Option<String>, Failure> {
        if let Some(prompt) = &self.prompt {
            return Ok(Some(prompt.clone()));
        }
        if std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let mut text = String::new();
        std::io::stdin().lock().take(ask::MAX_LINE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > ask::MAX_LINE {
            return Err(Failure::usage(format!("the prompt is over {}", human::bytes(ask::MAX_LINE))));
        }
        if text.trim().is_empty() {
            return Err(
                Failure::usage("there is nothing to ask").help("give a PROMPT, or text on standard input")
            );
        }
        Ok(Some(text.trim_end().to_owned()))
    }

    async fn connect_and_talk(
        &self,
        context: &Context,
        client: &Client,
        interrupts: &mut Interrupts,
        prompt: Option<String>,
        key: Option<Zeroizing<String>>,
    ) -> Result<(), Failure> {
        let chosen = serve::Chosen { threads: self.threads, ..serve::Chosen::default() };
        let request = || serve::request(client, context, &self.reference, Some(serve::anywhere()), chosen);
        let ready = tokio::select! {
            ready = serve::ready_or_started(context, client, &self.reference, request) => ready?,
            () = interrupts.next() => return Err(Failure::interrupted()),
        };
        let (id, started) = (ready.worker.id, ready.started);
        let address = ready.worker.address;
        let address = address.ok_or_else(|| Failure::new(Exit::Other, "the worker has no address"))?;
        let line = Line { address, ready, options: self, key };
        let talked = match prompt {
            Some(prompt) => tokio::select! {
                answered = line.once(context, prompt) => answered,
                () = interrupts.next() => Err(Failure::interrupted()),
            },
            None => line.converse(interrupts).await,
        };
        let talked = match talked {
            Err(failure) => Err(explain(client, id, failure).await),
            good => good,
        };
        if started {
            // Gone already where it was recalled meanwhile.
            let _ = client.delete::<WorkerInfo>(&format!("/v1/workers/{id}")).await;
        }
        talked
    }
}

/// A broken answer of a worker that was stopped meanwhile has a better reason than a broken connection.
async fn explain(client: &Client, id: u64, failure: Failure) -> Failure {
    if failure.closed || failure.exit == Exit::Interrupted {
        return failure;
    }
    // The worker's last words reach us before the node has seen its end.
    for _ in 0..20 {
        let Ok(workers) = client.get::<Vec<WorkerInfo>>("/v1/workers").await else { return failure };
        let stop = workers.into_iter().find(|worker| worker.id == id).and_then(|worker| worker.stop);
        if let Some(stop) = stop {
            let at = format!("{} ({} after this node knew)", stop.at, human::millis(stop.took_ms));
            return Failure::new(Exit::Policy, format!("the worker was stopped at {at}: {}", stop.reason));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    failure
}

impl Line<'_> {
    async fn once(&self, context: &Context, prompt: String) -> Result<(), Failure> {
        let messages = self.opening(prompt);
        let started = Instant::now();
        let mut pieces = 0;
        let (answer, finish_reason) = self
            .ask(&messages, |piece| {
                pieces += 1;
                if context.json { Ok(()) } else { output::print(piece) }
            })
            .await?;
        if context.json {
            return output::json(&Answer {
                model: self.ready.model(),
                release: self.ready.release(),
                answer,
                pieces,
                seconds: started.elapsed().as_secs_f64(),
                finish_reason,
            });
        }
        output::line("")
    }

    fn opening(&self, prompt: String) -> Vec<Message> {
        let mut messages = self.system();
        messages.push(Message { role: "user".to_owned(), content: prompt });
        messages
    }

    fn system(&self) -> Vec<Message> {
        let system = self
            .options
            .system
            .iter()
            .map(|text| Message { role: "system".to_owned(), content: text.clone() });
        system.collect()
    }

    async fn converse(&self, interrupts: &mut Interrupts) -> Result<(), Failure> {
        let name = self.ready.name();
        output::note(format!(
            "{} {}",
            paint(NAME.bold(), name),
            paint(DIM, "— Ctrl-D ends, /reset begins anew, Ctrl-C stops an answer")
        ));
        let mut messages = self.system();
        loop {
            eprint_prompt();
            let line = tokio::select! {
                line = ask::line() => line?,
                () = interrupts.next() => None,
            };
            let Some(line) = line else {
                output::note("");
                return Ok(());
            };
            match line.trim() {
                "" => continue,
                "/exit" | "/quit" | "/bye" => return Ok(()),
                "/reset" => {
                    messages = self.system();
                    output::note(paint(DIM, "begun anew"));
                    continue;
                }
                text => messages.push(Message { role: "user".to_owned(), content: text.to_owned() }),
            }
            let started = Instant::now();
            let mut pieces = 0u32;
            let answered = tokio::select! {
                answered = self.ask(&messages, |piece| { pieces += 1; output::print(piece) }) => Some(answered?),
                () = interrupts.next() => None,
            };
            match answered {
                Some((answer, _)) => {
                    let rate = f64::from(pieces) / started.elapsed().as_secs_f64().max(0.001);
                    output::line("")?;
                    output::note(paint(DIM, format!("{pieces} tokens, {rate:.0} a second")));
                    messages.push(Message { role: "assistant".to_owned(), content: answer });
                }
                None => {
                    output::line("")?;
                    output::note(paint(DIM, "stopped"));
                    messages.pop();
                }
            }
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<node::client::http::Answer, Failure> {
        let key = self.key.as_deref().map(String::as_str);
        Ok(node::client::http::tcp(self.address, Method::POST, path, body, key).await?)
    }

    /// Asks, handing each piece to `take` as it comes; the whole answer and why it ended.
    async fn ask(
        &self,
        messages: &[Message],
        mut take: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(String, Option<String>), Failure> {
        let mut body = serde_json::json!({
            "model": self.ready.model(),
            "messages": messages,
            "stream": true,
            "max_tokens": self.options.max_tokens,
        });
        if let Some(temperature) = self.options.temperature {
            body["temperature"] = f64::from(temperature).into();
        }
        let body = serde_json::to_vec(&body).map_err(anyhow::Error::from)?;
        let answer = self.post("/v1/chat/completions", body).await?;
        if !answer.status.is_success() {
            let unknown = answer.status == hyper::StatusCode::UNAUTHORIZED;
            let text = answer.bytes().await?;
            let error: Value = serde_json::from_slice(&text).unwrap_or_default();
            let failure = api_failure(&error);
            return Err(if unknown {
                failure.help("name a file that holds a key with --key-file; `serve-key add` makes one")
            } else {
                failure
            });
        }
        let mut events = node::client::sse::Reader::new(answer.pieces);
        let (mut whole, mut finish) = (String::new(), None);
        while let Some(event) = events.next().await? {
            if event.data == "[DONE]" {
                return Ok((whole, finish));
            }
            let chunk: Value = serde_json::from_str(&event.data).map_err(anyhow::Error::from)?;
            if chunk.get("error").is_some() {
                return Err(api_failure(&chunk));
            }
            let choice = &chunk["choices"][0];
            if let Some(piece) = choice["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) {
                whole.push_str(piece);
                take(piece)?;
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                finish = Some(reason.to_owned());
            }
        }
        Err(Failure::new(Exit::Network, "the answer broke off"))
    }
}

/// The worker's error, in the shape that OpenAI gave such errors.
fn api_failure(body: &Value) -> Failure {
    let error = &body["error"];
    let exit = match error["code"].as_str() {
        Some("model_recalled") => Exit::Policy,
        Some("queue_full") => Exit::Busy,
        Some("context_length_exceeded") => Exit::Usage,
        _ => Exit::Other,
    };
    Failure::new(exit, error["message"].as_str().unwrap_or("the worker failed without saying why"))
}

fn eprint_prompt() {
    use std::io::Write;
    let mut err = anstream::stderr().lock();
    let _ = write!(err, "{} ", paint(NAME.bold(), ">"));
    let _ = err.flush();
}
