//! `/v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::access::{Active, Asked};
use super::answers::{Answers, Heard};
use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::{App, Served};
use crate::engine::{Job, Token};

/// Most texts of a request; each is computed for itself.
const MAX_INPUTS: usize = 512;

/// The body.
struct Request {
    model: Option<String>,
    inputs: Vec<String>,
    base64: bool,
    dimensions: Option<u32>,
}

fn read(body: &[u8]) -> Result<Request, ApiError> {
    let mut fields = Fields::parse(body)?;
    let inputs = match fields.required("input")? {
        Value::String(text) => vec![text],
        Value::Array(texts) if texts.len() <= MAX_INPUTS => texts
            .into_iter()
            .map(|text| match text {
                Value::String(text) => Ok(text),
                _ => Err(wrong("input", "tokens are not supported; send the texts")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong("input", format!("it is a text or an array of at most {MAX_INPUTS} texts"))),
    };
    if inputs.is_empty() {
        return Err(wrong("input", "the array is empty"));
    }
    let base64 = match fields.typed::<String>("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(wrong("encoding_format", "it is `float` or `base64`")),
    };
    let request =
        Request { model: fields.typed("model")?, inputs, base64, dimensions: fields.typed("dimensions")? };
    fields.raw("user");
    fields.nothing_left("")?;
    Ok(request)
}

/// Answers a request.
pub(super) async fn answer(app: App, asked: Asked, body: &[u8]) -> Result<Response, ApiError> {
    let Request { model, inputs, base64, dimensions } = read(body)?;
    let app = app.chosen(model.as_deref())?;
    let served = app.served()?;
    let Some(width) = served.engine.card().embedding else {
        return Err(ApiError::wrong_purpose(app.model(), "generates text and makes no embeddings"));
    };
    if dimensions.is_some_and(|wanted| wanted != width) {
        return Err(wrong("dimensions", format!("vectors of this model have {width} numbers; leave it out")));
    }
    let active = app.enter(asked.caller)?;
    let prompts = tokens(Arc::clone(&served), inputs, Arc::clone(&active)).await?;
    let mut data = Vec::with_capacity(prompts.len());
    let mut used = 0;
    for (index, prompt) in prompts.into_iter().enumerate() {
        used += prompt.len();
        let (mut job, events) = Job::embedding(prompt);
        job.caller = asked.caller;
        job.deadline = Some(asked.deadline);
        app.push(job)?;
        let vector = vector(&app, Answers::new(vec![events], None)).await?;
        let embedding = if base64 { json!(encode(&vector)) } else { json!(vector) };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    let usage = json!({ "prompt_tokens": used, "total_tokens": used });
    let body = json!({ "object": "list", "data": data, "model": app.model(), "usage": usage });
    Ok(Json(body).into_response())
}

async fn vector(app: &App, mut answers: Answers) -> Result<Vec<f32>, ApiError> {
    let mut vector = Vec::new();
    while let Some((_, heard)) = answers.next(app).await? {
        if let Heard::Embedding(came) = heard {
            vector = came;
        }
    }
    Ok(vector)
}

async fn tokens(
    served: Arc<Served>,
    inputs: Vec<String>,
    active: Arc<Active>,
) -> Result<Vec<Vec<Token>>, ApiError> {
    super::on_deep_stack(active, move || {
        let engine = served.engine.as_ref();
        let tokens = |text: &String| served.prompter.embedding(engine, text);
        inputs.iter().map(tokens).collect::<Result<_, _>>().map_err(|error| ApiError::prompt(&error, "input"))
    })
    .await
}

/// The numbers, little-endian, in base64: what OpenAI's client asks for.
fn encode(vector: &[f32]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = (bits >> (18 - 6 * place)) & 63;
            text.push(if place > group.len() { '=' } else { char::from(LETTERS[letter as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn base64_is_as_everybody_has_it() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(encode(&[1.0, -2.5, 0.1]), "AACAPwAAIMDNzMw9");
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        assert_eq!(
            read(br#"{"input":["a","b"],"encoding_format":"base64","user":"x"}"#).unwrap().inputs.len(),
            2
        );
        for (body, param) in [
            ("{}", "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":[1,2]}"#, "input"),
            (r#"{"input":[[1]]}"#, "input"),
            (r#"{"input":"a","encoding_format":"hex"}"#, "encoding_format"),
            (r#"{"input":"a","task":"x"}"#, "task"),
        ] {
            assert_eq!(read(body.as_bytes()).err().unwrap().param.as_deref(), Some(param), "{body}");
        }
    }
}
