//! The OCI interface, with stock clients: `oras` in Python, `skopeo`, `podman`; and by hand where they would not go.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use registry::digest::{Sha256, hash_file};
use serde_json::{Value, json};
use tests::containers::{get, host, refused, tool};
use tests::{Net, generate, python, until};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hash_file(bytes).unwrap().sha256.to_hex()
}

/// A model with one GGUF file, weights in safetensors in a folder, and papers.
fn model(net: &Net) -> PathBuf {
    let folder = net.folder("model");
    fs::create_dir_all(folder.join("original")).unwrap();
    generate::gguf(&folder.join("small.gguf"), 1 << 20, 3).unwrap();
    generate::safetensors(&folder.join("original/model.safetensors"), 5 << 20, 7).unwrap();
    fs::write(folder.join("original/config.json"), "{\"a\": 1}").unwrap();
    fs::write(folder.join("README.md"), "---\nlicense: MIT\n---\n# Small\n").unwrap();
    fs::write(folder.join("LICENSE"), "MIT License\n").unwrap();
    folder
}

fn files_of(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(text(entry.path().strip_prefix(folder).unwrap()).to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn stock_clients_pull_the_very_bytes_from_an_ally() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let folder = model(&net);
    let release = alba.publish(&folder, "Small", "1.0.0+q8", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/Small").unwrap_or_else(|problem| panic!("{problem}"));

    // Every node says the same, by every name of it.
    let names = ["stable", "latest", "1.0.0_q8", &release, &release.replace("b3:", "blake3:")];
    let first = get(&a, "/v2/alba/small/manifests/stable", &[("accept", OCI)]);
    let digest = format!("sha256:{}", sha256(&first.body));
    for node in [&a, &b] {
        for name in names.iter().copied().chain([digest.as_str()]) {
            for repository in ["alba/small", "alba/Small"] {
                let reply = get(node, &format!("/v2/{repository}/manifests/{name}"), &[]);
                assert_eq!(reply.status, 200, "{name}: {}", reply.text());
                assert_eq!(reply.body, first.body, "{name}");
                assert_eq!(reply.header("docker-content-digest"), Some(digest.as_str()));
                assert_eq!(reply.header("content-type"), Some(OCI));
            }
        }
    }
    let manifest = first.json();
    assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    assert_eq!(manifest["annotations"]["steelyard.release"], *release);
    let layers = manifest["layers"].as_array().unwrap();
    let paths: Vec<_> =
        layers.iter().map(|l| l["annotations"]["org.cncf.model.filepath"].as_str().unwrap()).collect();
    assert_eq!(paths, files_of(&folder));

    // oras, in Python.
    let out = net.path().join("oras");
    let target = format!("{}/alba/small:stable", host(&b));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/oras_pull.py");
    let pulled = tool(text(python::interpreter()), &[text(&script), &target, text(&out)]);
    pulled.expect(0, &[]);
    let said = pulled.json();
    assert_eq!(said["tags"], json!(["1.0.0_q8", "stable"]));
    assert_eq!(said["manifest"], manifest);
    assert_eq!(files_of(&out), files_of(&folder));
    for file in files_of(&folder) {
        assert_eq!(fs::read(out.join(&file)).unwrap(), fs::read(folder.join(&file)).unwrap(), "{file}");
    }

    // skopeo, to a folder and to an OCI layout.
    let source = format!("docker://{target}");
    for form in ["dir", "oci"] {
        let out = net.path().join(form);
        let to = match form {
            "dir" => format!("dir:{}", text(&out)),
            _ => format!("oci:{}:stable", text(&out)),
        };
        let args = ["--insecure-policy", "copy", "--src-tls-verify=false", &source, &to];
        tool("skopeo", &args).expect(0, &[]);
        for file in files_of(&folder) {
            let content = fs::read(folder.join(&file)).unwrap();
            let hex = sha256(&content);
            let at = if form == "dir" { out.join(&hex) } else { out.join("blobs/sha256").join(&hex) };
            assert_eq!(fs::read(&at).unwrap(), content, "{form}: {file}");
        }
    }
    assert_eq!(fs::read(net.path().join("dir/manifest.json")).unwrap(), first.body);
    let repository = format!("docker://{}/alba/small", host(&b));
    let tags = tool("skopeo", &["list-tags", "--tls-verify=false", &repository]);
    assert_eq!(tags.json()["Tags"], json!(["1.0.0_q8", "stable"]));
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
    assert_eq!(raw.stdout.as_bytes(), first.body);
}

/// podman 4 has no command for artifacts; it lists tags. Where it does not run at all (no user namespaces) the test says so.
#[test]
fn podman_lists_the_tags() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.publish(&model(&net), "small", "1", &[]);
    let a = alba.start();
    let probe = tool("podman", &["info", "--format", "{{.Version.Version}}"]);
    if probe.code != 0 {
        eprintln!("podman does not run here, so nothing was shown with it: {probe}");
        return;
    }
    let target = format!("{}/alba/small", host(&a));
    let tags = tool("podman", &["search", "--list-tags", "--tls-verify=false", &target]);
    tags.expect(0, &["stable"]);
    // A table of names and tags under a head.
    let found: Vec<_> =
        tags.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(found, ["1", "stable"]);
}

#[test]
fn blobs_come_whole_and_in_ranges_and_lies_are_answered() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = model(&net);
    alba.publish(&folder, "small", "1", &[]);
    let a = alba.start();
    let content = fs::read(folder.join("original/model.safetensors")).unwrap();
    let size = content.len();
    let digest = format!("sha256:{}", sha256(&content));
    let path = format!("/v2/alba/small/blobs/{digest}");
    let whole = get(&a, &path, &[]);
    assert_eq!((whole.status, &whole.body[..]), (200, &content[..]));
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{digest}\""));
    assert_eq!(get(&a, &path, &[("if-none-match", &tag)]).status, 304);

    let head = a.public().request("HEAD", &path, None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-", 1000, size),
        ("bytes=-7", size - 7, size),
        ("bytes=4194304-99999999999999999999", 4_194_304, size),
    ] {
        let part = get(&a, &path, &[("range", range)]);
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.body, content[from..to], "{range}");
        let shown = format!("bytes {from}-{}/{size}", to - 1);
        assert_eq!(part.header("content-range"), Some(shown.as_str()));
    }
    let beyond = get(&a, &path, &[("range", &format!("bytes={size}-"))]);
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
    // What is no range, or several, or of something else that was there before, gets the whole.
    for headers in [
        &[("range", "bytes=9-3")][..],
        &[("range", "bytes=0-1,5-6")],
        &[("range", "bytes=0-1"), ("if-range", "\"sha256:other\"")],
    ] {
        assert_eq!(get(&a, &path, headers).body.len(), size);
    }

    let unknown = format!("sha256:{}", "0".repeat(64));
    let known = digest.clone();
    for (path, status, code) in [
        (format!("/v2/alba/small/blobs/{unknown}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/alba/small/manifests/{unknown}"), 404, "MANIFEST_UNKNOWN"),
        // A blob is no manifest, and a blob of one repository is not in another.
        (format!("/v2/alba/small/manifests/{known}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/alba/other/blobs/{known}"), 404, "NAME_UNKNOWN"),
        ("/v2/alba/small/manifests/nightly".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/alba/none/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/small/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/alba/small/blobs/sha256:zz".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/alba/small/blobs/md5:00".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/alba/small/manifests/a%20b".to_owned(), 400, "MANIFEST_INVALID"),
        ("/v2/alba/..%2f..%2fetc/manifests/passwd".to_owned(), 400, "NAME_INVALID"),
        ("/v2/ALBA/small/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("/v2/alba/%ff/tags/list".to_owned(), 400, "NAME_INVALID"),
        (format!("/v2/alba/{}/tags/list", "a".repeat(600)), 400, "NAME_INVALID"),
        ("/v2/alba/small/tags/list?n=x".to_owned(), 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/whatever".to_owned(), 404, "NAME_UNKNOWN"),
    ] {
        refused(&get(&a, &path, &[]), status, code, "");
    }
    for (method, path) in [
        ("POST", "/v2/alba/small/blobs/uploads/"),
        ("PUT", "/v2/alba/small/manifests/stable"),
        ("PATCH", "/v2/alba/small/blobs/uploads/1"),
        ("DELETE", "/v2/alba/small/manifests/stable"),
        ("GET", "/v2/alba/small/blobs/uploads/1"),
        ("DELETE", "/v2/"),
    ] {
        refused(&a.public().request(method, path, None), 405, "UNSUPPORTED", "steelyard publish");
    }

    // Pages.
    let one = get(&a, "/v2/alba/small/tags/list?n=1", &[]);
    assert_eq!(one.json()["tags"], json!(["1"]));
    let link = one.header("link").unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let two = get(&a, next, &[]);
    assert_eq!((two.json()["tags"].clone(), two.header("link")), (json!(["stable"]), None));
    assert_eq!(get(&a, "/v2/_catalog", &[]).json()["repositories"], json!(["alba/small"]));
    assert_eq!(get(&a, "/v2/", &[]).json(), json!({}));
}

#[test]
fn a_client_of_ollama_gets_the_gguf_file_alone() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = model(&net);
    alba.publish(&folder, "small", "1", &[]);
    let a = alba.start();
    let accept = [("accept", DOCKER)];
    let reply = get(&a, "/v2/alba/small/manifests/latest", &accept);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(DOCKER)));
    assert_eq!(reply.header("vary"), Some("accept"));
    let manifest = reply.json();
    let content = fs::read(folder.join("small.gguf")).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.ollama.image.model");
    assert_eq!(layer["digest"], format!("sha256:{}", sha256(&content)));
    assert_eq!(manifest["layers"][1]["mediaType"], "application/vnd.ollama.image.license");
    for part in [layer, &manifest["config"]] {
        let digest = part["digest"].as_str().unwrap();
        let blob = get(&a, &format!("/v2/alba/small/blobs/{digest}"), &[]);
        assert_eq!(format!("sha256:{}", sha256(&blob.body)), digest);
        assert_eq!(part["size"], blob.body.len());
    }
    // Its digest names it whatever a client accepts.
    let digest = reply.header("docker-content-digest").unwrap();
    let again = get(&a, &format!("/v2/alba/small/manifests/{digest}"), &[("accept", OCI)]);
    assert_eq!(again.body, reply.body);

    let plain = net.folder("plain");
    generate::safetensors(&plain.join("model.safetensors"), 1 << 20, 7).unwrap();
    alba.publish(&plain, "plain", "1", &[]);
    refused(&get(&a, "/v2/alba/plain/manifests/1", &accept), 404, "MANIFEST_UNKNOWN", "no GGUF");
}

#[test]
fn the_evidence_refers_to_the_release() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let (secret, _) = python::ec_key(net.path(), "signer");
    let release = alba.publish(&model(&net), "small", "1", &["--releasable-to", "all", "--oms-key", &secret]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    borea.ok(&["attest", "alba/small@1", "--suite", "red-team", "--verdict", "pass", "--valid-days", "30"]);
    let manifest = get(&b, "/v2/alba/small/manifests/1", &[]);
    let digest = manifest.header("docker-content-digest").unwrap().to_owned();
    let list = format!("/v2/alba/small/referrers/{digest}");
    // The log's proof is there once both have it.
    let proof = "application/vnd.steelyard.tlog-proof.v1";
    let index = until("a log proof among the evidence", || {
        let index = get(&b, &list, &[]).json();
        let found = index["manifests"].as_array()?.iter().any(|one| one["artifactType"] == proof);
        found.then_some(index)
    });
    let entries = index["manifests"].as_array().unwrap();
    let mut kinds = Vec::new();
    let mut envelopes = Vec::new();
    for entry in entries {
        let at = format!("/v2/alba/small/manifests/{}", entry["digest"].as_str().unwrap());
        let artifact = get(&b, &at, &[]);
        assert_eq!(format!("sha256:{}", sha256(&artifact.body)), entry["digest"]);
        assert_eq!(entry["size"], artifact.body.len());
        let artifact = artifact.json();
        assert_eq!(artifact["subject"]["digest"], digest);
        assert_eq!(artifact["artifactType"], entry["artifactType"]);
        for part in artifact["layers"].as_array().unwrap().iter().chain([&artifact["config"]]) {
            let name = part["digest"].as_str().unwrap();
            let blob = get(&b, &format!("/v2/alba/small/blobs/{name}"), &[]);
            assert_eq!((blob.status, format!("sha256:{}", sha256(&blob.body))), (200, name.to_owned()));
            if part["mediaType"] == "application/vnd.dsse.envelope.v1+json" {
                envelopes.push(blob.json());
            }
        }
        kinds.push(
            entry["annotations"]["in-toto.io/predicate-type"]
                .as_str()
                .or(entry["artifactType"].as_str())
                .unwrap()
                .to_owned(),
        );
    }
    for wanted in [
        "urn:steelyard:root:v1",
        "urn:steelyard:release:v1",
        "urn:steelyard:channel:v1",
        "urn:steelyard:attestation:v1",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        proof,
    ] {
        assert!(kinds.iter().any(|kind| kind == wanted), "{wanted} is not among {kinds:?}");
    }
    // The very envelopes that the node's own interface shows.
    let shown = b.public().get(&format!("/v1/releases/{release}/evidence"));
    let shown: Vec<&Value> = shown["statements"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|statement| statement["envelopes"].as_array().unwrap())
        .collect();
    assert_eq!(shown.len(), envelopes.len());
    assert!(shown.iter().all(|one| envelopes.contains(one)));

    let filtered = get(&b, &format!("{list}?artifactType={proof}"), &[]);
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    let nothing = get(&b, &format!("/v2/alba/small/referrers/sha256:{}", "0".repeat(64)), &[]);
    assert_eq!((nothing.status, nothing.json()["manifests"].clone()), (200, json!([])));

    // A node that was started again finds by digest what another showed before.
    let kept = entries.last().unwrap()["digest"].as_str().unwrap().to_owned();
    assert_eq!(b.stop(), 0);
    let b = borea.start();
    assert_eq!(get(&b, &format!("/v2/alba/small/manifests/{kept}"), &[]).status, 200);
}

#[test]
fn a_recall_denies_and_cuts_what_is_under_way() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let folder = net.folder("model");
    let file = folder.join("model.safetensors");
    generate::safetensors(&file, 48 << 20, 7).unwrap();
    let digest = sha256(&fs::read(&file).unwrap());
    alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    let path = format!("/v2/alba/small/blobs/sha256:{digest}");
    let manifest = get(&b, "/v2/alba/small/manifests/1", &[]);
    let tag = manifest.header("etag").unwrap().to_owned();

    // A reader that does not read: the node holds a piece of the file for it, no more.
    let mut slow = TcpStream::connect(host(&b)).unwrap();
    write!(slow, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", host(&b)).unwrap();
    let mut begun = [0; 64 * 1024];
    slow.read_exact(&mut begun).unwrap();

    alba.recall("alba/small@1", "leaks what it was told", "high");
    until("the recall to arrive", || {
        let reply = get(&b, &path, &[("range", "bytes=0-9")]);
        (reply.status == 403).then(|| refused(&reply, 403, "DENIED", "leaks what it was told"))
    });
    for path in [
        "manifests/1".to_owned(),
        "manifests/stable".to_owned(),
        format!("referrers/{}", tag.trim_matches('"')),
    ] {
        refused(&get(&b, &format!("/v2/alba/small/{path}"), &[]), 403, "DENIED", "leaks");
    }
    // Whoever has it and asks whether it is still good is told too.
    let asked = get(&b, "/v2/alba/small/manifests/1", &[("if-none-match", &tag)]);
    refused(&asked, 403, "DENIED", "leaks");
    assert_eq!(get(&b, "/v2/_catalog", &[]).json()["repositories"], json!([]));
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(begun.len() + rest.len() < 48 << 20, "the download went on to its end");
}

#[test]
fn what_is_not_for_this_nation_is_not_known() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let folder = model(&net);
    alba.publish(&folder, "secret", "1", &["--releasable-to", "cora"]);
    let other = net.folder("other");
    generate::gguf(&other.join("other.gguf"), 1 << 20, 4).unwrap();
    alba.publish(&other, "open", "1", &["--releasable-to", "all"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    c.pull("alba/secret").unwrap_or_else(|problem| panic!("{problem}"));
    b.pull("alba/open").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(get(&c, "/v2/alba/secret/manifests/1", &[]).status, 200);
    let digest = Sha256::from_hex(&sha256(&fs::read(folder.join("small.gguf")).unwrap())).unwrap();
    for path in ["manifests/1", "tags/list", &format!("blobs/sha256:{digest}")] {
        refused(&get(&b, &format!("/v2/alba/secret/{path}"), &[]), 404, "NAME_UNKNOWN", "not known here");
    }
    // Known but not fetched.
    refused(&get(&c, "/v2/alba/open/manifests/1", &[]), 404, "MANIFEST_UNKNOWN", "pull");
    assert_eq!(get(&c, "/v2/_catalog", &[]).json()["repositories"], json!(["alba/secret"]));
}
