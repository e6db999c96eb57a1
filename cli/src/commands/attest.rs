//! `steelyard attest`: say what this nation found out about a release.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use node::api::types::{ReleaseDetail, Resolved, Status};
use registry::digest::FileHasher;
use registry::statement::{Attestation, MAX_RESULTS, Measure, RoleName, Statement, Suite, Verdict};
use registry::timestamp::DAY;
use registry::{Digest, Nation, Reference, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::publish::sign_and_send;
use super::sign;
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::keys::{self, Signing};
use crate::output::{self, BOLD, NAME, paint};

/// Largest file of results: the most results of the longest names and values.
const MAX_FILE: u64 = 1024 * 1024;
/// Longest validity, in days: a model that nobody looked at for ten years is vouched for by nobody.
const MAX_DAYS: u32 = 3650;

/// Attest what your nation found out about a release: an evaluation, a red-team result
///
/// Signs the finding with your nation's attest key and tells the allies who may have the release. Their policies may ask
/// for it: that two nations vouch, that none advises against it. A later attestation with the same suite replaces the
/// earlier one, so that a verdict can be changed; each ends by itself. A nation's own releases can be attested too, but a
/// producer's own pass counts for nobody.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard attest alba/smollm2 --suite mmlu --verdict pass --results mmlu.json
  steelyard attest alba/smollm2@1.0.0 --suite red-team/2026-11 --verdict fail --summary 'gives away its system prompt'

Results are a JSON object of names and values, such as {\"accuracy\": 0.713, \"tasks\": 57}.")]
pub(crate) struct Attest {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// What was run, such as mmlu or red-team/2026-11
    #[arg(long, value_name = "NAME")]
    suite: String,
    /// What your nation makes of it
    #[arg(long, value_name = "VERDICT")]
    verdict: Word,
    /// What came out: a JSON file of names and values
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// In words, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    summary: String,
    /// The file that was run; its digest is attested
    #[arg(long, value_name = "FILE")]
    suite_file: Option<PathBuf>,
    /// Days until it counts no more
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    valid_days: u32,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Word {
    Pass,
    Fail,
    Inconclusive,
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Pass => Self::Pass,
            Word::Fail => Self::Fail,
            Word::Inconclusive => Self::Inconclusive,
        }
    }
}

#[derive(Serialize)]
struct Attested {
    attestation: Digest,
    release: Digest,
    nation: Nation,
    suite: Suite,
    verdict: Verdict,
    results: Vec<Measure>,
    summary: String,
    issued: Timestamp,
    valid_until: Timestamp,
    announced: bool,
}

impl Attest {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let results = self.results.as_deref().map(read_results).transpose()?.unwrap_or_default();
        let digest = self.suite_file.as_deref().map(hash).transpose()?;
        let client = Client::open(context, Need::Folder).await?;
        let attested = self.attest(context, &client, results, digest).await;
        client.close().await;
        let Some((attested, name)) = attested? else { return Ok(()) };
        if context.json {
            return output::json(&attested);
        }
        output::line(format!(
            "{} {} attests {} for {}.",
            output::mark(true),
            paint(NAME, &attested.nation),
            paint(BOLD, attested.verdict),
            paint(NAME.bold(), name)
        ))?;
        output::print(&output::facts(&[
            ("suite", attested.suite.name.clone()),
            ("results", human::count(attested.results.len() as u64, "result")),
            ("valid until", attested.valid_until.to_string()),
            ("attestation", attested.attestation.to_string()),
        ]))?;
        if !attested.announced {
            let command = paint(BOLD, format!("{} node", context.command()));
            output::note(format!("\nNo node is running here. Allies learn of it once one does: {command}"));
        }
        Ok(())
    }

    async fn attest(
        &self,
        context: &Context,
        client: &Client,
        results: Vec<Measure>,
        digest: Option<Digest>,
    ) -> Result<Option<(Attested, String)>, Failure> {
        let key = match self.signing.draft {
            Some(_) => None,
            None => Some(keys::load(context, client, self.signing.keys.as_ref(), RoleName::Attest).await?),
        };
        let resolved: Resolved =
            client.get(&format!("/v1/resolve?ref={}", segment(&self.reference.to_string()))).await?;
        let status: Status = client.get("/v1/status").await?;
        let issued = self.after_the_last(client, &resolved.release, &status.nation).await?;
        let attestation = Attestation {
            nation: status.nation.clone(),
            release: resolved.release,
            suite: Suite { name: self.suite.clone(), digest },
            results,
            verdict: self.verdict.into(),
            summary: self.summary.clone(),
            issued,
            valid_until: issued.plus(i64::from(self.valid_days) * DAY),
        };
        let statement = Statement::Attestation(attestation.clone());
        let key = match (&key, &self.signing.draft) {
            (Some(key), _) => key,
            (None, Some(file)) => {
                sign::write_draft(context, vec![statement], file)?;
                return Ok(None);
            }
            (None, None) => return Err(Failure::usage("neither a key nor --draft")),
        };
        let accepted = sign_and_send(client, statement, key).await?;
        let attested = Attested {
            attestation: accepted.digest,
            release: resolved.release,
            nation: status.nation,
            suite: attestation.suite,
            verdict: attestation.verdict,
            results: attestation.results,
            summary: attestation.summary,
            issued,
            valid_until: attestation.valid_until,
            announced: client.is_running(),
        };
        Ok(Some((attested, format!("{}@{}", resolved.model, resolved.version))))
    }
}

impl Attest {
    /// Now, or a second after what this attestation replaces: of two of the same second the more cautious would count.
    async fn after_the_last(
        &self,
        client: &Client,
        release: &Digest,
        own: &Nation,
    ) -> Result<Timestamp, Failure> {
        let detail: ReleaseDetail = client.get(&format!("/v1/releases/{release}")).await?;
        let last = detail.attestations.iter().find(|it| it.nation == *own && it.suite.name == self.suite);
        let now = Timestamp::now();
        Ok(last.map_or(now, |last| now.max(last.issued.plus(1))))
    }
}

/// Reads names and values. A number keeps its digits as they were written: they are part of what is signed.
fn read_results(path: &Path) -> Result<Vec<Measure>, Failure> {
    let failed =
        |why: &dyn std::fmt::Display| Failure::usage(format!("the results {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(&format!("more than {MAX_FILE} bytes")));
    }
    parse_results(&text).map_err(|why| {
        let help = "a JSON object is expected, such as {\"accuracy\": 0.713}; nested results get names such as \"mmlu/law\"";
        failed(&why).help(help)
    })
}

fn parse_results(text: &str) -> Result<Vec<Measure>, String> {
    let values: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    if values.len() > MAX_RESULTS {
        return Err(format!("more than {MAX_RESULTS} results"));
    }
    let measure = |(name, raw): (String, Box<RawValue>)| match serde_json::from_str(raw.get()) {
        Ok(serde_json::Value::String(value)) => Ok(Measure { name, value }),
        Ok(serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => {
            Ok(Measure { name, value: raw.get().to_owned() })
        }
        _ => Err(format!("`{name}` is no number, text, true or false")),
    };
    values.into_iter().map(measure).collect()
}

fn hash(path: &Path) -> Result<Digest, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("the suite {}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = FileHasher::default();
    let mut block = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hasher.finish().blake3),
            n => hasher.update(block.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let results = parse_results(r#"{"b": 0.7130, "a": "high", "c": true}"#).unwrap();
        let results: Vec<_> = results.into_iter().map(|m| (m.name, m.value)).collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(results, [pair("a", "high"), pair("b", "0.7130"), pair("c", "true")]);
        for broken in ["[]", "{\"a\": [1]}", "{\"a\": null}", "{\"a\": {}}", "{"] {
            assert!(parse_results(broken).is_err(), "{broken}");
        }
    }
}
