//! Processes that are told what to do and tell how far they are, a line at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// A process that talks in lines. Killed when it goes.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    name: String,
}

impl Talker {
    /// Starts the command.
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{name}: {error}"));
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output, name }
    }

    /// Its process identifier.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a word.
    pub fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").and_then(|()| self.input.flush()).unwrap_or_else(|error| {
            panic!("{} does not listen: {error}", self.name);
        });
    }

    /// Waits until it says a line that begins with `word`; answers the rest of that line. Panics when it ends before.
    pub fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.output.read_line(&mut line).unwrap_or(0);
            assert!(count > 0, "{} ended before it said `{word}`", self.name);
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return rest.trim_start().to_owned();
            }
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has libtorrent 2: `STEELYARD_BENCH_PYTHON`, Debian's own, or the one in the path. `None` where none has,
/// which is said the first time.
pub fn python_with_libtorrent() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("STEELYARD_BENCH_PYTHON").map(PathBuf::from);
        let known = ["/usr/bin/python3", "python3"].map(PathBuf::from);
        let found = named.into_iter().chain(known).find(|python| {
            let check = "import libtorrent, sys; sys.exit(not libtorrent.version.startswith('2.'))";
            let run = Command::new(python).args(["-c", check]).stderr(Stdio::null()).status();
            run.is_ok_and(|status| status.success())
        });
        if found.is_none() {
            println!("libtorrent 2 is not installed (Debian: python3-libtorrent), so its rows are missing\n");
        }
        found
    };
    FOUND.get_or_init(find).as_deref()
}

/// The script that drives libtorrent.
pub fn torrent_script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torrent.py"))
}

/// Makes a v2 torrent of `file` in `folder`; answers its path.
pub fn make_torrent(python: &Path, file: &Path, folder: &Path, piece: u64) -> PathBuf {
    let torrent = folder.join("model.torrent");
    let status = Command::new(python)
        .arg(torrent_script())
        .arg("make")
        .args([file, &torrent])
        .arg(piece.to_string())
        .current_dir(folder)
        .status()
        .expect("run Python");
    assert!(status.success(), "making a torrent ended with {status}");
    torrent
}
