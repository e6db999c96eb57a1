//! Keys at rest: changing a passphrase, and a node that opens its sealed log and witness keys.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;
use tests::net::Settings;
use tests::{Daemon, Home, Net, generate, until};

fn private(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    mode(path, 0o600);
    path.to_str().unwrap().to_owned()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn log_of(node: &Daemon, nation: &str) -> Option<Value> {
    let status = node.http.get("/v1/log");
    status["logs"].as_array()?.iter().find(|log| log["nation"] == nation).cloned()
}

fn problems(node: &Daemon) -> String {
    node.http.get("/v1/log")["problems"].to_string()
}

fn publish(net: &Net, home: &Home, seed: u64) {
    let folder = net.folder(&format!("model-{}-{seed}", home.nation));
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, seed).unwrap();
    home.publish(&folder, "m", &seed.to_string(), &[]);
}

#[test]
fn a_passphrase_is_changed_and_a_node_opens_its_sealed_keys_with_it() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let old = private(&net.path().join("old"), "the first words\n");
    let new = private(&net.path().join("new"), "other words\r\n");
    let keys = ["log", "witness"].map(|name| alba.path.join(format!("keys/{name}.key")));
    for key in &keys {
        let key = key.to_str().unwrap();
        alba.run(&["key", "passphrase", key, "--passphrase-file", &old]).expect(7, &["not sealed"]);
        alba.ok(&["key", "encrypt", key, "--passphrase-file", &old]);
    }
    // Without its passphrase the node says what it lacks, and goes on without the key.
    let a = alba.start();
    assert!(problems(&a).contains("log.passphrase_file"), "{}", problems(&a));
    assert_eq!(a.http.get("/v1/log")["appends"], false);
    assert_eq!(a.stop(), 0);

    for key in &keys {
        let path = key.to_str().unwrap();
        let public = alba.json(&["key", "show", path])["public"].clone();
        let inode = fs::metadata(key).unwrap().ino();
        let change = |from: &str, to: &str| {
            alba.run(&["key", "passphrase", path, "--passphrase-file", from, "--new-passphrase-file", to])
        };
        assert_ne!(change(&new, &old).code, 0, "the old one is not asked for nothing");
        change(&old, &old).expect(2, &["nothing was changed"]);
        change(&old, &private(&net.path().join("none"), "\n")).expect(4, &["empty"]);
        assert_eq!(fs::metadata(key).unwrap().ino(), inode, "nothing was changed");
        // There is no terminal to ask at.
        alba.run(&["key", "passphrase", path, "--passphrase-file", &old])
            .expect(2, &["--new-passphrase-file"]);
        assert_eq!(change(&old, &new).code, 0);
        let file = fs::metadata(key).unwrap();
        assert_eq!((file.mode() & 0o777, file.ino() != inode), (0o600, true), "replaced in one step");
        assert!(!key.with_file_name(format!("{}.new", key.file_name().unwrap().to_str().unwrap())).exists());
        assert_eq!(alba.json(&["key", "show", path])["public"], public, "it is the same key");
        assert_ne!(alba.run(&["key", "decrypt", path, "--passphrase-file", &old]).code, 0);
    }

    // A passphrase that others may read is no secret.
    let more = format!("[log]\npassphrase_file = \"{new}\"\n");
    alba.configure(&Settings { more, ..Settings::default() });
    mode(Path::new(&new), 0o644);
    let a = alba.start();
    assert!(problems(&a).contains("new") && a.http.get("/v1/log")["appends"] == false, "{}", problems(&a));
    assert_eq!(a.stop(), 0);
    mode(Path::new(&new), 0o600);
    let (a, b) = (alba.start(), borea.start());
    assert_eq!(problems(&a), "[]");
    a.connect(&b);
    publish(&net, &alba, 1);
    publish(&net, &borea, 2);
    for (nation, witness) in [("alba", "borea"), ("borea", "alba")] {
        until(&format!("{nation}'s log to be cosigned by {witness}"), || {
            let log = log_of(&b, nation)?;
            (log["size"] == 2 && log["witnesses"].as_array()?.iter().any(|one| one == witness)).then_some(())
        });
    }
}
