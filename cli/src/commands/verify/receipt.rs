//! `steelyard verify --receipt`: what a node said of an answer, and whether it did.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use node::api::types::ReceiptRequest;
use registry::receipt::{Claim, EVENT, MAX_RECEIPT};

use super::Verify;
use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, DIM, NAME, paint};

/// Largest file that is read: more than any answer of the longest contexts.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// The header that carries a receipt.
const HEADER: &str = "steelyard-receipt:";

impl Verify {
    /// Judges the receipt, and whether it is about the bodies that were given.
    pub(super) async fn judge_receipt(&self, context: &Context) -> Result<(), Failure> {
        let path = self.receipt.as_deref().unwrap_or(Path::new(""));
        let receipt = find(&read(path)?).ok_or_else(|| {
            Failure::new(Exit::Verification, format!("{} holds no receipt", path.display()))
        })?;
        let client = Client::open(context, Need::Folder).await?;
        let claim: Result<Claim, Failure> = client.post("/v1/receipts", &ReceiptRequest { receipt }).await;
        client.close().await;
        let claim = claim?;
        let other = |error: registry::receipt::ReceiptError| Failure::new(Exit::Verification, error);
        if let Some(request) = &self.request {
            claim.is_of_request(&read(request)?).map_err(other)?;
        }
        if let Some(response) = &self.response {
            claim.is_of_response(&read(response)?).map_err(other)?;
        }
        if context.json { output::json(&claim) } else { self.report(&claim) }
    }

    fn report(&self, claim: &Claim) -> Result<(), Failure> {
        output::line(format!(
            "{} {} claims that its node answered with {} at {}.",
            output::mark(true),
            paint(NAME.bold(), &claim.nation),
            paint(NAME.bold(), format!("{}@{}", claim.model, claim.version)),
            claim.issued,
        ))?;
        let sampling: Vec<String> =
            claim.sampling.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let lease = claim.lease_ends.map_or_else(|| "none".to_owned(), |ends| format!("until {ends}"));
        let compared = |given: bool| if given { "as given" } else { "not compared" };
        let adapter = claim.adapter.as_ref().map_or_else(
            || "none".to_owned(),
            |adapter| format!("{}@{}, {}", adapter.model, adapter.version, adapter.release),
        );
        for (name, value) in [
            ("release", claim.release.to_string()),
            ("adapter", adapter),
            ("node", claim.node.clone()),
            ("engine", claim.engine.clone()),
            ("sampling", if sampling.is_empty() { "not said".to_owned() } else { sampling.join(", ") }),
            ("lease", lease),
            ("request", format!("{} ({})", claim.request, compared(self.request.is_some()))),
            ("response", format!("{} ({})", claim.response, compared(self.response.is_some()))),
        ] {
            output::line(format!("  {} {value}", paint(DIM, format!("{name:<9}"))))?;
        }
        output::line(paint(
            DIM,
            "It is the node's word, signed by the node and vouched for by its nation; it proves nothing beyond that.",
        ))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Other };
        Failure::new(exit, format!("{}: {error}", path.display()))
    };
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE {
        return Err(Failure::usage(format!("{} is longer than any answer", path.display())));
    }
    Ok(content)
}

/// The receipt in a file: the file itself, the value of a header, or what the last event of a stream carries.
fn find(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    if text.trim_start().starts_with('{') && text.len() <= MAX_RECEIPT {
        return Some(text.into_owned());
    }
    let header = |line: &str| {
        let (name, value) = line.split_at_checked(HEADER.len())?;
        name.eq_ignore_ascii_case(HEADER).then(|| value.trim().to_owned())
    };
    if let Some(value) = text.lines().find_map(header) {
        return Some(value);
    }
    // The event is an object whose first value is the receipt.
    let event = text.lines().rev().find_map(|line| line.strip_prefix(EVENT))?;
    let mut values = serde_json::Deserializer::from_str(event).into_iter::<&serde_json::value::RawValue>();
    values.next()?.ok().map(|receipt| receipt.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_found_wherever_it_came() {
        let receipt = r#"{"receipt":{},"certificate":[]}"#;
        let head = format!("HTTP/1.1 200 OK\r\nSteelyard-Receipt: {receipt}\r\ncontent-length: 2\r\n\r\n");
        let stream = format!("data: {{}}\n\n{EVENT}{receipt},\"choices\":[]}}\n\ndata: [DONE]\n\n");
        for content in [receipt, &head, &stream] {
            assert_eq!(find(content.as_bytes()).as_deref(), Some(receipt), "{content}");
        }
        assert_eq!(find(b"data: [DONE]\n\n"), None);
    }
}
