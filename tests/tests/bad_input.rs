//! Bad input: each gets an error that names the thing and the next step, an exit code of its kind, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;

use registry::key::SecretKey;
use registry::statement::{File, Releasable, Release, Statement};
use registry::{Digest, Sha256, Signed, Timestamp};
use serde_json::{Value, json};
use tests::{Home, Net, generate};

fn publish(home: &Home, folder: &std::path::Path) -> tests::Run {
    let model = format!("{}/m", home.nation);
    home.run(&["publish", folder.to_str().unwrap(), "--as", &model, "--version", "1", "--licence", "MIT"])
}

#[test]
fn header_bombs_are_refused_by_name() {
    let net = Net::new();
    let alba = net.nation("alba");
    let before = alba.listing();
    for (name, bytes) in generate::header_bombs() {
        let folder = net.folder("bomb");
        fs::write(folder.join(name), bytes).unwrap();
        let run = publish(&alba, &folder);
        run.expect(4, &[name]);
        assert!(run.took.as_secs() < 20, "{name} took {:?}", run.took);
        assert_eq!(alba.listing(), before, "{name} left something behind");
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn folders_that_lead_elsewhere_are_refused() {
    let net = Net::new();
    let alba = net.nation("alba");
    let secret = net.path().join("secret.txt");
    fs::write(&secret, "not for you").unwrap();
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, 1).unwrap();
    symlink(&secret, folder.join("notes.txt")).unwrap();
    publish(&alba, &folder).expect(2, &["notes.txt"]);
    fs::remove_file(folder.join("notes.txt")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("odd.sock")).unwrap();
    publish(&alba, &folder).expect(2, &["odd.sock"]);
    fs::remove_file(folder.join("odd.sock")).unwrap();
    // A file that runs code when it is loaded is named, and refused by policy where it would be served.
    fs::write(folder.join("pytorch_model.bin"), b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.").unwrap();
    let run = publish(&alba, &folder);
    run.expect(5, &["pytorch_model.bin"]);
    fs::remove_file(folder.join("pytorch_model.bin")).unwrap();
    publish(&alba, &folder).expect(0, &[]);
}

#[test]
fn a_release_can_not_name_a_path_outside() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let key = SecretKey::load(&alba.path.join("keys/release.key")).unwrap();
    let a = alba.start();
    for path in ["../../etc/cron.d/x", "/etc/passwd", "a/../../b", "..", "a\\..\\b", "a\0b", "C:x"] {
        let release = Release {
            model: "alba/traversal".parse().unwrap(),
            version: registry::Version::new("1").unwrap(),
            format: "gguf".to_owned(),
            licence: "MIT".to_owned(),
            derived_from: Vec::new(),
            releasable_to: Releasable::All,
            model_card: None,
            issued: Timestamp::now(),
            files: vec![File {
                path: path.to_owned(),
                blake3: Digest::of(b"x"),
                sha256: Sha256::from_bytes([0; 32]),
                size: 1,
                media_type: "text/plain".to_owned(),
                chunk_map: Digest::of(b"y"),
            }],
        };
        // Its publisher's key is right; the statement is refused all the same, before anything is kept.
        let signed = Signed::sign(&Statement::Release(release), &key);
        let body: Value = serde_json::from_slice(&signed.to_json()).unwrap();
        let reply = a.http.request("POST", "/v1/statements", Some(&body));
        assert!(matches!(reply.status, 400 | 422), "{path:?}: {} {}", reply.status, reply.text());
        assert!(reply.text().contains("path"), "{path:?}: {}", reply.text());
    }
    assert_eq!(a.http.get("/v1/models"), json!([]));
    drop(borea);
}

#[test]
fn a_bundle_can_not_write_outside() {
    let net = Net::new();
    let alba = net.nation("alba");
    let before = alba.listing();
    let outside = net.path().join("escaped");
    for name in ["../escaped", "/tmp/steelyard-escaped", "blobs/../../escaped"] {
        let mut archive = Vec::new();
        // A tar header by hand: the library refuses to write such a name.
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(b"00000000004");
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend([b'e', b'v', b'i', b'l']);
        archive.extend([0; 508 + 1024]);
        let path = net.path().join("evil.steelyard");
        fs::write(&path, archive).unwrap();
        alba.run(&["import", path.to_str().unwrap()]).expect(4, &[]);
        assert!(!outside.exists(), "{name} was written");
    }
    let path = net.path().join("noise.steelyard");
    let mut noise = vec![0; 1 << 20];
    generate::Noise::new(1).fill(&mut noise);
    fs::write(&path, noise).unwrap();
    alba.run(&["import", path.to_str().unwrap()]).expect(4, &[]);
    assert_eq!(alba.listing(), before);
}

#[test]
fn exit_codes_tell_failures_apart() {
    let net = Net::new();
    let alba = net.nation("alba");
    // 2: the words are wrong.
    alba.run(&["pull"]).expect(2, &["Usage"]);
    alba.run(&["frobnicate"]).expect(2, &["frobnicate"]);
    alba.run(&["pull", "Alba/M"]).expect(2, &["nation"]);
    alba.run(&["show", "b3:12"]).expect(2, &["digest"]);
    alba.run(&["init", "--nation", "alba"]).expect(7, &["alba"]);
    // 3: there is no such thing.
    alba.run(&["publish", "/nonexistent", "--as", "alba/m", "--version", "1"]).expect(3, &["/nonexistent"]);
    alba.run(&["show", "alba/nothing"]).expect(3, &["alba/nothing"]);
    alba.run(&["pull", "alba/nothing"]).expect(3, &["alba/nothing"]);
    alba.run(&["verify", "alba/nothing"]).expect(3, &["alba/nothing"]);
    // A folder that was never initialised says how to begin.
    let bare = Home { path: net.path().join("bare"), ..alba.clone() };
    let run = bare.run(&["status"]);
    assert!(run.code != 0 && run.stderr.contains("steelyard init"), "{run}");
    assert!(!bare.path.exists(), "asking made nothing");
    // Nobody but the owner reads the keys, and a key that others may read is refused.
    use std::os::unix::fs::PermissionsExt;
    let key = alba.path.join("keys/release.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(alba.path.join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, 1).unwrap();
    let run = publish(&alba, &folder);
    assert!(run.code != 0 && run.stderr.contains("chmod 600"), "{run}");
    // A second process on the same folder talks to the first or is told; it never opens it beside.
    let a = alba.start();
    let log = alba.run(&["node"]);
    assert_eq!(log.code, 7, "{log}");
    drop(a);
    // Failures are JSON where JSON was asked for.
    let run = alba.run(&["show", "alba/nothing", "--json"]);
    run.expect(3, &[]);
    let problem: Value =
        serde_json::from_str(run.stdout.trim()).or_else(|_| serde_json::from_str(run.stderr.trim())).unwrap();
    assert!(problem.to_string().contains("not_found"), "{problem}");
}
