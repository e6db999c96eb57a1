//! The Python client: what it reads of a node, and what it verifies without one of a snapshot that a stock client downloaded.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tests::hub::world::{Three, model};
use tests::hub::{endpoint, newest};
use tests::net::run;
use tests::{Net, Run, python, until};

/// A run on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/python")
}

fn in_python() -> Command {
    let mut command = Command::new(python::interpreter());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("PYTHONPATH", package()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn steelyard(args: &[&str]) -> Run {
    let mut command = in_python();
    command.args(["-m", "steelyard"]).args(args);
    run(command, LIMIT)
}

/// A folder's files as plain ones, as somebody copies a snapshot.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let at = to.join(entry.file_name());
        if fs::metadata(entry.path()).unwrap().is_dir() {
            copy(&entry.path(), &at);
        } else {
            fs::copy(entry.path(), at).unwrap();
        }
    }
}

#[test]
fn the_committed_client_is_what_the_description_gives() {
    let mut command = in_python();
    command.arg(package().join("generate.py")).arg("--check");
    run(command, LIMIT).expect(0, &[]);
}

/// Three nations, a snapshot that the stock client fetched from the one that had nothing, and its evidence beside it.
struct Fetched {
    three: Three,
    release: String,
    cache: tempfile::TempDir,
    snapshot: PathBuf,
    alba: String,
    borea: String,
}

impl Fetched {
    fn new() -> Self {
        let mut release = String::new();
        let three = Three::new("", |net, alba| {
            release = alba.publish(&model(net, "first", 1, 2), "small", "1", &["--releasable-to", "all"]);
        });
        three.known("alba/small");
        let cache = tempfile::tempdir().unwrap();
        let run = newest().run("hf", &three.endpoint(), cache.path(), &["download", "alba/small"]);
        assert_eq!(run.code, 0, "{run}");
        let snapshot = cache.path().join("hub/models--alba--small/snapshots").join(&release[3..43]);
        assert!(snapshot.is_dir(), "{run}");
        let borea = {
            let nations = three.c.public().get("/v1/nations");
            let found = nations.as_array().unwrap().iter().find(|one| one["nation"] == "borea").unwrap();
            found["fingerprint"].as_str().unwrap().to_owned()
        };
        let alba = three.alba.fingerprint();
        let it = Self { three, release, cache, snapshot, alba, borea };
        it.witnessed();
        it
    }

    /// Fetches the evidence, until borea is among the witnesses that it names.
    fn witnessed(&self) {
        until("borea to have witnessed the release", || {
            steelyard(&["evidence", text(&self.snapshot), "--node", &self.three.endpoint()]).expect(0, &[]);
            (self.verify(&self.snapshot, &["--witnesses", "1"]).code == 0).then_some(())
        });
    }

    fn verify(&self, folder: &Path, more: &[&str]) -> Run {
        let roots = ["--root", &self.alba, "--root", &self.borea];
        steelyard(&[&["verify", text(folder)], &roots[..], more].concat())
    }

    /// A plain copy, for a test to change.
    fn copied(&self, name: &str) -> PathBuf {
        let to = self.cache.path().join(name);
        copy(&self.snapshot, &to);
        to
    }
}

#[test]
fn a_snapshot_is_verified_without_a_network_or_refused_with_the_reason() {
    let it = Fetched::new();
    // Nobody needs to be there any more.
    let Fetched { release, snapshot, alba, borea, .. } = &it;
    let whole =
        ["--witnesses", "1", "--lease", "1", "--expect", "alba/small:stable", "--nation", "cora", "--json"];
    let report = it.verify(snapshot, &whole).json();
    assert_eq!(
        (&report["release"], &report["model"], &report["files"]),
        (&(release.as_str().into()), &"alba/small".into(), &5.into())
    );
    assert!(report["channels"]["stable"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["witnesses"]["borea"].is_string() && report["witnessed"].is_string(), "{report}");
    it.verify(snapshot, &[])
        .expect(0, &["alba/small@1 is what alba signed", "5 files", "witnessed by borea"]);
    for good in ["alba/small", "alba/small@1", release] {
        it.verify(snapshot, &["--expect", good]).expect(0, &[]);
    }
    for wrong in ["alba/other", "alba/small@2", "alba/small:beta"] {
        it.verify(snapshot, &["--expect", wrong]).expect(4, &["is expected"]);
    }
    it.verify(snapshot, &["--expect", "small"]).expect(2, &["names no release"]);

    // A plain folder; and what `hf download --local-dir` keeps beside the files.
    let plain = it.copied("plain");
    fs::create_dir_all(plain.join(".cache/huggingface/download")).unwrap();
    fs::write(plain.join(".cache/huggingface/download/config.json.metadata"), "x").unwrap();
    it.verify(&plain, &[]).expect(0, &[]);

    let weights = plain.join("model.safetensors");
    let content = fs::read(&weights).unwrap();
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    fs::write(&weights, &flipped).unwrap();
    it.verify(&plain, &[]).expect(4, &["'model.safetensors'", "differ from what was signed"]);
    let told = it.verify(&plain, &["--json", "--partial"]);
    assert_eq!((told.code, told.json()["changed"][0].as_str()), (4, Some("model.safetensors")));
    fs::write(&weights, &content[..content.len() - 1]).unwrap();
    it.verify(&plain, &[]).expect(4, &["differ"]);
    fs::remove_file(&weights).unwrap();
    it.verify(&plain, &[]).expect(4, &["'model.safetensors'", "lack"]);
    it.verify(&plain, &["--partial"]).expect(0, &["4 files", "1 lack"]);
    // A link to a file with the right bytes is as good, one to a folder or a pipe is not.
    symlink(snapshot.join("model.safetensors"), &weights).unwrap();
    it.verify(&plain, &[]).expect(0, &[]);
    for (name, to) in
        [("modeling.py", None), ("sub", Some("/etc")), ("onnx/extra.json", Some("/etc/hostname"))]
    {
        let at = plain.join(name);
        match to {
            Some(to) => symlink(to, &at).unwrap(),
            None => fs::write(&at, "import os").unwrap(),
        }
        it.verify(&plain, &[]).expect(4, &[name, "are not in the release"]);
        fs::remove_file(at).unwrap();
    }
    fs::remove_file(&weights).unwrap();
    assert!(Command::new("mkfifo").arg(&weights).status().unwrap().success());
    it.verify(&plain, &[]).expect(4, &["'model.safetensors'", "differ"]);

    // By other roots than the producer's it is nobody's word.
    let other = format!("b3:{}", "0".repeat(64));
    for roots in [vec![borea.as_str()], vec![other.as_str()], vec![borea.as_str(), other.as_str()]] {
        let mut args = vec!["verify", text(snapshot)];
        roots.iter().for_each(|root| args.extend(["--root", root]));
        steelyard(&args).expect(4, &["not among those you pinned", alba]);
    }
    steelyard(&["verify", text(snapshot), "--root", "alba"]).expect(2, &["no fingerprint"]);
    it.verify(snapshot, &["--witnesses", "9"]).expect(5, &["witnessed the log"]);
    it.verify(&it.cache.path().join("nowhere"), &[]).expect(4, &["is no folder"]);

    // The lease: long enough, ended, and not to be told without a witness.
    std::thread::sleep(Duration::from_millis(2100));
    it.verify(snapshot, &["--lease", "0.5"]).expect(0, &[]);
    it.verify(snapshot, &["--lease", "0.00001"]).expect(5, &["the lease has ended"]);
    steelyard(&["verify", text(snapshot), "--root", alba, "--lease", "1"])
        .expect(5, &["no pinned nation witnessed"]);
}

#[test]
fn evidence_that_was_changed_or_is_about_another_release_is_refused() {
    let it = Fetched::new();
    let place = it.snapshot.join(".steelyard/evidence.json");
    let good: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    let at = it.cache.path().join("evidence.json");
    let attempt = |change: &dyn Fn(&mut Value)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        fs::write(&at, evidence.to_string()).unwrap();
        it.verify(&it.snapshot, &["--evidence", text(&at)])
    };
    attempt(&|_| {}).expect(0, &[]);
    let of_kind = |evidence: &Value, kind: &str| {
        let word = format!("urn:steelyard:{kind}:v1");
        evidence["statements"].as_array().unwrap().iter().position(|one| {
            let payload = one["envelopes"][0]["payload"].as_str().unwrap();
            let payload = data_encoding::BASE64.decode(payload.as_bytes()).unwrap();
            String::from_utf8(payload).unwrap().contains(&word)
        })
    };
    let release = of_kind(&good, "release").unwrap();
    // Another payload under the same signature is another statement, which no log has.
    let change = |evidence: &mut Value| {
        let envelope = &mut evidence["statements"][release]["envelopes"][0];
        let payload = data_encoding::BASE64.decode(envelope["payload"].as_str().unwrap().as_bytes()).unwrap();
        let changed = String::from_utf8(payload)
            .unwrap()
            .replace("apache-2.0", "unlicense!")
            .replace("Apache-2.0", "Unlicense!");
        envelope["payload"] = data_encoding::BASE64.encode(changed.as_bytes()).into();
    };
    attempt(&change).expect(4, &["the proof from the log of alba does not hold"]);
    attempt(&|evidence| {
        change(evidence);
        evidence["statements"][release].as_object_mut().unwrap().remove("proof");
    })
    .expect(4, &["is not in its evidence"]);
    attempt(&|evidence| {
        let signature = &mut evidence["statements"][release]["envelopes"][0]["signatures"][0]["sig"];
        let mut bytes = data_encoding::BASE64.decode(signature.as_str().unwrap().as_bytes()).unwrap();
        bytes[40] ^= 1;
        *signature = data_encoding::BASE64.encode(&bytes).into();
    })
    .expect(4, &["a signature is wrong"]);
    attempt(&|evidence| {
        evidence["statements"][release]["proof"] = "c2sp.org/tlog-proof@v1\nindex 0\n\nx\n".into()
    })
    .expect(4, &["proof"]);
    attempt(&|evidence| evidence["version"] = 2.into()).expect(4, &["version"]);
    attempt(&|evidence| evidence["statements"] = Value::Array(Vec::new()))
        .expect(4, &["not in its evidence"]);
    fs::write(&at, "{\"format\":\"steelyard-evidence\",\"format\":\"x\"}").unwrap();
    it.verify(&it.snapshot, &["--evidence", text(&at)]).expect(4, &["is damaged"]);
    let missing = it.cache.path().join("none.json");
    it.verify(&it.snapshot, &["--evidence", text(&missing)]).expect(4, &["there is no evidence"]);

    // A snapshot of the client is named after its release; another one's evidence does not fit it.
    let wrong = it.snapshot.with_file_name("0".repeat(40));
    copy(&it.snapshot, &wrong);
    it.verify(&wrong, &[]).expect(4, &["the folder is a snapshot of alba/small at 0000"]);
    steelyard(&["evidence", text(&wrong), "--node", &it.three.endpoint()]).expect(6, &["no release"]);
    steelyard(&["evidence", text(it.cache.path()), "--node", &it.three.endpoint()])
        .expect(2, &["say which release"]);
}

#[test]
fn a_recall_is_heard_by_who_follows_and_stops_who_verifies() {
    let it = Fetched::new();
    let Fetched { three, release, snapshot, .. } = &it;
    let mut command = in_python();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/reader.py"));
    command.args([three.endpoint().as_str(), "alba/small", release]).stdout(Stdio::piped());
    let mut reader = command.spawn().unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert_eq!(steelyard(&["recalls", "--node", &three.endpoint()]).stdout, "");
    assert_eq!(steelyard(&["status", "--node", &endpoint(three.c.public())]).json()["nation"], "cora");

    three.alba.recall("alba/small@1", "leaks its training data", "high");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(reader.wait().unwrap().success());
    let heard: Value = serde_json::from_str(rest.trim()).unwrap();
    assert_eq!((&heard["release"], &heard["nation"]), (&release.as_str().into(), &"alba".into()));

    // The evidence of before does not know of it; what it says is as old as it is.
    it.verify(snapshot, &[]).expect(0, &[]);
    steelyard(&["evidence", text(snapshot), "--node", &three.endpoint()]).expect(0, &[]);
    let refused = it.verify(snapshot, &["--json"]);
    refused.expect(5, &["recalled by alba", "leaks its training data", "stop using it"]);
    assert_eq!(refused.json()["error"], "recalled");
    steelyard(&["recalls", "--node", &three.endpoint()]).expect(0, &["leaks its training data"]);
}

/// The example of the documentation, against the same nodes.
#[test]
fn a_program_in_rust_verifies_and_hears_of_recalls() {
    use node::client::Client;
    use node::client::snapshot::{self, Demands, SnapshotError};
    use registry::{Digest, Timestamp};

    let shown = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients.md")).unwrap();
    let example = include_str!("../src/example.rs");
    assert!(
        shown.contains(example.split_once("\n\n").unwrap().1),
        "docs/clients.md shows tests/src/example.rs"
    );

    let it = Fetched::new();
    let Fetched { three, release, snapshot, alba, borea, .. } = &it;
    let digest = |text: &str| text.parse::<Digest>().unwrap();
    let (url, roots) = (three.endpoint(), [digest(alba), digest(borea)]);
    let runtime = tests::http::runtime();
    let block =
        |root: &str| runtime.block_on(tests::example::check(&url, "alba/small", snapshot, digest(root)));
    let report = block(alba).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.files, report.digest), (5, digest(release)));
    assert!(report.channels.keys().any(|channel| channel.as_str() == "stable"));
    assert!(block(borea).err().unwrap().to_string().contains("not among those you pinned"));

    let client = Client::at(&url).unwrap();
    let evidence = runtime.block_on(client.evidence(&digest(release))).unwrap();
    let try_with = |folder: &Path, demands: Demands| snapshot::verify(folder, &evidence, &roots, &demands);
    let strict =
        Demands { own: Some("cora".parse().unwrap()), lease: Some(3600), witnesses: 1, ..Demands::default() };
    let report = try_with(snapshot, strict.clone()).unwrap();
    assert!(report.witnesses.keys().any(|nation| nation.as_str() == "borea"));
    let later = Some(Timestamp::now().plus(7200));
    let refused = try_with(snapshot, Demands { now: later, ..strict.clone() }).unwrap_err();
    assert!(matches!(refused, SnapshotError::Stale { .. }), "{refused}");
    let refused = try_with(snapshot, Demands { witnesses: 9, ..strict.clone() }).unwrap_err();
    assert!(matches!(refused, SnapshotError::Witnesses { wanted: 9, .. }), "{refused}");

    let plain = it.copied("plain");
    try_with(&plain, strict.clone()).unwrap();
    let weights = plain.join("model.safetensors");
    let mut content = fs::read(&weights).unwrap();
    content[100] ^= 1;
    fs::write(&weights, &content).unwrap();
    let wrong = |demands: Demands| match try_with(&plain, demands).unwrap_err() {
        SnapshotError::Files { findings, .. } => findings,
        other => panic!("{other}"),
    };
    assert_eq!(wrong(strict.clone()).changed, ["model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    assert_eq!(wrong(strict.clone()).missing, ["model.safetensors"]);
    assert_eq!(try_with(&plain, Demands { partial: true, ..strict.clone() }).unwrap().files, 4);
    fs::write(plain.join("extra.py"), "import os").unwrap();
    assert_eq!(wrong(Demands { partial: true, ..strict }).extra, ["extra.py"]);
    let mut forged = evidence.clone();
    let at = forged.statements.iter().position(|one| one.digest == digest(release)).unwrap();
    let signature = &mut forged.statements[at].envelopes[0]["signatures"][0]["sig"];
    let mut bytes = data_encoding::BASE64.decode(signature.as_str().unwrap().as_bytes()).unwrap();
    bytes[40] ^= 1;
    *signature = data_encoding::BASE64.encode(&bytes).into();
    let refused = snapshot::verify(snapshot, &forged, &roots, &Demands::default()).unwrap_err();
    assert!(matches!(refused, SnapshotError::Trust(_)), "{refused}");

    std::thread::scope(|scope| {
        let heard =
            scope.spawn(|| runtime.block_on(tests::example::wait_for_recall(&url, &[digest(release)])));
        three.alba.recall("alba/small@1", "leaks its training data", "high");
        assert_eq!(heard.join().unwrap().unwrap(), "leaks its training data");
    });
    let refused = block(alba).err().unwrap().to_string();
    assert!(
        refused.contains("was recalled by alba") && refused.contains("leaks its training data"),
        "{refused}"
    );
}

/// What llama.cpp asks for with `-hf alba/shards:Q4_K_M`, a token and a connection that breaks off.
#[test]
fn llama_cpp_fetches_shards_and_goes_on_after_a_cut() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = net.folder("shards");
    for (name, mib, seed) in [
        ("m-Q4_K_M-00001-of-00002.gguf", 9, 1),
        ("m-Q4_K_M-00002-of-00002.gguf", 3, 2),
        ("m-Q8_0.gguf", 1, 3),
        ("mmproj-m-f16.gguf", 1, 4),
    ] {
        tests::generate::gguf(&folder.join(name), mib << 20, seed).unwrap();
    }
    alba.publish(&folder, "shards", "1", &["--releasable-to", "all"]);
    let more = "[hub]\nanonymous = false".to_owned();
    alba.configure(&tests::net::Settings { more, ..Default::default() });
    let token = alba.ok(&["token", "create", "llama"]).stdout.trim().to_owned();
    let a = alba.start();
    let cutter = tests::hub::Cutter::new(a.public(), 2, 4 << 20);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/llama_cpp.py");
    let cache = tempfile::tempdir().unwrap();
    let replay = |endpoint: &str, more: &[&str]| {
        let mut command = in_python();
        command.arg(&script).args([endpoint, "alba/shards", "Q4_K_M", text(cache.path())]).args(more);
        run(command, LIMIT)
    };
    replay(&endpoint(a.public()), &[]).expect(1, &["GET failed (401)"]);
    let fetched = replay(&cutter.endpoint(), &[&token]).json();
    let fetched = fetched.as_array().unwrap();
    let paths: Vec<_> = fetched.iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf", "mmproj-m-f16.gguf"]);
    assert_eq!((&fetched[0]["attempts"], &fetched[1]["attempts"]), (&3.into(), &1.into()));
    for one in fetched {
        let here = fs::read(one["at"].as_str().unwrap()).unwrap();
        assert!(here == fs::read(folder.join(one["path"].as_str().unwrap())).unwrap(), "{one}");
    }
}

/// The hub is a node of another nation: its interface is asked as any hub's is.
#[test]
fn a_model_of_a_nodes_hub_interface_is_imported_goes_on_after_a_cut_and_is_shown_first() {
    let net = Net::new();
    let (alba, borea) = (net.nation("alba"), net.nation("borea"));
    let folder = tests::hub::world::model(&net, "model", 7, 24);
    let release = alba.publish(&folder, "small", "1", &[]);
    let more = "[hub]\nanonymous = false".to_owned();
    alba.configure(&tests::net::Settings { more, ..Default::default() });
    let token = net.path().join("token");
    fs::write(&token, alba.ok(&["token", "create", "borea"]).stdout).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let a = alba.start();
    let size = fs::metadata(folder.join("model.safetensors")).unwrap().len();
    // Cut more often than one run tries again, a part further each time.
    let cutter = tests::hub::Cutter::new(a.public(), 1000, 3 << 20);
    let import = |endpoint: &str, more: &[&str]| {
        let mut args = vec!["import", "hf:alba/small", "--endpoint", endpoint, "--token-file", text(&token)];
        args.extend(more);
        borea.run(&args)
    };
    let direct = tests::hub::endpoint(a.public());
    import(&direct, &["--dry-run"]).expect(0, &["model.safetensors"]);
    let dry = import(&direct, &["--dry-run", "--json"]).json();
    assert_eq!(dry["revision"], format!("gitCommit:{}", &release[3..43]), "{dry}");
    let listed: Vec<_> =
        dry["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    for file in ["README.md", "config.json", "model.safetensors", "onnx/deep/notes ö.txt"] {
        assert!(listed.contains(&file), "{file}: {listed:?}");
    }
    let passed = || cutter.passed.load(Ordering::Relaxed);
    assert_eq!(passed(), 0, "a dry run brings nothing");
    let target = ["--as", "borea/theirs", "--model-version", "1"];
    let mut runs = 0;
    let end = loop {
        runs += 1;
        let run = import(&cutter.endpoint(), &target);
        if run.code == 0 || runs == 20 {
            break run;
        }
    };
    end.expect(0, &[]);
    assert!(cutter.cut.load(Ordering::Relaxed) >= 4, "it was cut");
    // What had come was kept: of each cut no more than what was under way is fetched again.
    assert!(passed() < size + size / 2, "{} of {size} bytes in {runs} runs", passed());
    let out = net.path().join("out");
    borea.ok(&["checkout", "borea/theirs", text(&out)]);
    for file in ["README.md", "config.json", "model.safetensors", "onnx/deep/notes ö.txt", "empty.txt"] {
        assert_eq!(fs::read(out.join(file)).unwrap(), fs::read(folder.join(file)).unwrap(), "{file}");
    }
    let shown = borea.json(&["show", "borea/theirs"]);
    assert_eq!(shown["licence"].as_str().unwrap().to_lowercase(), "apache-2.0");
    let attached = shown["attachments"].as_array().unwrap();
    let import_record = attached.iter().find(|one| one["attachment"] == "import").unwrap();
    assert_eq!(import_record["summary"]["name"], "alba/small");
    // Without the token it is not even there; a recall stops whoever comes later.
    borea.run(&["import", "hf:alba/small", "--endpoint", &direct, "--dry-run"]).expect(6, &["token"]);
    alba.recall("alba/small@1", "leaks its training data", "high");
    let refused = import(&direct, &["--as", "borea/late", "--model-version", "1"]);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.stderr.contains("disabled"), "{refused}");
}
