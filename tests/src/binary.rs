//! Finds the `steelyard` binary under test and the real weights.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary: `STEELYARD_BIN`, else the one beside this test's executable, which `make test` built: cargo
/// brings it up to date for the tests of the package `steelyard` in the same run.
pub fn steelyard() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("STEELYARD_BIN") {
            return PathBuf::from(given);
        }
        // target/release/deps/test-hash, or target/release/bench-pull
        let me = std::env::current_exe().expect("this executable's path");
        let found =
            me.ancestors().skip(1).take(2).map(|dir| dir.join("steelyard")).find(|path| path.is_file());
        found.unwrap_or_else(|| {
            panic!("no steelyard binary near {}: run `make test`, which builds it first", me.display())
        })
    })
}

/// SmolLM2-135M-Instruct as a GGUF file: `STEELYARD_WEIGHTS`, else what `scripts/fetch-weights.sh` has in its cache or
/// fetches.
pub fn weights_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        if let Some(given) = std::env::var_os("STEELYARD_WEIGHTS") {
            return PathBuf::from(given);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-weights.sh");
        let output = Command::new(&script).arg("smollm2").output().expect("run scripts/fetch-weights.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
    })
}

/// Its folder, with the licence and a model card beside it.
pub fn weights() -> &'static Path {
    weights_file().parent().expect("the file's folder")
}
