//! llama.cpp on SmolLM2's quantised weights against `transformers` on the same weights dequantised.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde_json::Value;
use tests::binary;

#[test]
fn llama_cpp_chooses_the_tokens_that_the_reference_chooses() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../inference/tests/golden/smollm2.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let file = binary::weights_file();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let prompt = case["text"].as_str().unwrap();
        let tokens = u32::try_from(case["greedy"].as_array().unwrap().len()).unwrap();
        let answer = inference::direct::complete(file, prompt, tokens, 1).unwrap();
        assert_eq!(answer, case["answer"].as_str().unwrap(), "{prompt}");
    }
}
