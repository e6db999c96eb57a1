//! Replays each fuzz target's corpus, so that what a fuzzer once found is tested on every run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../fuzz/registry.rs"]
mod bodies;

use std::path::Path;

#[test]
fn every_corpus_file_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, body) in bodies::TARGETS {
        let files: Vec<_> =
            std::fs::read_dir(corpus.join(target)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty(), "no corpus for {target}");
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let run = std::panic::catch_unwind(|| body(&data));
            assert!(run.is_ok(), "{} fails on {}", target, file.display());
        }
    }
}
