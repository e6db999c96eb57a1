//! Replays the corpus of each fuzz target for the node's parsers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use node::{gossip, nation_file, wire};

#[path = "../../fuzz/node.rs"]
mod bodies;

use std::path::Path;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "no corpus for {target}");
    files.into_iter().map(|file| (file.display().to_string(), std::fs::read(file).unwrap())).collect()
}

#[test]
fn every_corpus_file_is_replayed() {
    for (target, body) in bodies::TARGETS {
        for (name, data) in corpus(target) {
            let run = std::panic::catch_unwind(|| body(&data));
            assert!(run.is_ok(), "{target} fails on {name}");
        }
    }
}

/// The gossip parser stands among code that needs the network, so it is no fuzz target: every cut and every changed
/// byte of its corpus instead.
#[test]
fn gossip_ends_in_an_answer_whatever_comes() {
    for (_, data) in corpus("gossip") {
        for end in 0..=data.len() {
            let _ = gossip::parse(&data[..end]);
        }
        for at in 0..data.len() {
            for byte in [0, b'"', b'{', b'[', b'9', 0xff] {
                let mut changed = data.clone();
                changed[at] = byte;
                let _ = gossip::parse(&changed);
            }
        }
    }
}
