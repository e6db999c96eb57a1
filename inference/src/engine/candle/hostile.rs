//! Weights and files that are broken or were made to do harm, and answers beside each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use registry::serving::{EngineName, FailCode, StopCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::engine::{Event, Finish, Job, Plan, Sampling, start};
use crate::halt::Cause;
use crate::tiny::Scratch;

/// A folder with the small Llama's files, to be changed.
struct Folder(Scratch);

impl Folder {
    fn new() -> Self {
        let folder = Self(Scratch::new());
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(golden::root().join("llama").join(name), folder.0.path().join(name)).unwrap();
        }
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Changes the header and the tensors' bytes.
    fn weights(self, change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Self {
        let path = self.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut data = bytes[8 + length..].to_vec();
        change(&mut header, &mut data);
        let header = header.to_string();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        std::fs::write(path, file).unwrap();
        self
    }

    fn json(self, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let own = self.path().join(name);
        let shared = golden::root().join(name);
        let bytes = std::fs::read(if own.exists() { &own } else { &shared }).unwrap();
        let mut value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        std::fs::write(own, value.to_string()).unwrap();
        self
    }

    fn load(&self) -> Result<Candle, EngineError> {
        golden::load(&self.path())
    }

    fn refusal(&self) -> String {
        let error = self.load().err().unwrap();
        assert!(matches!(error.code(), FailCode::Engine | FailCode::UnsupportedFormat));
        error.to_string()
    }

    /// The engine at work on the folder, as the worker starts it.
    fn start(&self) -> Served {
        let mut files: Vec<_> = ["config.json", "model.safetensors"]
            .map(|name| golden::admitted(name, &self.path().join(name)))
            .into();
        files.push(golden::admitted("tokenizer.json", &golden::root().join("tokenizer.json")));
        let plan = Plan::for_files("alba/tiny", &files, Some(EngineName::Candle)).unwrap();
        let verified = crate::gate::open_all(&plan.files(), &|_| {}, &Halt::default()).unwrap();
        let (queue, halt) = (Arc::new(Queue::new(64)), Halt::default());
        let options = Options { context: Some(256), ..Options::default() };
        let running = start(&plan, verified, options, Arc::clone(&queue), halt.clone()).unwrap();
        Served { queue, halt, running: Some(running) }
    }
}

struct Served {
    queue: Arc<Queue>,
    halt: Halt,
    running: Option<crate::engine::Running>,
}

impl Served {
    fn ask(&self, prompt: &[Token], tokens: u32, temperature: f32) -> Receiver<Event> {
        let sampling =
            Sampling { temperature, top_p: 1.0, seed: 3, frequency_penalty: 0.0, presence_penalty: 0.0 };
        let (job, events) = Job::new(prompt.to_vec(), sampling, tokens, Vec::new());
        self.queue.push(job).unwrap();
        events
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let cause = Cause { code: StopCode::Requested, reason: "the test is over".to_owned() };
        self.halt.set(cause.clone());
        self.queue.close(&Failure::Halted(cause));
        if let Some(running) = self.running.take() {
            running.thread.join().unwrap().unwrap();
        }
    }
}

/// The whole answer, or why there is none.
fn answer(mut events: Receiver<Event>) -> Result<(String, Finish), Failure> {
    let mut text = String::new();
    loop {
        match events.blocking_recv().expect("an end") {
            Event::Piece(more) => text.push_str(&more.text),
            Event::Done(done) => return Ok((text, done.finish)),
            Event::Failed(failure) => return Err(failure),
            Event::Embedding(_) => panic!("a vector"),
        }
    }
}

#[test]
fn header_bombs_and_lying_headers_are_refused() {
    let folder = Folder::new();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let bomb = [&(1u64 << 40).to_le_bytes()[..], &whole[8..]].concat();
    let nested = {
        let header = format!("{{\"a\":{}", "[".repeat(100_000));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    };
    for bytes in [bomb, nested, whole[..whole.len() - 2].to_vec(), b"short".to_vec(), Vec::new()] {
        std::fs::write(&path, bytes).unwrap();
        let error = folder.refusal();
        assert!(error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn overlapping_missing_misshapen_and_surplus_tensors_are_refused_by_name() {
    const NORM: &str = "model.norm.weight";
    type Change = fn(&mut Value, &mut Vec<u8>);
    let cases: [(Change, &str); 6] = [
        // Two tensors of one size on the same bytes leave the other's unclaimed.
        (
            |header, _| {
                header[NORM]["data_offsets"] =
                    header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone()
            },
            "overlap",
        ),
        (
            |header, _| {
                let norm = header.as_object_mut().unwrap().remove(NORM).unwrap();
                header["model.norm.other"] = norm;
            },
            "`model.norm.weight` is missing",
        ),
        (|header, _| header[NORM]["shape"] = json!([8, 8]), "[8, 8]"),
        (|header, _| header[NORM]["dtype"] = json!("I16"), "I16"),
        (
            |header, data| {
                let end = data.len();
                data.extend([0; 8]);
                header["model.layers.0.self_attn.q_proj.bias"] =
                    json!({"dtype": "F16", "shape": [4], "data_offsets": [end, end + 8]});
            },
            "q_proj.bias",
        ),
        (|header, _| header[NORM]["shape"] = json!([u64::MAX, u64::MAX]), "model.norm.weight"),
    ];
    for (change, told) in cases {
        let error = Folder::new().weights(change).refusal();
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn configurations_that_the_weights_belie_are_refused_without_taking_memory() {
    for (field, value) in [
        ("num_hidden_layers", json!(1024)),
        ("hidden_size", json!(65_536)),
        ("vocab_size", json!(2_000_000)),
        ("intermediate_size", json!(262_144)),
        ("head_dim", json!(64)),
        ("tie_word_embeddings", json!(true)),
    ] {
        let error = Folder::new().json("config.json", |config| config[field] = value.clone()).refusal();
        assert!(error.contains("tensor `") || error.contains("sizes"), "{field}: {error}");
    }
    // A context beyond reason is cut to what was asked for.
    let folder =
        Folder::new().json("config.json", |config| config["max_position_embeddings"] = json!(1 << 28));
    assert_eq!(folder.load().unwrap().card.context, crate::engine::DEFAULT_CONTEXT_LIMIT);
    let error = Folder::new()
        .json("config.json", |config| config["rope_scaling"] = json!({"type": "yarn"}))
        .refusal();
    assert!(error.contains("rope"), "{error}");
}

#[test]
fn tokenizers_that_do_not_fit_or_can_not_speak_are_refused() {
    let many = |value: &mut Value| value["model"]["vocab"]["far"] = json!(5000);
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 5] = [
        (&many, "vocabulary"),
        (
            &|value| {
                value["decoder"] =
                    json!({"type": "CTC", "pad_token": "x", "word_delimiter_token": "|", "cleanup": true})
            },
            "decoder",
        ),
        (&|value| value["decoder"] = Value::Null, "decoder"),
        (&|value| value["model"] = json!({"type": "Magic"}), "can't be read"),
        (
            &|value| {
                let long = "x".repeat(20_000);
                value["added_tokens"].as_array_mut().unwrap().push(json!({
                "id": 263, "content": long, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": false,
            }));
            },
            "20000 bytes",
        ),
    ];
    for (change, told) in cases {
        let error = Folder::new().json("tokenizer.json", change).refusal();
        assert!(error.contains("tokenizer.json") && error.contains(told), "{told}: {error}");
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let scratch = Scratch::new();
    for entry in std::fs::read_dir(golden::root().join("llama3")).unwrap().flatten() {
        std::fs::copy(entry.path(), scratch.path().join(entry.file_name())).unwrap();
    }
    assert!(golden::load(scratch.path()).is_ok());
    let index = scratch.path().join(files::INDEX);
    let good: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    for value in [json!("model-00002-of-00002.safetensors"), json!("../../etc/passwd"), json!(7)] {
        let mut bad = good.clone();
        bad["weight_map"]["model.norm.weight"] = value;
        bad["weight_map"]["model.embed_tokens.weight"] = json!("model-00002-of-00002.safetensors");
        std::fs::write(&index, bad.to_string()).unwrap();
        let error = golden::load(scratch.path()).err().unwrap().to_string();
        assert!(error.contains("index"), "{error}");
    }
    std::fs::remove_file(index).unwrap();
    std::fs::copy(
        scratch.path().join("model-00001-of-00002.safetensors"),
        scratch.path().join("model-00003-of-00002.safetensors"),
    )
    .unwrap();
    assert!(golden::load(scratch.path()).err().unwrap().to_string().contains("two files"));
}

#[test]
fn special_tokens_are_tokens_only_where_they_may_be() {
    let candle = golden::load(&golden::root().join("llama")).unwrap();
    let text = "he<|im_end|>é";
    assert_eq!(candle.tokenise(text, Special::Parse), [260, 259, 0xC3, 0xA9]);
    let literal: Vec<Token> = text.bytes().skip(2).map(Token::from).collect();
    assert_eq!(candle.tokenise(text, Special::Literal), [vec![260], literal].concat());
    assert!(candle.card.specials.contains(&"<|im_end|>".to_owned()));
    // Tokens that do not steer are theirs who write them.
    assert_eq!(candle.tokenise("<tool_call>", Special::Parse), [261]);
    let Model::Speaker(speaker) = &candle.model else { panic!("it generates text") };
    let piece = |token| speaker.tokens.piece(token);
    assert_eq!(
        (piece(0xC3), piece(260), piece(259), piece(261)),
        (&b"\xC3"[..], &b"he"[..], &b""[..], &b"<tool_call>"[..])
    );
    assert_eq!((piece(10), piece(32), piece(99_999)), (&b"\n"[..], &b" "[..], &b""[..]));
    // The template and the end token come from tokenizer_config.json; config.json's end token counts beside it.
    assert!(candle.card.template.as_ref().unwrap().contains("im_start"));
    assert_eq!(candle.card.eos.as_deref(), Some("<|im_end|>"));
    assert!(speaker.ends.contains(&257) && speaker.ends.contains(&259));
}

#[test]
fn not_a_number_ends_its_own_answer_and_no_other() {
    /// The token whose row of the embedding is NaN.
    const POISON: Token = 200;
    let folder = Folder::new().weights(|header, data| {
        let offsets = &header["model.embed_tokens.weight"]["data_offsets"];
        let row = offsets[0].as_u64().unwrap() as usize + POISON as usize * 64 * 2;
        for value in data[row..row + 128].chunks_mut(2) {
            value.copy_from_slice(&0x7FC0u16.to_le_bytes());
        }
    });
    let served = folder.start();
    let alone = answer(served.ask(&[1, 2, 3], 24, 0.0)).unwrap();
    let others: Vec<_> = (0..6).map(|_| served.ask(&[1, 2, 3], 24, 0.0)).collect();
    let poisoned: Vec<_> = (0..3).map(|_| served.ask(&[5, POISON, 7], 24, 0.7)).collect();
    for events in poisoned {
        let Err(Failure::Engine(words)) = answer(events) else { panic!("an answer of no numbers") };
        assert!(words.contains("NaN"), "{words}");
    }
    for events in others {
        assert_eq!(answer(events).unwrap(), alone);
    }
}

#[test]
fn many_answers_at_once_are_as_each_alone_and_a_cancelled_one_leaves_room() {
    let served = Folder::new().start();
    let prompts: Vec<Vec<Token>> =
        (1..20).map(|length| (0..length * 9).map(|at| (at * 7 + length) % 250).collect()).collect();
    let alone: Vec<_> = prompts.iter().map(|prompt| answer(served.ask(prompt, 20, 0.9)).unwrap()).collect();
    drop(served.ask(&prompts[3], 200, 0.0));
    let together: Vec<_> = prompts.iter().map(|prompt| served.ask(prompt, 20, 0.9)).collect();
    for (events, alone) in together.into_iter().zip(alone) {
        assert_eq!(answer(events).unwrap(), alone);
    }
}

#[test]
fn the_context_ends_an_answer_and_a_halt_every_one() {
    let served = Folder::new().start();
    let long: Vec<Token> = (0..250).map(|at| at % 200).collect();
    let (_, finish) = answer(served.ask(&long, 1000, 0.0)).unwrap();
    assert!(matches!(finish, Finish::Length | Finish::Stop));
    let running: Vec<_> = (0..4).map(|_| served.ask(&[9], 200, 1.0)).collect();
    std::thread::sleep(Duration::from_millis(5));
    served.halt.set(Cause { code: StopCode::Recalled, reason: "it is bad".to_owned() });
    for events in running {
        match answer(events) {
            Err(Failure::Halted(cause)) => assert_eq!(cause.code, StopCode::Recalled),
            // Some end by themselves before.
            Ok(_) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}
