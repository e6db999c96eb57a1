//! OpenSSF Model Signing, both ways, with the stock client; and attachments.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{Net, generate, python};

fn small(net: &Net, name: &str) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, 7).unwrap();
    fs::write(folder.join("README.md"), "---\nlicense: MIT\n---\n# Small\n").unwrap();
    fs::create_dir_all(folder.join("config")).unwrap();
    fs::write(folder.join("config/config.json"), "{}").unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether the stock client verifies the folder with the bundle in it.
fn verifies(folder: &Path, public: &str) -> bool {
    let signature = folder.join("model.sig");
    let output = python::model_signing(&[
        "verify",
        "key",
        text(folder),
        "--signature",
        text(&signature),
        "--public_key",
        public,
    ]);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

/// Changes one byte in the middle of a file.
fn tamper(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn attached(shown: &Value, kind: &str) -> Value {
    let all = shown["attachments"].as_array().unwrap();
    all.iter()
        .find(|one| one["attachment"] == kind)
        .unwrap_or_else(|| panic!("no {kind} in {shown:#}"))
        .clone()
}

#[test]
fn the_stock_client_verifies_what_an_ally_pulled_and_finds_every_change() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let (secret, public) = python::ec_key(net.path(), "signer");
    let (_, other) = python::ec_key(net.path(), "other");
    let slsa = net.path().join("provenance.json");
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1", "subject": [],
        "predicate": { "buildDefinition": { "buildType": "t", "resolvedDependencies": [{}, {}] },
                       "runDetails": { "builder": { "id": "https://example.org/\u{1b}[31mbuilder" } } },
    });
    fs::write(&slsa, statement.to_string()).unwrap();
    let slsa = format!("slsa={}", text(&slsa));
    let folder = small(&net, "model");
    alba.publish(&folder, "small", "1", &["--oms-key", &secret, "--attach", &slsa]);

    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    let out = net.path().join("out");
    borea.ok(&["checkout", "alba/small", text(&out)]);
    borea.run(&["checkout", "alba/small", text(&out)]).expect(7, &["exists"]);
    assert!(verifies(&out, &public), "what came out of borea's node");
    assert!(!verifies(&out, &other), "another key");

    let shown = borea.json(&["show", "alba/small"]);
    let summary = &attached(&shown, "slsa")["summary"];
    assert_eq!(summary["builder"], "https://example.org/[31mbuilder", "control characters are taken out");
    assert_eq!(summary["materials"], 2);
    let summary = &attached(&shown, "oms")["summary"];
    assert_eq!((&summary["files"], &summary["matching"]), (&json!(4), &json!(4)));
    borea.run(&["show", "alba/small"]).expect(0, &["model.sig", "2 materials", "4 of its 4 files"]);

    for file in ["model.safetensors", "config/config.json", "attachments/provenance.json", "model.sig"] {
        let copy = net.path().join("tampered");
        let _ = fs::remove_dir_all(&copy);
        borea.ok(&["checkout", "alba/small", text(&copy)]);
        tamper(&copy.join(file));
        assert!(!verifies(&copy, &public), "{file} was changed");
    }
    fs::write(out.join("extra.txt"), "x").unwrap();
    assert!(!verifies(&out, &public), "a file more");
    fs::remove_file(out.join("extra.txt")).unwrap();
    fs::remove_file(out.join("README.md")).unwrap();
    assert!(!verifies(&out, &public), "a file less");
}

#[test]
fn a_release_without_a_bundle_is_signed_where_it_is_written_out() {
    let net = Net::new();
    let alba = net.nation("alba");
    let (secret, public) = python::ec_key(net.path(), "signer");
    alba.publish(&small(&net, "model"), "small", "1", &[]);
    let out = net.path().join("out");
    alba.ok(&["checkout", "alba/small", text(&out), "--oms-key", &secret]);
    assert!(verifies(&out, &public));
    // A key that others may read is not used.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let second = net.path().join("second");
    alba.run(&["checkout", "alba/small", text(&second), "--oms-key", &secret]).expect(2, &["chmod 600"]);
    assert!(!second.exists());
}

#[test]
fn what_the_stock_client_signed_is_taken_in_with_its_signature() {
    let net = Net::new();
    let alba = net.nation("alba");
    let (secret, public) = python::ec_key(net.path(), "signer");
    let folder = small(&net, "model");
    let signature = folder.join("model.sig");
    let sign = |folder: &Path, more: &[&str]| {
        let signature = folder.join("model.sig");
        let mut args =
            vec!["sign", "key", text(folder), "--signature", text(&signature), "--private_key", &secret];
        args.extend(more);
        let output = python::model_signing(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    sign(&folder, &[]);
    let import = |folder: &Path, key: &str, version: &str| {
        let signature = folder.join("model.sig");
        alba.run(&[
            "import",
            "--oms",
            text(folder),
            "--signature",
            text(&signature),
            "--public-key",
            key,
            "--as",
            "alba/theirs",
            "--model-version",
            version,
        ])
    };
    import(&folder, &public, "1").expect(0, &[]);
    let shown = alba.json(&["show", "alba/theirs"]);
    assert_eq!(attached(&shown, "oms")["path"], "model.sig");
    let record = attached(&shown, "import");
    assert_eq!((&record["summary"]["nation"], &record["summary"]["name"]), (&json!("alba"), &json!("model")));
    // The bundle is still good: the record of the import is not among the files that are written out.
    let out = net.path().join("out");
    alba.ok(&["checkout", "alba/theirs", text(&out)]);
    assert!(!out.join("attachments").exists());
    assert_eq!(fs::read(out.join("model.sig")).unwrap(), fs::read(&signature).unwrap());
    assert!(verifies(&out, &public));

    // Everything else is refused, and nothing of it stays.
    let (_, other) = python::ec_key(net.path(), "other");
    import(&folder, &other, "2").expect(4, &["key"]);
    fs::write(folder.join("notes.txt"), "x").unwrap();
    import(&folder, &public, "2").expect(4, &["notes.txt", "was not signed"]);
    sign(&folder, &["--ignore-paths", text(&folder.join("notes.txt"))]);
    assert!(verifies(&folder, &public), "the stock client passes over it");
    import(&folder, &public, "2").expect(4, &["notes.txt", "was not signed"]);
    fs::remove_file(folder.join("notes.txt")).unwrap();
    tamper(&folder.join("config/config.json"));
    import(&folder, &public, "2").expect(4, &["config/config.json"]);
    alba.run(&["show", "alba/theirs@2"]).expect(3, &[]);
}

#[test]
fn attachments_that_are_not_what_they_are_called_are_refused() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = small(&net, "model");
    let file = net.path().join("bom.json");
    let bom = format!("mlbom={}", text(&file));
    let publish = |attach: &str| {
        alba.run(&["publish", text(&folder), "--as", "alba/m", "--version", "1", "--attach", attach])
    };
    publish(&bom).expect(3, &["bom.json"]);
    fs::write(&file, "not JSON").unwrap();
    publish(&bom).expect(2, &["bom.json", "mlbom"]);
    fs::write(&file, r#"{"bomFormat":"SPDX"}"#).unwrap();
    publish(&bom).expect(2, &["CycloneDX"]);
    publish("oms=x").expect(2, &["not attached by hand"]);
    publish("other=x").expect(2, &["no kind"]);
    fs::write(&file, r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"data","name":"d","licenses":[{"license":{"id":"CC0-1.0"}}]}]}"#).unwrap();
    publish(&bom).expect(0, &[]);
    alba.run(&["show", "alba/m"]).expect(0, &["1 component", "CC0-1.0"]);
}
