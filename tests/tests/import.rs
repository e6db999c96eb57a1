//! `steelyard import` from a hub, a hub's cache and a registry. The hub is a stand-in that answers as hubs were recorded to; the registry
//! is a node's own OCI interface.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry::digest::hash_file;
use serde_json::{Value, json};
use tests::containers::host;
use tests::standin::{Asked, Said, Standin};
use tests::{Home, Net, Run, generate};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hash_file(bytes).unwrap().sha256.to_hex()
}

/// The name of a blob of git, by the program that everybody has who has a hub's model.
fn git_hash(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let output = std::process::Command::new("git")
        .args(["hash-object", "--no-filters", text(file.path())])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the hub holds: paths, content, and whether it lies in its storage for large files.
fn content(net: &Net) -> Vec<(&'static str, Vec<u8>, bool)> {
    let weights = net.path().join("weights");
    generate::safetensors(&weights, 3 << 20, 5).unwrap();
    vec![
        (".gitattributes", b"*.safetensors filter=lfs\n".to_vec(), false),
        ("README.md", b"# Model\n".to_vec(), false),
        ("model.safetensors", fs::read(weights).unwrap(), true),
        ("onnx/config file.json", b"{}".to_vec(), false),
    ]
}

/// How the hub lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Large files break off after a megabyte, each time.
    Cut,
    /// Another byte in the weights.
    Byte,
    /// More bytes than announced.
    More,
    /// Weights that are gone.
    Gone,
    /// Sent round in a circle.
    Circle,
    /// A file that leaves the folder.
    Path,
    /// A pickle beside the weights.
    Pickle,
}

fn tree(files: &[(&'static str, Vec<u8>, bool)], lie: Lie) -> Vec<Value> {
    let mut entries = vec![json!({ "type": "directory", "path": "onnx", "oid": COMMIT, "size": 0 })];
    for (path, content, large) in files {
        let path = if lie == Lie::Path && *path == "README.md" { "../README.md" } else { path };
        entries.push(if *large {
            let lfs = json!({ "oid": sha256(content), "size": content.len(), "pointerSize": 134 });
            json!({ "type": "file", "path": path, "oid": COMMIT, "size": content.len(), "lfs": lfs })
        } else {
            json!({ "type": "file", "path": path, "oid": git_hash(content), "size": content.len() })
        });
    }
    if lie == Lie::Pickle {
        entries.push(json!({ "type": "file", "path": "pytorch_model.bin", "oid": COMMIT, "size": 2 }));
    }
    entries
}

fn storage(content: &[u8], asked: &Asked, lie: Lie) -> Said {
    match lie {
        Lie::Byte => {
            let mut other = content.to_vec();
            other[1 << 20] ^= 1;
            Said::range(&other, asked)
        }
        Lie::More => Said::ok([content, b"more"].concat()),
        Lie::Gone => Said::status(404).with("x-error-message", "Entry not found"),
        Lie::Cut => {
            Said { cut: Some((1 << 20).min(content.len() - asked.from())), ..Said::range(content, asked) }
        }
        _ => Said::range(content, asked),
    }
}

/// A hub with one model, `org/name`, whose large files lie at `elsewhere`.
fn hub(files: Vec<(&'static str, Vec<u8>, bool)>, elsewhere: String, lie: Lie) -> Standin {
    let entries = tree(&files, lie);
    Standin::start(move |asked| {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let resolve = format!("/org/name/resolve/{COMMIT}/");
        match path {
            "/api/models/org/name/revision/main" => Said::ok(
                json!({ "id": "org/name", "sha": COMMIT, "cardData": { "license": "mit" } }).to_string(),
            ),
            _ if path == format!("/api/models/org/name/tree/{COMMIT}") => {
                // Two pages; the link names the hub by another name, as one behind a proxy does.
                let (page, link) = match query.contains("cursor=") {
                    false => (
                        &entries[..3],
                        Some("<https://hub.example/tree?recursive=true&cursor=x>; rel=\"next\""),
                    ),
                    true => (&entries[3..], None),
                };
                let said = Said::ok(json!(page).to_string());
                link.map_or(said.clone(), |link| said.with("link", link))
            }
            _ if lie == Lie::Circle => Said::status(302).with("location", &asked.target),
            _ => match path.strip_prefix(&resolve).map(|path| path.replace("%20", " ")) {
                Some(path) => match files.iter().find(|(name, ..)| *name == path) {
                    Some((_, _, true)) => {
                        Said::status(302).with("location", &format!("{elsewhere}/storage?signature=x"))
                    }
                    Some((_, content, false)) => Said::ok(content.clone()),
                    None => Said::status(404),
                },
                None => Said::status(404),
            },
        }
    })
}

struct Setting {
    net: Net,
    alba: Home,
    files: Vec<(&'static str, Vec<u8>, bool)>,
}

impl Setting {
    fn new() -> Self {
        let net = Net::new();
        let alba = net.nation("alba");
        let files = content(&net);
        Self { net, alba, files }
    }

    fn hub(&self, lie: Lie) -> (Standin, Standin) {
        let weights = self.files[2].1.clone();
        let storage = Standin::start(move |asked| self::storage(&weights, asked, lie));
        (hub(self.files.clone(), storage.other_url(), lie), storage)
    }

    fn import(&self, hub: &Standin, version: &str, more: &[&str]) -> Run {
        let url = hub.url();
        let mut args = vec!["import", "hf:org/name", "--endpoint", &url];
        args.extend(["--as", "alba/theirs", "--model-version", version]);
        args.extend(more);
        self.alba.run(&args)
    }

    /// What of imports lies in the folder, by kind.
    fn left(&self, kind: &str) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.alba.path.join("import")).into_iter().flatten().flatten();
        folders
            .flat_map(|folder| fs::read_dir(folder.path().join(kind)).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect()
    }
}

#[test]
fn a_model_of_a_hub_becomes_a_release_that_says_so() {
    let it = Setting::new();
    let (hub, storage) = it.hub(Lie::Cut);
    let token = it.net.path().join("token");
    fs::write(&token, "hf_secret\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    it.import(&hub, "1", &["--token-file", text(&token)]).expect(5, &["chmod"]);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();

    // A dry run asks for no file.
    let url = hub.url();
    let dry = it.alba.json(&["import", "hf:org/name", "--endpoint", &url, "--dry-run"]);
    assert_eq!(dry["revision"], format!("gitCommit:{COMMIT}"));
    assert_eq!((&dry["licence"], dry["files"].as_array().unwrap().len()), (&json!("mit"), 3));
    assert_eq!(dry["left_out"][0]["path"], ".gitattributes");
    let weights = &it.files[2].1;
    assert_eq!(dry["files"][1]["hash"], format!("sha256:{}", sha256(weights)));
    assert!(hub.take_asked().iter().all(|asked| asked.target.starts_with("/api/")));

    it.import(&hub, "1", &["--token-file", text(&token)]).expect(0, &[]);
    // The storage breaks off after each megabyte, and each time the rest is asked for.
    let ranges: Vec<_> = storage.take_asked().iter().map(Asked::from).collect();
    assert_eq!(ranges, [0, 1 << 20, 2 << 20, 3 << 20]);
    assert!(it.left("done").is_empty() && it.left("part").is_empty());

    let shown = it.alba.json(&["show", "alba/theirs"]);
    assert_eq!(shown["licence"], "mit");
    let out = it.net.path().join("out");
    it.alba.ok(&["checkout", "alba/theirs", text(&out)]);
    for (path, content, _) in it.files.iter().skip(1) {
        assert_eq!(&fs::read(out.join(path)).unwrap(), content, "{path}");
    }
    let attached = shown["attachments"].as_array().unwrap();
    let summary = |kind: &str| &attached.iter().find(|one| one["attachment"] == kind).unwrap()["summary"];
    assert_eq!(summary("import")["format"], "huggingface-hub");
    assert_eq!(
        (&summary("import")["nation"], &summary("import")["name"]),
        (&json!("alba"), &json!("org/name"))
    );
    let slsa = summary("slsa");
    assert_eq!((&slsa["subjects"], &slsa["matching"], &slsa["materials"]), (&json!(3), &json!(3), &json!(1)));
    // The provenance is signed by itself too.
    let provenance: Value =
        serde_json::from_slice(&fs::read(out.join("attachments/provenance.json")).unwrap()).unwrap();
    let payload = data_encoding::BASE64.decode(provenance["payload"].as_str().unwrap().as_bytes()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let from = &payload["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(
        (&from["uri"], &from["digest"]["gitCommit"]),
        (&json!(format!("{url}/org/name")), &json!(COMMIT))
    );
    assert!(!provenance["signatures"][0]["sig"].as_str().unwrap().is_empty());
    it.alba
        .run(&["show", "alba/theirs"])
        .expect(0, &["imported by alba from huggingface-hub, called org/name"]);

    // A version that is taken is refused before anything is asked.
    hub.take_asked();
    it.import(&hub, "1", &[]).expect(7, &["published already"]);
    assert!(hub.take_asked().is_empty());
}

#[test]
fn the_token_goes_to_its_hub_alone() {
    let it = Setting::new();
    let (hub, storage) = it.hub(Lie::None);
    let token = it.net.path().join("token");
    fs::write(&token, "hf_secret\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    it.import(&hub, "1", &["--token-file", text(&token)]).expect(0, &[]);
    let sent = |asked: &Asked| asked.headers.get("authorization").cloned();
    assert!(hub.take_asked().iter().all(|asked| sent(asked).as_deref() == Some("Bearer hf_secret")));
    let stored = storage.take_asked();
    assert!(!stored.is_empty() && stored.iter().all(|asked| sent(asked).is_none()));
    // Nor over plain HTTP to another machine; nothing is asked at all then.
    let args = ["import", "hf:org/name", "--endpoint", "http://hub.example", "--dry-run", "--token-file"];
    it.alba.run(&[&args[..], &[text(&token)]].concat()).expect(2, &["plain HTTP"]);
    // Nobody is asked whom nobody named.
    it.alba.run(&["import", "hf:org/name", "--dry-run"]).expect(2, &["HF_ENDPOINT"]);
    let mut named = it.alba.clone();
    named.env.push(("HF_ENDPOINT".to_owned(), hub.url()));
    named.run(&["import", "hf:org/name", "--dry-run"]).expect(0, &["model.safetensors", "left out"]);
}

#[test]
fn lies_leave_nothing_behind() {
    for (lie, code, words) in [
        (Lie::Byte, 4, "SHA-256"),
        (Lie::More, 4, "more than"),
        (Lie::Circle, 4, "again and again"),
        (Lie::Path, 4, "../README.md"),
        (Lie::Pickle, 5, "--exclude"),
    ] {
        let it = Setting::new();
        let (hub, storage) = it.hub(lie);
        it.import(&hub, "1", &[]).expect(code, &[words]);
        it.alba.run(&["show", "alba/theirs"]).expect(3, &[]);
        let parts = it.left("part");
        assert!(parts.iter().all(|part| fs::metadata(part).unwrap().len() == 0), "{parts:?}");
        if lie == Lie::Pickle {
            assert!(storage.take_asked().is_empty());
            it.import(&hub, "1", &["--exclude", "*.bin"]).expect(0, &[]);
        }
    }
}

#[test]
fn a_run_goes_on_where_another_stopped() {
    let it = Setting::new();
    let (hub, _) = it.hub(Lie::Gone);
    it.import(&hub, "1", &[]).expect(3, &["Entry not found"]);
    let small = |asked: &Asked| asked.target.ends_with("/README.md");
    assert_eq!(hub.take_asked().iter().filter(|asked| small(asked)).count(), 1);
    assert_eq!(it.left("done").len(), 1);
    // The same hub, whose storage is back; it must be at the same address to be the same source.
    let weights = it.files[2].1.clone();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let files = it.files.clone();
    let broken = Standin::start(move |asked| {
        // The first download breaks off for good: the process is as if killed.
        match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Said { cut: Some(2 << 20), ..Said::range(&weights, asked) },
            1..=5 => Said::status(404),
            _ => Said::range(&weights, asked),
        }
    });
    let hub = self::hub(files, broken.other_url(), Lie::None);
    it.import(&hub, "1", &[]).expect(3, &[]);
    let half = it.left("part");
    assert!(half.iter().any(|part| fs::metadata(part).unwrap().len() == 2 << 20), "{half:?}");
    calls.store(6, Ordering::Relaxed);
    hub.take_asked();
    broken.take_asked();
    it.import(&hub, "1", &[]).expect(0, &[]);
    assert_eq!(hub.take_asked().iter().filter(|asked| small(asked)).count(), 0, "it was here");
    let ranges: Vec<_> = broken.take_asked().iter().map(Asked::from).collect();
    assert_eq!(ranges, [2 << 20]);
}

/// The cache of a hub's client, as `huggingface_hub` lays it out.
fn cache(it: &Setting) -> PathBuf {
    let top = it.net.folder("models--org--name");
    for name in ["blobs", "refs", "snapshots"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    fs::write(top.join("refs/main"), COMMIT).unwrap();
    let snapshot = top.join("snapshots").join(COMMIT);
    for (path, content, large) in &it.files {
        let name = if *large { sha256(content) } else { git_hash(content) };
        fs::write(top.join("blobs").join(&name), content).unwrap();
        let link = snapshot.join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(path.matches('/').count() + 2);
        symlink(format!("{up}blobs/{name}"), link).unwrap();
    }
    top
}

#[test]
fn a_cache_is_read_by_the_names_of_its_blobs() {
    let it = Setting::new();
    let top = cache(&it);
    let source = format!("hf-cache:{}", text(&top));
    let import = |version: &str, more: &[&str]| {
        let mut args = vec!["import", &source, "--as", "alba/theirs", "--model-version", version];
        args.extend(more);
        it.alba.run(&args)
    };
    // The card names no licence, and a cache knows none.
    import("1", &[]).expect(2, &["--licence"]);
    import("1", &["--", "--licence", "MIT"]).expect(0, &[]);
    let shown = it.alba.json(&["show", "alba/theirs@1"]);
    assert_eq!(shown["attachments"][0]["summary"]["format"], "huggingface-cache");
    // The person's own cache is as it was.
    let blob = top.join("blobs").join(sha256(&it.files[2].1));
    assert_eq!(fs::read(&blob).unwrap(), it.files[2].1);

    let mut other = it.files[2].1.clone();
    other[100] ^= 1;
    fs::write(&blob, other).unwrap();
    import("2", &["--", "--licence", "MIT"]).expect(4, &["SHA-256"]);
    fs::remove_file(&blob).unwrap();
    symlink("/etc/hostname", &blob).unwrap();
    import("2", &["--", "--licence", "MIT"]).expect(3, &["leads elsewhere"]);
    it.alba.run(&["show", "alba/theirs@2"]).expect(3, &[]);
    it.alba.run(&["import", "hf-cache:/nowhere", "--dry-run"]).expect(3, &[]);
}

#[test]
fn an_artifact_of_a_node_is_taken_in_by_another_nation() {
    let net = Net::new();
    let (alba, borea) = (net.nation("alba"), net.nation("borea"));
    let folder = net.folder("model");
    generate::gguf(&folder.join("small.gguf"), 1 << 20, 3).unwrap();
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/config.json"), "{}").unwrap();
    alba.publish(&folder, "small", "1.0", &[]);
    let a = alba.start();
    let source = format!("oci:{}/alba/small:1.0", host(&a));
    let import = |source: &str, name: &str| {
        borea.run(&["import", source, "--as", &format!("borea/{name}"), "--model-version", "1"])
    };
    import(&source, "copy").expect(0, &[]);
    let out = net.path().join("out");
    borea.ok(&["checkout", "borea/copy", text(&out)]);
    for file in ["small.gguf", "sub/config.json"] {
        assert_eq!(fs::read(out.join(file)).unwrap(), fs::read(folder.join(file)).unwrap(), "{file}");
    }
    let shown = borea.json(&["show", "borea/copy"]);
    assert_eq!(shown["licence"], "Apache-2.0", "as the artifact's configuration says");
    let attached = shown["attachments"].as_array().unwrap();
    assert!(attached.iter().any(|one| one["summary"]["format"] == "oci"), "{attached:?}");

    // By its digest; a wrong one is not there, a registry that answers with something else is found out.
    let manifest = a.public().request("GET", "/v2/alba/small/manifests/1.0", None);
    let digest = manifest.header("docker-content-digest").unwrap().to_owned();
    import(&format!("oci:{}/alba/small@{digest}", host(&a)), "again").expect(0, &[]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    import(&format!("oci:{}/alba/small@{wrong}", host(&a)), "wrong").expect(3, &["nothing with the digest"]);
    let liar = Standin::start(move |_| Said::ok(manifest.body.to_vec()));
    import(&format!("oci:{}/alba/small@{wrong}", liar.host()), "wrong").expect(4, &["digest"]);

    // The form of Ollama: the same node's, by a registry that has no other.
    let docker = [("accept", "application/vnd.docker.distribution.manifest.v2+json")];
    let ollama = a.public().try_request_with("GET", "/v2/alba/small/manifests/1.0", &docker, None).unwrap();
    let gguf = fs::read(folder.join("small.gguf")).unwrap();
    let registry = Standin::start(move |asked| match asked.target.contains("/manifests/") {
        true => Said::ok(ollama.body.to_vec()),
        false => Said::range(&gguf, asked),
    });
    let source = format!("oci:{}/library/tiny", registry.host());
    borea
        .run(&["import", &source, "--as", "borea/tiny", "--model-version", "1", "--", "--licence", "MIT"])
        .expect(0, &[]);
    let shown = borea.json(&["show", "borea/tiny"]);
    let paths: Vec<_> =
        shown["file_list"].as_array().unwrap().iter().map(|file| file["path"].clone()).collect();
    assert!(paths.contains(&json!("tiny.gguf")), "{paths:?}");
}

#[test]
fn a_folder_is_published_and_a_bundle_needs_no_name() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, 7).unwrap();
    let import = |more: &[&str]| {
        let mut args = vec!["import", text(&folder)];
        args.extend(more);
        alba.run(&args)
    };
    import(&[]).expect(2, &["--as NATION/NAME"]);
    import(&["--as", "alba/m", "--model-version", "1", "--", "--licence", "MIT"]).expect(0, &[]);
    alba.ok(&["show", "alba/m@1"]);
    let bundle = net.path().join("m.steelyard");
    alba.ok(&["export", "alba/m@1", text(&bundle)]);
    alba.run(&["import", text(&bundle), "--as", "alba/x"]).expect(2, &["brings its own name"]);
    alba.run(&["import", text(&bundle), "--dry-run"]).expect(2, &["hf:"]);
    alba.run(&["import", text(&bundle)]).expect(0, &["is here"]);
}
