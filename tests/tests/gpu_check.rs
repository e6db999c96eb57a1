//! The script for machines with a GPU, on this machine: whole steps on tiny shapes and the CPU.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{binary, python};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/gpu-check")
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(script())
        .args(args)
        .env("STEELYARD_GPU_PYTHON", python::interpreter())
        .output()
        .expect("run the script");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    (output.status.code(), said)
}

#[test]
fn every_step_of_the_gpu_check_runs_on_tiny_shapes_and_its_checks_hold() {
    let program = binary::steelyard();
    let (code, said) = run(&["--cpu", "--binary", program.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    for name in ["golden_llama", "golden_llama3", "golden_qwen2", "golden_qwen3", "golden_mistral", "escapes"]
    {
        let line = said.lines().find(|line| line.starts_with(&format!("bar {name} ")));
        assert!(line.is_some_and(|line| line.ends_with(" ok")), "{name}: {said}");
    }
    for figure in ["tokens_per_second_1", "tokens_per_second_4", "verified_loading"] {
        assert!(said.contains(&format!("    {figure}: ")), "{figure}: {said}");
    }
    assert!(said.contains("these figures say nothing of a GPU"), "{said}");
}

#[test]
fn without_a_gpu_it_says_so_and_measures_nothing() {
    if Path::new("/dev/nvidiactl").exists() {
        return eprintln!("there is a driver here");
    }
    let (code, said) = run(&[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("there is no GPU here") && !said.contains("bar "), "{said}");
    let (code, said) = run(&["--cpu", "--only", "golden,dancing"]);
    assert!(code == Some(1) && said.contains("no such step: dancing"), "{code:?} {said}");
}
