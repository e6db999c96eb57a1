//! iroh-blobs as a peer: a program outside the workspace (tests/peers/iroh), built only when asked for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Instant;

use super::nodes::PORT;
use super::space::{Spaces, address};
use super::talk::Talker;
use crate::Net;

/// Where the program of the iroh-blobs peer is.
#[derive(Debug, Clone)]
pub struct Iroh(PathBuf);

impl Iroh {
    /// The program named by `STEELYARD_BENCH_IROH`, if it is there. The first time that it is not, it is said.
    pub fn found() -> Option<Self> {
        static SAID: Once = Once::new();
        let found = std::env::var_os("STEELYARD_BENCH_IROH").map(PathBuf::from).filter(|path| path.is_file());
        if found.is_none() {
            SAID.call_once(|| {
                println!("iroh-blobs is not built, so its rows are missing; `make bench-transfer PEERS=1` builds it\n");
            });
        }
        found.map(Self)
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.0
    }

    /// Starts a provider of `file` at `listen` with its store in `folder`; answers it, and what a fetch names it by.
    pub fn provide(
        &self,
        mut command: Command,
        file: &Path,
        folder: &Path,
        listen: &str,
    ) -> (Talker, String, String) {
        command.arg("provide").args([file, folder]).arg(listen);
        let mut provider = Talker::start(command);
        let said = provider.hear("ready");
        let (hash, id) = said.split_once(' ').unwrap_or_else(|| panic!("no hash and identity in `{said}`"));
        let (hash, named) = (hash.to_owned(), format!("{id}@{listen}"));
        (provider, hash, named)
    }

    /// Starts a fetch into a store in `folder`, which waits for `go` and says `done`.
    pub fn fetch(
        &self,
        mut command: Command,
        hash: &str,
        size: u64,
        folder: &Path,
        listen: &str,
        from: &[String],
    ) -> Talker {
        command.arg("fetch").arg(hash).arg(size.to_string()).arg(folder).arg(listen).args(from);
        let mut fetch = Talker::start(command);
        fetch.hear("ready");
        fetch
    }

    /// Seconds that one fetch takes from the first `count` providers behind their uplinks.
    pub fn from_many(&self, spaces: &Spaces, net: &Net, file: &Path, count: usize) -> f64 {
        let work = net.folder(&format!("iroh{count}"));
        let program = self.0.to_string_lossy();
        let listen = |index: usize| format!("{}:{PORT}", address(index));
        let mut providers = Vec::new();
        for index in 1..=count {
            let folder = net.folder(&format!("iroh{count}/provider{index}"));
            let command = spaces.command(index, &program, &work);
            providers.push(self.provide(command, file, &folder, &listen(index)));
        }
        let names: Vec<String> = providers.iter().map(|(_, _, name)| name.clone()).collect();
        let size = file.metadata().expect("the model").len();
        let folder = net.folder(&format!("iroh{count}/fetch"));
        let command = spaces.command(0, &program, &work);
        let mut fetch = self.fetch(command, &providers[0].1, size, &folder, &listen(0), &names);
        let start = Instant::now();
        fetch.say("go");
        fetch.hear("done");
        let took = start.elapsed().as_secs_f64();
        drop((fetch, providers));
        let _ = std::fs::remove_dir_all(work);
        took
    }
}
