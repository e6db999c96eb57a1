//! Finds the `steelyard` binary under test and the real weights.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary: `STEELYARD_BIN`, else the one beside this test's executable, which `make test` built.
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
        let binary = found.unwrap_or_else(|| {
            panic!("no steelyard binary near {}: run `make test`, which builds it first", me.display())
        });
        refuse_stale(&binary);
        binary
    })
}

/// A binary older than the sources would test yesterday's code.
fn refuse_stale(binary: &Path) {
    let built = modified(binary);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for package in ["registry", "node", "inference", "cli"] {
        let mut folders = vec![root.join(package).join("src")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    assert!(
                        modified(&path) <= built,
                        "{} is older than {}: run `make test`, which builds it first",
                        binary.display(),
                        path.display()
                    );
                }
            }
        }
    }
}

fn modified(path: &Path) -> std::time::SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(std::time::UNIX_EPOCH)
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
