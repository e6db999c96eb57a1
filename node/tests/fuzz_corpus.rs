//! Replays the corpus of each fuzz target for the node's parsers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use node::nation_file::NationFile;
use node::{gossip, wire};

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

/// Cuts and changed bytes stand so far apart: each try of a nation file checks signatures, and all of them shall take seconds.
const STRIDE: usize = 7;

/// Many cuts and changed bytes of what is in a corpus: for parsers that stand among code that needs the network, and so
/// are no fuzz targets.
fn mutations(target: &str, try_one: impl Fn(&[u8])) {
    for (_, data) in corpus(target) {
        for end in (0..=data.len()).step_by(STRIDE) {
            try_one(&data[..end]);
        }
        for at in (0..data.len()).step_by(STRIDE) {
            for byte in [0, b'"', b'{', b'[', b'9', 0xff] {
                let mut changed = data.clone();
                changed[at] = byte;
                try_one(&changed);
            }
        }
    }
}

#[test]
fn gossip_ends_in_an_answer_whatever_comes() {
    mutations("gossip", |data| drop(gossip::parse(data)));
}

#[test]
fn nation_files_end_in_an_answer_whatever_comes() {
    mutations("nation_file", |data| {
        if let Ok(file) = NationFile::parse(data) {
            let text = file.to_json().expect("what was read can be written");
            let again = NationFile::parse(&text).expect("and read again");
            assert_eq!(again.fingerprint(), file.fingerprint());
            let _ = file.claimed_root();
        }
    });
}
