//! What `transformers` says, against what is computed here: see `inference/tests/golden/README.md`.

use std::path::{Path, PathBuf};

use registry::admitted::AdmittedFile;
use registry::digest::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::decoder::Part;
use super::*;
use crate::engine::AdapterFiles;
use crate::gate::{self, VerifiedFile};

/// How far a logit may be from the reference's, both computed in F32. Logits have a spread of some ten here, and another
/// order of additions makes differences of about 1e-5.
const LOGIT_TOLERANCE: f32 = 5e-4;
/// How far a value of a vector of length 1 may be from the reference's.
const VECTOR_TOLERANCE: f32 = 2e-5;

/// The files of `folder` and those that all small models share, hashed and opened.
pub(super) fn open(folder: &Path) -> Vec<VerifiedFile> {
    let mut files = Vec::new();
    let shared = [files::TOKENIZER, files::TOKENIZER_CONFIG].map(|name| (name.to_owned(), root().join(name)));
    let own = ["", "1_Pooling/"].into_iter().flat_map(|inside| {
        let entries = std::fs::read_dir(folder.join(inside)).into_iter().flatten().flatten();
        entries.map(move |entry| (format!("{inside}{}", entry.file_name().to_string_lossy()), entry.path()))
    });
    for (name, path) in own.chain(shared) {
        if path.is_file() && files.iter().all(|file: &AdmittedFile| file.path != name) {
            files.push(admitted(&name, &path));
        }
    }
    let wanted = wanted(&files).unwrap();
    gate::open_all(&wanted, &|_| {}, &Halt::default()).unwrap()
}

pub(crate) fn admitted(name: &str, path: &Path) -> AdmittedFile {
    let content = std::fs::read(path).unwrap();
    AdmittedFile {
        path: name.to_owned(),
        blob: Digest::of(&content),
        size: content.len() as u64,
        media_type: "application/octet-stream".to_owned(),
        chunk_map: Digest::of(b"no map is read here"),
        location: path.to_owned(),
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(super) fn load(folder: &Path) -> Result<Candle, EngineError> {
    Candle::load(open(folder).into(), &Options::default(), &Halt::default())
}

/// The model in `folder` with the adapters in those folders.
pub(super) fn load_with(folder: &Path, adapters: &[&Path]) -> Result<Candle, EngineError> {
    let adapters = adapters.iter().map(|folder| {
        let files = ["adapter_config.json", "adapter_model.safetensors"];
        let files = files.map(|name| admitted(name, &folder.join(name)));
        let wanted = adapter_files(&files).unwrap();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        AdapterFiles { name, files: gate::open_all(&wanted, &|_| {}, &Halt::default()).unwrap() }
    });
    let files = Files { model: open(folder), adapters: adapters.collect() };
    Candle::load(files, &Options::default(), &Halt::default())
}

fn speaker(candle: &Candle) -> &Speaker {
    let Model::Speaker(speaker) = &candle.model else { panic!("it generates no text") };
    speaker
}

#[derive(Deserialize)]
struct Golden {
    #[serde(default)]
    architecture: String,
    /// The model, of an adapter.
    #[serde(default)]
    base: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    margin: f32,
    logits: Vec<Vec<f32>>,
    #[serde(default = "one")]
    every: usize,
}

fn one() -> usize {
    1
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == best).unwrap() as u32
}

fn far(found: &[f32], wanted: &[f32]) -> f32 {
    found.iter().zip(wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f32::max)
}

/// The greedy answer, the prompt in parts of `part` tokens, and the logits that each token was chosen from.
fn greedy(
    speaker: &Speaker,
    lora: Option<&Lora>,
    prompt: &[u32],
    count: usize,
    part: usize,
) -> (Vec<u32>, Vec<Vec<f32>>) {
    let mut cache = speaker.decoder.cache(prompt.len() + count).unwrap();
    let (mut answer, mut steps) = (Vec::new(), Vec::new());
    let mut logits = Vec::new();
    for tokens in prompt.chunks(part) {
        let mut parts = [Part { tokens, cache: &mut cache, logits: true, lora }];
        logits = speaker.decoder.step(&mut parts, &|| false).unwrap().remove(0);
    }
    for _ in 0..count {
        let token = best(&logits);
        answer.push(token);
        steps.push(std::mem::take(&mut logits));
        let mut parts = [Part { tokens: &[token], cache: &mut cache, logits: true, lora }];
        logits = speaker.decoder.step(&mut parts, &|| false).unwrap().remove(0);
    }
    (answer, steps)
}

fn compare(folder: &Path, golden: &Path, architecture: Option<&str>, tolerance: f32) {
    let golden: Golden = read(golden);
    let candle = load(folder).unwrap();
    if let Some(architecture) = architecture {
        assert_eq!(golden.architecture, architecture);
    }
    compare_cases(&golden, speaker(&candle), None, tolerance);
}

fn compare_cases(golden: &Golden, speaker: &Speaker, lora: Option<&Lora>, tolerance: f32) {
    let Golden { architecture, base, .. } = golden;
    for case in &golden.cases {
        // A greedy choice that a rounding could turn proves nothing.
        assert!(case.margin > 2.0 * tolerance, "the golden margin of {} is too small", case.margin);
        for part in [case.prompt.len(), 5, 1] {
            let (answer, steps) = greedy(speaker, lora, &case.prompt, case.greedy.len(), part);
            for (step, wanted) in steps.iter().zip(&case.logits) {
                let found: Vec<f32> = step.iter().step_by(case.every).copied().collect();
                assert_eq!(found.len(), wanted.len());
                let far = far(&found, wanted);
                assert!(far < tolerance, "{architecture}{base}, parts of {part}: logits are off by {far}");
            }
            assert_eq!(answer, case.greedy, "{architecture}{base}, parts of {part}");
        }
    }
}

fn compare_tiny(name: &str, architecture: &str) {
    let folder = root().join(name);
    compare(&folder, &folder.join("golden.json"), Some(architecture), LOGIT_TOLERANCE);
}

#[test]
fn llama_is_as_the_reference() {
    compare_tiny("llama", "LlamaForCausalLM");
}

#[test]
fn llama_with_scaled_rotation_in_two_shards_is_as_the_reference() {
    compare_tiny("llama3", "LlamaForCausalLM");
}

#[test]
fn qwen2_is_as_the_reference() {
    compare_tiny("qwen2", "Qwen2ForCausalLM");
}

#[test]
fn qwen3_is_as_the_reference() {
    compare_tiny("qwen3", "Qwen3ForCausalLM");
}

#[test]
fn mistral_with_a_window_is_as_the_reference() {
    compare_tiny("mistral", "MistralForCausalLM");
}

/// Adapters as PEFT writes them, and what they make of the models.
const ADAPTERS: [&str; 4] = ["llama-all", "llama-one", "qwen2-some", "qwen3-some"];

#[test]
fn adapters_are_as_the_reference() {
    for name in ADAPTERS {
        let folder = root().join("adapters").join(name);
        let golden: Golden = read(&folder.join("golden.json"));
        let candle = load_with(&root().join(&golden.base), &[&folder]).unwrap();
        let speaker = speaker(&candle);
        compare_cases(&golden, speaker, speaker.adapters.first(), LOGIT_TOLERANCE);
        // The model itself is as it was.
        let plain: Golden = read(&root().join(&golden.base).join("golden.json"));
        compare_cases(&plain, speaker, None, LOGIT_TOLERANCE);
    }
}

#[test]
fn adapters_and_the_model_computed_together_are_as_each_alone() {
    let [one, other] = ["llama-all", "llama-one"].map(|name| root().join("adapters").join(name));
    let candle = load_with(&root().join("llama"), &[&one, &other]).unwrap();
    let speaker = speaker(&candle);
    let prompt: Vec<u32> = (0..30).collect();
    let with = [None, speaker.adapters.first(), speaker.adapters.get(1), speaker.adapters.first()];
    let alone = with.map(|lora| greedy(speaker, lora, &prompt, 1, prompt.len()).1.remove(0));
    assert!(far(&alone[0], &alone[1]) > 0.1, "the adapter changes nothing");
    // In each order, neighbours that have the same adapter and such that don't.
    for order in [[0, 1, 2, 3], [1, 3, 0, 2], [1, 0, 3, 2]] {
        let mut caches = [0; 4].map(|_| speaker.decoder.cache(64).unwrap());
        let parts = caches.iter_mut().zip(order);
        let mut parts: Vec<Part<'_>> = parts
            .map(|(cache, which)| Part { tokens: &prompt, cache, logits: true, lora: with[which] })
            .collect();
        let rows = speaker.decoder.step(&mut parts, &|| false).unwrap();
        for (row, which) in rows.iter().zip(order) {
            assert!(far(row, &alone[which]) < LOGIT_TOLERANCE, "{order:?}");
        }
    }
}

#[test]
fn adapters_that_would_be_computed_wrongly_are_refused() {
    let from = root().join("adapters/llama-all");
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let scratch = crate::tiny::Scratch::new();
    std::fs::copy(from.join("adapter_model.safetensors"), scratch.path().join("adapter_model.safetensors"))
        .unwrap();
    let refusal = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut settings: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        change(&mut settings);
        scratch.file("adapter_config.json", serde_json::to_string(&settings).unwrap().as_bytes());
        match load_with(&root().join("llama"), &[scratch.path()]) {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        }
    };
    for (field, value, word) in [
        ("peft_type", Value::from("IA3"), "peft_type"),
        ("use_dora", Value::from(true), "use_dora"),
        ("bias", Value::from("all"), "bias"),
        ("modules_to_save", serde_json::json!(["lm_head"]), "modules_to_save"),
        ("alpha_pattern", serde_json::json!({"q_proj": 3}), "alpha_pattern"),
        ("rank_pattern", serde_json::json!({"q_proj": 3}), "rank_pattern"),
        ("init_lora_weights", Value::from("pissa"), "init_lora_weights"),
        ("layer_replication", serde_json::json!([[0, 1]]), "layer_replication"),
        ("something_new", Value::from(1), "something_new"),
        ("r", Value::from(5), "[4, 64]"),
        ("r", Value::from(1u64 << 40), "`r`"),
        ("lora_alpha", Value::from("8"), "lora_alpha"),
    ] {
        let error = refusal(&|settings| drop(settings.insert(field.to_owned(), value.clone())));
        assert!(error.contains(word) && error.contains("adapter"), "{field}: {error}");
    }
    let error = refusal(&|settings| drop(settings.remove("lora_alpha")));
    assert!(error.contains("lacks `lora_alpha`"), "{error}");
    // Made for a model of other sizes.
    let error = match load_with(&root().join("qwen3"), &[&from]) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("has the shape"), "{error}");
}

/// Real weights: `scripts/golden/make.sh smollm2 FOLDER` writes them (270 MB); they lie in no registry.
#[test]
#[ignore = "needs STEELYARD_GOLDEN_SMOLLM2, the folder that scripts/golden/make.sh smollm2 wrote"]
fn smollm2_is_as_the_reference() {
    let folder = PathBuf::from(std::env::var_os("STEELYARD_GOLDEN_SMOLLM2").unwrap());
    // Its weights were rounded to F16 when they were written; the reference computed before that.
    let mut golden: Value = read(&root().join("smollm2.json"));
    golden["architecture"] = Value::from("LlamaForCausalLM");
    let scratch = crate::tiny::Scratch::new();
    let golden = scratch.file("golden.json", golden.to_string().as_bytes());
    compare(&folder, &golden, Some("LlamaForCausalLM"), 2e-2);
}

#[test]
fn sequences_computed_together_are_as_each_alone() {
    for name in ["qwen3", "mistral"] {
        let candle = load(&root().join(name)).unwrap();
        let speaker = speaker(&candle);
        let prompts: [Vec<u32>; 3] = [(0..40).collect(), vec![7], (100..120).collect()];
        let alone: Vec<_> =
            prompts.iter().map(|prompt| greedy(speaker, None, prompt, 4, prompt.len())).collect();
        let mut caches = [0; 3].map(|_| speaker.decoder.cache(64).unwrap());
        let mut next: Vec<Vec<u32>> = prompts.to_vec();
        for step in 0..4 {
            let mut parts: Vec<Part<'_>> = caches
                .iter_mut()
                .zip(&next)
                .map(|(cache, tokens)| Part { tokens, cache, logits: true, lora: None })
                .collect();
            let logits = speaker.decoder.step(&mut parts, &|| false).unwrap();
            for (row, (_, steps)) in logits.iter().zip(&alone) {
                assert!(far(row, &steps[step]) < LOGIT_TOLERANCE, "{name}, step {step}");
            }
            next = logits.iter().map(|row| vec![best(row)]).collect();
        }
    }
}

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(default)]
    text: Option<String>,
    #[serde(alias = "tokens")]
    prompt: Vec<Token>,
    #[serde(default = "one")]
    step: usize,
    embedding: Vec<f32>,
}

fn compare_vectors(candle: &Candle, golden: &Path) {
    for case in read::<Vectors>(golden).cases {
        if let Some(text) = &case.text {
            let mut tokens: Vec<Token> = candle.card.begin.into_iter().collect();
            tokens.extend(candle.tokenise(text, Special::Literal));
            tokens.extend(candle.card.end);
            assert_eq!(tokens, case.prompt, "{text}");
        }
        let vector = candle.embed(&case.prompt).unwrap().unwrap();
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
        let found: Vec<f32> = vector.into_iter().step_by(case.step).collect();
        assert_eq!(found.len(), case.embedding.len());
        let far = far(&found, &case.embedding);
        assert!(far < VECTOR_TOLERANCE, "{:?}: off by {far}", case.text);
    }
}

#[test]
fn bert_vectors_are_as_the_reference() {
    let folder = root().join("bert");
    compare_vectors(&load(&folder).unwrap(), &folder.join("golden.json"));
}

/// Real weights, as `scripts/fetch-weights.sh minilm` fetches them.
#[test]
fn minilm_vectors_are_as_the_reference() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-weights.sh");
    let output = std::process::Command::new(script).arg("minilm").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let candle = load(file.parent().unwrap()).unwrap();
    assert_eq!(candle.card.context, 256);
    compare_vectors(&candle, &root().join("minilm.json"));
}
