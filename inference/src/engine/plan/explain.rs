//! Why an engine, said aloud: `steelyard serve --explain`.

use std::fs::File;
use std::io;

use registry::admitted::AdmittedFile;
use registry::serving::{EngineName, Options, Vllm};
use serde::Serialize;

use super::memory::{Source, check, estimate};
use super::{Memory, Plan, candle};
use crate::engine::{gpu, threads};
use crate::gate;
use crate::halt::Halt;

/// What became of an engine that was considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It serves the release.
    Chosen,
    /// It could, but another was chosen.
    Possible,
    /// It can't.
    Impossible,
}

/// An engine that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Which.
    pub engine: EngineName,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// What it needs, where that could be reckoned.
    pub memory: Option<Memory>,
}

/// Which engine would serve a release, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The engine that would serve it, if any can.
    pub engine: Option<EngineName>,
    /// All of them.
    pub engines: Vec<Considered>,
    /// Bytes of memory that this machine has to give, where it says so.
    pub available: Option<u64>,
    /// What the computing runs on.
    pub hardware: String,
}

impl Explanation {
    /// The engine that would serve it.
    pub fn chosen(&self) -> Option<&Considered> {
        self.engines.iter().find(|one| one.verdict == Verdict::Chosen)
    }
}

/// Considers every engine for the files of the release called `name`, which must be here. The weights' headers are read as
/// they are on disk; the worker hashes everything before it serves.
///
/// `vllm` is the one that the operator named, if any.
pub fn explain(
    name: &str,
    files: &[AdmittedFile],
    options: &Options,
    available: Option<u64>,
    vllm: Option<&Vllm>,
) -> Explanation {
    let mut engine = None;
    let mut engines = Vec::new();
    for candidate in EngineName::EMBEDDED {
        let (result, memory) = consider(candidate, name, files, options, available);
        let insisted = options.engine.is_some_and(|asked| asked != candidate);
        let (verdict, reason) = match result {
            Err(reason) => (Verdict::Impossible, reason),
            Ok(reason) if insisted => (Verdict::Possible, format!("{reason}; another was asked for")),
            Ok(reason) => match engine {
                None => {
                    engine = Some(candidate);
                    (Verdict::Chosen, reason)
                }
                Some(first) => (Verdict::Possible, format!("{reason}; {first} goes first, being the faster")),
            },
        };
        engines.push(Considered { engine: candidate, verdict, reason, memory });
    }
    if options.engine == Some(EngineName::Vllm) || vllm.is_some() {
        let (verdict, reason) = match crate::vllm::chosen(name, files, options.engine, vllm) {
            Ok(reason) => {
                // It goes before the others where it is for it.
                for one in engines.iter_mut().filter(|one| one.verdict == Verdict::Chosen) {
                    *one = Considered {
                        verdict: Verdict::Possible,
                        reason: format!("{}; vllm goes first", one.reason),
                        ..one.clone()
                    };
                }
                engine = Some(EngineName::Vllm);
                (Verdict::Chosen, reason)
            }
            Err(reason) => (Verdict::Impossible, reason),
        };
        engines.push(Considered { engine: EngineName::Vllm, verdict, reason, memory: None });
    }
    Explanation { engine, engines, available, hardware: hardware(options) }
}

/// Whether one engine can, why, and what it needs.
fn consider(
    engine: EngineName,
    name: &str,
    files: &[AdmittedFile],
    options: &Options,
    available: Option<u64>,
) -> (Result<String, String>, Option<Memory>) {
    let plan = match Plan::with(engine, name, files) {
        Ok(plan) => plan,
        Err(reason) => return (Err(reason), None),
    };
    let memory = match estimate(&plan, options, &open) {
        Ok(memory) => memory,
        Err(error) => return (Err(error.to_string()), None),
    };
    match check(memory, options, plan.memory_from(available)) {
        Err(error) => (Err(error.to_string()), Some(memory)),
        Ok(()) => (Ok(why(&plan)), Some(memory)),
    }
}

fn why(plan: &Plan<'_>) -> String {
    match plan {
        Plan::Llama { weights } => format!("`{}` is the release's one GGUF file", weights.path),
        Plan::Candle { files } | Plan::Vllm { files } => {
            let weights = files.iter().filter(|file| candle::is_weights(&file.path)).count();
            let plural = if weights == 1 { "" } else { "s" };
            format!("{weights} safetensors file{plural} of an architecture on its list")
        }
    }
}

/// Small files are hashed before they are believed; of weights only the header is read.
fn open(file: &AdmittedFile) -> io::Result<Box<dyn Source>> {
    if candle::is_weights(&file.path) || file.path.to_ascii_lowercase().ends_with(".gguf") {
        return Ok(Box::new(File::open(&file.location)?));
    }
    let verified = gate::open(file, &|_| {}, &Halt::default()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    let mut reader = verified.reader();
    io::Seek::rewind(&mut reader)?;
    io::Read::read_to_end(&mut io::Read::take(reader, file.size), &mut bytes)?;
    Ok(Box::new(io::Cursor::new(bytes)))
}

fn hardware(options: &Options) -> String {
    let threads = threads(options);
    let plural = if threads == 1 { "" } else { "s" };
    let llama = if cfg!(feature = "cuda-llama") { ", llama.cpp too" } else { "; llama.cpp on the CPU" };
    match gpu::driver() {
        Ok(()) => format!("the first GPU of the driver for candle{llama}; {threads} thread{plural}"),
        Err(why) => format!("{threads} thread{plural} on the CPU; {why}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::candle::golden;
    use crate::tiny::Scratch;

    /// A small Llama in safetensors, and with `gguf` a GGUF file beside it.
    fn files(scratch: &Scratch, gguf: bool) -> Vec<AdmittedFile> {
        let folder = golden::root();
        let mut files: Vec<_> = ["config.json", "model.safetensors"]
            .map(|name| golden::admitted(name, &folder.join("llama").join(name)))
            .into();
        files.push(golden::admitted("tokenizer.json", &folder.join("tokenizer.json")));
        if gguf {
            files.push(golden::admitted("tiny.gguf", &scratch.file("tiny.gguf", &crate::tiny::gguf(None))));
        }
        files
    }

    fn verdicts(explanation: &Explanation) -> Vec<Verdict> {
        explanation.engines.iter().map(|one| one.verdict).collect()
    }

    #[test]
    fn each_engine_is_told_with_its_reason_and_its_need() {
        let scratch = Scratch::new();
        let both = files(&scratch, true);
        let plenty = Some(u64::MAX);
        let explained = explain("alba/tiny", &both, &Options::default(), plenty, None);
        assert_eq!(verdicts(&explained), [Verdict::Chosen, Verdict::Possible]);
        assert_eq!(explained.engine, Some(EngineName::LlamaCpp));
        assert!(explained.engines.iter().all(|one| one.memory.is_some_and(|memory| memory.context > 0)));
        let asked = Options { engine: Some(EngineName::Candle), ..Options::default() };
        let explained = explain("alba/tiny", &both, &asked, plenty, None);
        assert_eq!(verdicts(&explained), [Verdict::Possible, Verdict::Chosen]);
        let explained = explain("alba/tiny", &files(&scratch, false), &Options::default(), None, None);
        assert_eq!(verdicts(&explained), [Verdict::Impossible, Verdict::Chosen]);
        assert!(explained.engines.first().unwrap().reason.contains("no .gguf file"));
        serde_json::to_string(&explained).unwrap();
    }

    #[test]
    fn what_can_not_fit_is_refused_with_what_it_needs() {
        let scratch = Scratch::new();
        let explained =
            explain("alba/tiny", &files(&scratch, true), &Options::default(), Some(1024 * 1024), None);
        assert_eq!(verdicts(&explained), [Verdict::Impossible, Verdict::Impossible]);
        assert!(explained.chosen().is_none());
        let reason = &explained.engines.first().unwrap().reason;
        assert!(reason.contains("1 MiB") && reason.contains("--context"), "{reason}");
    }

    #[test]
    fn an_architecture_off_the_list_and_a_changed_file_are_told_before_loading() {
        let scratch = Scratch::new();
        let config = std::fs::read_to_string(golden::root().join("llama/config.json")).unwrap();
        let mut odd = files(&scratch, false);
        let path =
            scratch.file("config.json", config.replace("LlamaForCausalLM", "PhiForCausalLM").as_bytes());
        odd[0] = golden::admitted("config.json", &path);
        let explained = explain("alba/tiny", &odd, &Options::default(), None, None);
        let reason = &explained.engines.last().unwrap().reason;
        assert!(reason.contains("PhiForCausalLM") && reason.contains("Qwen3ForCausalLM"), "{reason}");
        std::fs::write(&path, config).unwrap();
        let explained = explain("alba/tiny", &odd, &Options::default(), None, None);
        assert!(explained.engines.last().unwrap().reason.contains("not what was admitted"));
    }
}
