//! One pull between two freshly started nodes over loopback, and what it cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Sample;
use crate::{Daemon, Home, Net, generate, meter};

/// A publisher with a model of noise and a puller, pinned to each other.
#[derive(Debug)]
pub struct Pair {
    /// Has published `NATION/bench`.
    pub publisher: Home,
    /// Has nothing yet.
    pub puller: Home,
    /// The publisher's blob of the weights.
    pub blob: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// How long publishing took, in seconds.
    pub published: f64,
}

impl Pair {
    /// Generates about `size` bytes and publishes them. The original is removed.
    pub fn new(net: &Net, size: u64) -> Self {
        let model = net.folder("model");
        let file = model.join("model.safetensors");
        generate::safetensors(&file, size, 1).expect("generate the model");
        let size = file.metadata().expect("the model").len();
        let [publisher, puller] = net.allies(["alba", "borea"]);
        let start = Instant::now();
        publisher.publish(&model, "bench", "1", &["--releasable-to", "all"]);
        let published = start.elapsed().as_secs_f64();
        fs::remove_dir_all(&model).expect("remove the original");
        let blob = largest_file(&publisher.path.join("store/blobs"));
        Self { publisher, puller, blob, size, published }
    }

    /// What is asked for.
    pub fn reference(&self) -> String {
        format!("{}/bench", self.publisher.nation)
    }

    /// One pull between two fresh processes: from the request until the release is admitted.
    pub fn pull(&self) -> Sample {
        let (sender, receiver): (Daemon, Daemon) = (self.publisher.start(), self.puller.start());
        receiver.connect(&sender);
        meter::reset_peak(sender.pid());
        meter::reset_peak(receiver.pid());
        let before = (meter::cpu_seconds(sender.pid()), meter::cpu_seconds(receiver.pid()));
        let start = Instant::now();
        let done = receiver.pull(&self.reference()).unwrap_or_else(|problem| panic!("{problem}"));
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(done["transfer"]["bytes_done"].as_u64(), Some(self.size), "{done}");
        let sample = Sample {
            seconds,
            sender_cpu: meter::cpu_seconds(sender.pid()) - before.0,
            receiver_cpu: meter::cpu_seconds(receiver.pid()) - before.1,
            sender_peak: meter::peak_resident(sender.pid()),
            receiver_peak: meter::peak_resident(receiver.pid()),
        };
        receiver.stop();
        sender.stop();
        sample
    }

    /// Makes the puller anew, without anything pulled.
    pub fn forget(&mut self, net: &Net) {
        fs::remove_dir_all(&self.puller.path).expect("remove the puller's folder");
        self.puller = net.nation("borea");
        self.puller.trust(&self.publisher);
        self.publisher.ok(&["trust", "rm", "borea"]);
        self.publisher.trust(&self.puller);
    }
}

/// The largest file in a folder and what lies below it.
pub fn largest_file(folder: &Path) -> PathBuf {
    let mut found: Option<(u64, PathBuf)> = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, size) = (entry.path(), entry.metadata().map_or(0, |meta| meta.len()));
            if path.is_dir() {
                folders.push(path);
            } else if found.as_ref().is_none_or(|(largest, _)| size > *largest) {
                found = Some((size, path));
            }
        }
    }
    found.expect("a blob").1
}
