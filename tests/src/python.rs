//! The Python environment of the tests, with the stock client of OpenSSF Model Signing and our own verifier.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The environment's interpreter: `STEELYARD_PYTHON`, else what `scripts/python-venv.sh` has in its cache or makes.
pub fn interpreter() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(given) = std::env::var_os("STEELYARD_PYTHON") {
            return PathBuf::from(given);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python-venv.sh");
        let output = Command::new(&script).output().expect("run scripts/python-venv.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
    })
}

/// An interpreter with what a further list of `tests/python` names, such as `requirements-hub.txt`.
pub fn with_requirements(list: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python-venv.sh");
    let output = Command::new(&script).arg(list).output().expect("run scripts/python-venv.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
}

/// The command that starts the verifier, for the shell.
pub fn verifier() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    // No compiled files beside the sources.
    format!("cd '{}' && exec '{}' -B -m verifier", folder.display(), interpreter().display())
}

/// Runs the stock `model_signing` client.
pub fn model_signing(args: &[&str]) -> Output {
    let mut command = Command::new(interpreter());
    command.args(["-m", "model_signing"]).args(args);
    command.output().expect("run model_signing")
}

/// Makes a key of the curve P-256 with OpenSSL, as people do: its secret and its public half, in PEM.
pub fn ec_key(folder: &Path, name: &str) -> (String, String) {
    let (secret, public) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.pub")));
    let (secret, public) = (secret.display().to_string(), public.display().to_string());
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().expect("run openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &secret]);
    openssl(&["pkey", "-in", &secret, "-pubout", "-out", &public]);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    (secret, public)
}
