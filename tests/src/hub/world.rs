//! What the tests of the hub interface begin with: a model, and three nations of which one has nothing.

use std::fs;
use std::path::PathBuf;

use super::endpoint;
use crate::net::Settings;
use crate::{Daemon, Home, Net, generate, until};

/// A model of some files and folders.
pub fn model(net: &Net, name: &str, seed: u64, mib: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), mib << 20, seed).expect("the test's folder");
    fs::write(folder.join("config.json"), format!("{{\"seed\": {seed}}}")).expect("the test's folder");
    fs::write(folder.join("README.md"), "---\nlicense: apache-2.0\n---\n# Small\n")
        .expect("the test's folder");
    fs::create_dir_all(folder.join("onnx/deep")).expect("the test's folder");
    fs::write(folder.join("onnx/deep/notes ö.txt"), "umlauts and blanks").expect("the test's folder");
    fs::write(folder.join("empty.txt"), "").expect("the test's folder");
    folder
}

/// alba publishes and borea mirrors; cora knows of it and has nothing of it on its disk.
#[derive(Debug)]
pub struct Three {
    /// Where all of it lies.
    pub net: Net,
    /// The publisher's folder.
    pub alba: Home,
    /// The asked node's folder.
    pub cora: Home,
    /// The publisher.
    pub a: Daemon,
    /// The mirror.
    pub b: Daemon,
    /// The asked node.
    pub c: Daemon,
}

impl Three {
    /// Starts the three; cora's settings end with `more`, and `publish` runs before.
    pub fn new(more: &str, publish: impl FnOnce(&Net, &Home)) -> Self {
        let net = Net::new();
        let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
        publish(&net, &alba);
        cora.configure(&Settings { more: more.to_owned(), ..Settings::default() });
        let (a, b, c) = (alba.start(), borea.start(), cora.start());
        b.connect(&a);
        c.connect(&a);
        c.connect(&b);
        Self { net, alba, cora, a, b, c }
    }

    /// Waits until cora would give the model to readers: its statement is here and its log was witnessed.
    pub fn known(&self, model: &str) {
        until("cora to know the model", || {
            let reply = self.c.public().request("GET", &format!("/api/models/{model}"), None);
            (reply.status == 200).then_some(())
        });
    }

    /// cora's public interface.
    pub fn endpoint(&self) -> String {
        endpoint(self.c.public())
    }
}

/// How many files of blobs, whole or not, lie in a folder.
pub fn blobs(home: &Home) -> usize {
    home.listing().len()
}
