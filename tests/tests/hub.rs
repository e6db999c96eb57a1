//! The Hugging Face Hub's interface, by its stock clients: nothing is changed but `HF_ENDPOINT`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::hub::world::{Three, blobs, model};
use tests::hub::{Cutter, both, endpoint, newest, with_torch};
use tests::net::Settings;
use tests::{Http, Net, generate, until};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// all-MiniLM-L6-v2 with its settings and tokenizer, as `scripts/fetch-weights.sh` brings it.
fn minilm() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-weights.sh");
    let output = Command::new(script).arg("minilm").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let folder = file.parent().unwrap().to_owned();
    for needed in ["config.json", "tokenizer.json"] {
        assert!(folder.join(needed).is_file(), "{} lacks {needed}", folder.display());
    }
    folder
}

#[test]
fn both_clients_read_a_model_that_is_on_none_of_the_asked_nodes_disks() {
    for client in both() {
        let mut release = String::new();
        let three = Three::new("", |net, alba| {
            let folder = model(net, "first", 1, 3);
            release = alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
        });
        three.b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
        three.known("alba/small");
        assert_eq!(blobs(&three.cora), 0, "nothing is here before somebody reads");
        let folder = three.net.path().join("first");
        client.passes(&three.endpoint(), &["read", "alba/small", text(&folder), &release]);
        client.passes(&three.endpoint(), &["filesystem", "alba/small", text(&folder)]);
        client.passes(&three.endpoint(), &["errors", "alba/small", "config.json"]);
        // In the end it is whole and admitted like everything that was pulled, by one transfer.
        let shown = until("cora to have admitted it", || {
            let shown = three.cora.json(&["show", "alba/small"]);
            (shown["admitted"] == true).then_some(shown)
        });
        assert_eq!(shown["presence"], "complete", "{shown}");
        assert_eq!(three.c.http.get("/v1/transfers").as_array().unwrap().len(), 1);
        // What is here is given by the same names and bytes.
        client.passes(&three.endpoint(), &["read", "alba/small", text(&folder), &release]);
    }
}

#[test]
fn revisions_are_channels_versions_and_digests() {
    let net = Net::new();
    let alba = net.nation("alba");
    let first = alba.publish(&model(&net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    std::thread::sleep(Duration::from_millis(1100)); // Releases are dated by the second.
    let second = alba.publish(&model(&net, "two", 2, 1), "small", "2", &["--releasable-to", "all"]);
    alba.ok(&["channel", "alba/small:old", "1"]);
    let a = alba.start();
    let short = &second[3..15];
    for client in both() {
        let pairs = [
            format!("main={second}"),
            format!("stable={second}"),
            format!("old={first}"),
            format!("1={first}"),
            format!("2={second}"),
            format!("refs/heads/old={first}"),
            format!("{short}={second}"),
        ];
        let mut args = vec!["names", "alba/small"];
        args.extend(pairs.iter().map(String::as_str));
        client.passes(&endpoint(a.public()), &args);
        client
            .passes(&endpoint(a.public()), &["snapshot", "alba/small", text(&net.path().join("one")), "old"]);
    }
}

#[test]
fn transformers_reads_real_weights_through_the_node() {
    let folder = minilm();
    let three = Three::new("", |_, alba| {
        alba.publish(&folder, "minilm", "1", &["--releasable-to", "all"]);
    });
    three.known("alba/minilm");
    let client = newest();
    client.passes(&three.endpoint(), &["transformers", "alba/minilm", text(&folder)]);
    let cache = tempfile::tempdir().unwrap();
    let run =
        client.run("hf", &three.endpoint(), cache.path(), &["download", "alba/minilm", "--local-dir", "out"]);
    assert_eq!(run.code, 0, "{run}");
    let ours = fs::read(cache.path().join("out/model.safetensors")).unwrap();
    assert!(ours == fs::read(folder.join("model.safetensors")).unwrap(), "the weights are the same");
    // The client's own check of what it downloaded.
    for args in [&["download", "alba/minilm"][..], &["cache", "verify", "alba/minilm"]] {
        let run = client.run("hf", &three.endpoint(), cache.path(), args);
        assert_eq!(run.code, 0, "{run}");
    }
    match with_torch() {
        Some(client) => client.passes(&three.endpoint(), &["model", "alba/minilm", text(&folder)]),
        None => eprintln!("STEELYARD_TORCH_PYTHON is not set: AutoModel was not run"),
    }
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_stopped() {
    let three = Three::new("", |net, alba| {
        alba.publish(&model(net, "first", 1, 48), "small", "1", &["--releasable-to", "all"]);
    });
    three.known("alba/small");
    let folder = three.net.path().join("first");
    let size = fs::metadata(folder.join("model.safetensors")).unwrap().len();
    for client in both() {
        // What the clients keep are pieces of 10 MB: of each cut a part of one is lost.
        let cutter = Cutter::new(three.c.public(), 3, 12 << 20);
        let (cache, args) = (tempfile::tempdir().unwrap(), ["snapshot", "alba/small", text(&folder), "main"]);
        let run = || client.scenario_in(&cutter.endpoint(), cache.path(), &args).code == 0;
        // The newest goes on by itself; the older one ends, and goes on when it is called again.
        let runs = (1..=4).find(|_| run()).unwrap_or_else(|| panic!("{} never ends", client.name));
        assert!(runs == 1 || client.name.contains("0.36"), "{}: {runs} runs", client.name);
        use std::sync::atomic::Ordering::Relaxed;
        assert_eq!(cutter.cut.load(Relaxed), 3, "{}", client.name);
        let passed = cutter.passed.load(Relaxed);
        assert!(passed < size + 3 * (3 << 20), "{}: {passed} of {size} bytes", client.name);
    }
}

/// One request on a connection of its own, read to its end or to where it is cut: the head, and the body.
fn raw(http: &Http, request: &str) -> (String, Vec<u8>) {
    use std::io::{Read, Write};
    let Http::Tcp(address) = http else { panic!("a TCP address") };
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "{request}\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    (String::from_utf8_lossy(&all[..end]).to_lowercase(), all[end..].to_vec())
}

#[test]
fn the_asked_range_comes_first_and_two_readers_cost_one_fetch() {
    let three = Three::new("[transfer]\nbandwidth = { down = 4000000 }", |net, alba| {
        let folder = net.folder("big");
        generate::safetensors(&folder.join("model.safetensors"), 48 << 20, 5).unwrap();
        alba.publish(&folder, "big", "1", &["--releasable-to", "all"]);
    });
    three.known("alba/big");
    let content = fs::read(three.net.path().join("big/model.safetensors")).unwrap();
    let path = "/alba/big/resolve/main/model.safetensors";
    // The head is there before anything else is.
    let start = std::time::Instant::now();
    let (head, _) = raw(three.c.public(), &format!("HEAD {path} HTTP/1.1"));
    assert!(
        head.contains(&format!("content-length: {}", content.len())) && head.contains("x-linked-etag: \""),
        "{head}"
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(blobs(&three.cora), 0);
    // 48 MiB take 12 s on this line; a range at the end of the file does not wait for what is before it.
    let from = content.len() - 500_000;
    let start = std::time::Instant::now();
    let range = |from: usize| format!("GET {path} HTTP/1.1\r\nRange: bytes={from}-");
    let (head, body) = raw(three.c.public(), &range(from));
    assert!(head.starts_with("http/1.1 206") && body == content[from..], "{head}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let public = three.c.public();
    std::thread::scope(|scope| {
        let readers: Vec<_> = [0, 0, 20 << 20]
            .into_iter()
            .map(|from| (from, scope.spawn(move || raw(public, &range(from)).1)))
            .collect();
        for (from, reader) in readers {
            assert!(reader.join().unwrap() == content[from..], "from {from}");
        }
    });
    let transfers = three.c.http.get("/v1/transfers");
    assert_eq!(transfers.as_array().unwrap().len(), 1, "{transfers}");
    let wire = transfers[0]["bytes_wire"].as_u64().unwrap();
    assert!(wire < content.len() as u64 * 11 / 10, "{wire} of {} bytes", content.len());
}

#[test]
fn a_pull_that_fails_cuts_the_connection_and_a_later_one_goes_on() {
    let three = Three::new(
        "[hub]\nwait_secs = 3\n[transfer]\nbandwidth = { down = 4000000 }\nstall_secs = 2",
        |net, alba| {
            let folder = net.folder("big");
            generate::safetensors(&folder.join("model.safetensors"), 32 << 20, 5).unwrap();
            alba.publish(&folder, "big", "1", &["--releasable-to", "all"]);
        },
    );
    three.known("alba/big");
    let Three { net, alba, cora, a, b, c } = three;
    let content = fs::read(net.path().join("big/model.safetensors")).unwrap();
    let path = "/alba/big/resolve/main/model.safetensors";
    let (head, body) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| raw(c.public(), &format!("GET {path} HTTP/1.1")));
        std::thread::sleep(Duration::from_secs(2));
        a.kill();
        reader.join().unwrap()
    });
    // The whole length was announced; what came is right and the rest is missing.
    assert!(head.contains(&format!("content-length: {}", content.len())), "{head}");
    assert!(
        !body.is_empty() && body.len() < content.len() && body == content[..body.len()],
        "{}",
        body.len()
    );
    let a = alba.start();
    c.connect(&a);
    let from = body.len();
    let (head, rest) = raw(c.public(), &format!("GET {path} HTTP/1.1\r\nRange: bytes={from}-"));
    assert!(
        rest == content[from..],
        "{} of {}: {head} {}",
        rest.len(),
        content.len() - from,
        String::from_utf8_lossy(&rest[..rest.len().min(300)])
    );
    drop((b, cora));
}

#[test]
fn a_recall_is_the_clients_disabled_and_a_warning_for_who_fetched_it() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.publish(&model(&net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    alba.publish(&model(&net, "two", 2, 1), "small", "2", &["--releasable-to", "all"]);
    let a = alba.start();
    let url = endpoint(a.public());
    let reply = a.public().request("GET", "/alba/small/resolve/1/config.json", None);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-hf-warning"), None);
    alba.recall("alba/small@1", "leaks its training data", "high");
    for client in both() {
        client.passes(&url, &["recalled", "alba/small", "config.json", "1", "2"]);
    }
    let reply = a.public().request("GET", "/alba/small/resolve/1/config.json", None);
    assert_eq!(
        (reply.status, reply.header("x-error-message")),
        (403, Some("Access to this resource is disabled."))
    );
    assert!(reply.header("x-hf-warning").unwrap().contains("leaks its training data"));
}

#[test]
fn what_the_policy_or_the_settings_refuse_says_why() {
    // No nation witnesses, so cora's policy does not admit what it knows.
    let three = Three::new("[policy]\nwitnesses = 7", |net, alba| {
        alba.publish(&model(net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
        alba.publish(&model(net, "two", 2, 1), "secret", "1", &["--releasable-to", "borea"]);
    });
    until("cora to know the model", || {
        let reply = three.c.public().request("GET", "/api/models/alba/small", None);
        (reply.status == 403).then_some(())
    });
    for client in both() {
        client.passes(&three.endpoint(), &["refused", "alba/small", "config.json", "policy"]);
    }
    let reply = three.c.public().request("GET", "/api/models/alba/secret", None);
    assert_eq!((reply.status, reply.header("x-error-code")), (401, Some("RepoNotFound")));

    let three = Three::new("[hub]\npull_through = false", |net, alba| {
        alba.publish(&model(net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    });
    three.known("alba/small");
    let reply = three.c.public().request("GET", "/alba/small/resolve/main/config.json", None);
    assert_eq!((reply.status, reply.header("x-error-code")), (403, Some("GatedRepo")), "{}", reply.text());
    assert!(reply.text().contains("hub.pull_through"));
    assert!(three.c.http.get("/v1/transfers").as_array().unwrap().is_empty());
}

#[test]
fn tokens_are_asked_for_end_and_are_taken_back() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.publish(&model(&net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    let more = "[hub]\nanonymous = false\nrequests_per_minute = 600".to_owned();
    alba.configure(&Settings { more, ..Settings::default() });
    // Before the node runs and while it does.
    let read = alba.ok(&["token", "create", "laptop", "--days", "2"]).stdout.trim().to_owned();
    let a = alba.start();
    let stage = alba.json(&["token", "create", "builds", "--scope", "stage"]);
    let stage = stage["token"].as_str().unwrap().to_owned();
    assert!(read.starts_with("hf_") && read.len() >= 37, "its shape");
    alba.run(&["token", "create", "laptop"]).expect(7, &["laptop"]);
    let listed = alba.ok(&["token", "list"]).stdout;
    assert!(
        listed.contains("laptop") && listed.contains("stage") && !listed.contains(&read[3..]),
        "{listed}"
    );
    let url = endpoint(a.public());
    for client in both() {
        client.passes(&url, &["tokens", "alba/small", "config.json", &read, "alba", "read"]);
        client.passes(&url, &["tokens", "alba/small", "config.json", &stage, "alba", "write"]);
    }
    alba.ok(&["token", "revoke", "laptop"]);
    alba.run(&["token", "revoke", "laptop"]).expect(3, &["token list"]);
    for client in both() {
        client.passes(&url, &["wrong-token", "alba/small", &read]);
    }
    // Who guesses is slowed down.
    let guess = || {
        let headers = [("authorization", "Bearer hf_0000000000000000000000000000000000")];
        a.public().try_request_with("GET", "/api/whoami-v2", &headers, None).unwrap()
    };
    let limited = (0..100).map(|_| guess()).find(|reply| reply.status == 429).expect("a limit");
    assert!(limited.header("retry-after").is_some() && limited.header("ratelimit").is_some());
}

/// The calls of llama.cpp's `-hf alba/small`, in its order: refs, tree of the commit, then the file with its hash compared,
/// in pieces. The program itself is not run.
#[test]
fn the_calls_of_llama_cpp_are_answered() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = net.folder("tiny");
    fs::write(folder.join("tiny-Q4_K_M.gguf"), generate::tiny_gguf()).unwrap();
    alba.publish(&folder, "tiny", "1", &["--releasable-to", "all"]);
    let a = alba.start();
    let get = |path: &str| a.public().get(path);
    let refs = get("/api/models/alba/tiny/refs");
    let commit = refs["branches"][0]["targetCommit"].as_str().unwrap().to_owned();
    assert_eq!((refs["branches"][0]["name"].as_str(), commit.len()), (Some("main"), 40));
    let tree = get(&format!("/api/models/alba/tiny/tree/{commit}?recursive=true"));
    let file = tree.as_array().unwrap().iter().find(|entry| entry["path"] == "tiny-Q4_K_M.gguf").unwrap();
    let hex = |value: &Value, len| value.as_str().is_some_and(|text| text.len() == len);
    assert!(hex(&file["oid"], 40) && hex(&file["lfs"]["oid"], 64) && file["type"] == "file", "{file}");
    let path = format!("/alba/tiny/resolve/{commit}/tiny-Q4_K_M.gguf");
    let head = a.public().request("HEAD", &path, None);
    assert_eq!((head.status, head.header("accept-ranges")), (200, Some("bytes")));
    assert_eq!(head.header("etag"), Some(&*format!("\"{}\"", file["lfs"]["oid"].as_str().unwrap())));
    let mut whole: Vec<u8> = Vec::new();
    let size = file["size"].as_u64().unwrap();
    while (whole.len() as u64) < size {
        let range = format!("bytes={}-{}", whole.len(), whole.len() + 50_000);
        let reply = a.public().try_request_with("GET", &path, &[("range", &range)], None).unwrap();
        assert_eq!(reply.status, 206, "{}", reply.text());
        whole.extend(&reply.body[..]);
    }
    assert_eq!(whole, generate::tiny_gguf());
}

#[test]
fn bad_requests_get_clear_answers() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.publish(&model(&net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    let a = alba.start();
    let file = "/alba/small/resolve/main/model.safetensors";
    let status = |path: &str, headers: &[(&str, &str)]| {
        a.public().try_request_with("GET", path, headers, None).unwrap().status
    };
    for (range, wanted) in [
        ("bytes=0-1,5-6", 416),
        ("bytes=99999999-", 416),
        ("bytes=-0", 416),
        ("bytes=5-1", 200),
        ("lines=1-2", 200),
        ("bytes=0-0", 206),
    ] {
        assert_eq!(status(file, &[("range", range)]), wanted, "{range}");
    }
    let etag = a.public().request("HEAD", file, None).header("etag").unwrap().to_owned();
    assert_eq!(status(file, &[("if-none-match", &etag)]), 304);
    assert_eq!(status(file, &[("if-range", "\"other\""), ("range", "bytes=0-0")]), 200);
    assert_eq!(status(file, &[("if-range", &etag), ("range", "bytes=0-0")]), 206);
    for path in [
        "/alba/small/resolve/main/..%2F..%2Fkeys%2Fpeer.key",
        "/alba/small/resolve/main/%2Fetc%2Fpasswd",
        "/alba/small/resolve/..%2F../config.json",
        "/alba/..%2F../resolve/main/config.json",
        "/alba/small/resolve/%00/config.json",
    ] {
        assert!(matches!(status(path, &[]), 400 | 401 | 404), "{path}");
    }
    assert_eq!(status("/alba/small/resolve/main/empty.txt", &[]), 200);
    assert_eq!(status("/api/models/alba/small/tree/main?limit=0", &[]), 400);
    // Pages follow each other, by the commit.
    let (mut seen, mut next) =
        (Vec::new(), Some("/api/models/alba/small/tree/main?recursive=true&limit=2".to_owned()));
    while let Some(path) = next.take() {
        let reply = a.public().request("GET", &path, None);
        seen.extend(reply.json().as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap().to_owned()));
        next = reply.header("link").map(|link| {
            let link = link.split('>').next().unwrap().trim_start_matches("<http://");
            link[link.find('/').unwrap()..].to_owned()
        });
    }
    assert_eq!(
        seen,
        [
            "README.md",
            "config.json",
            "empty.txt",
            "model.safetensors",
            "onnx",
            "onnx/deep",
            "onnx/deep/notes ö.txt"
        ]
    );
    let question = json!({ "paths": vec!["a"; 2000] });
    let reply = a.public().request("POST", "/api/models/alba/small/paths-info/main", Some(&question));
    assert_eq!(reply.status, 400, "{}", reply.text());
    let question = json!({ "paths": ["x".repeat(400_000)] });
    let reply = a.public().request("POST", "/api/models/alba/small/paths-info/main", Some(&question));
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.publish(&model(&net, "one", 1, 1), "small", "1", &["--releasable-to", "all"]);
    let a = alba.start();
    let Http::Tcp(address) = a.public().clone() else { panic!("a TCP address") };
    // As many as this process may open, up to ten thousand.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let wanted = most.saturating_sub(200).min(10_000);
    let mut held = Vec::new();
    let before = std::time::Instant::now();
    while (held.len() as u64) < wanted && before.elapsed() < Duration::from_secs(60) {
        let stream = std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5));
        held.extend(stream);
    }
    assert!(held.len() as u64 >= wanted.min(2000), "{} connections", held.len());
    let start = std::time::Instant::now();
    let reply = a.public().try_request("GET", "/alba/small/resolve/main/config.json", None).unwrap();
    assert_eq!(reply.status, 200);
    assert!(start.elapsed() < Duration::from_secs(45), "{:?} among {}", start.elapsed(), held.len());
    let resident = tests::meter::resident(a.pid()) >> 20;
    assert!(resident < 200, "{resident} MiB");
}

#[test]
fn files_of_every_length_come_as_they_are() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = net.folder("lengths");
    // Around what is sent by the kernel and what is not, and longer than one piece.
    let lengths = [1usize, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 70_000];
    for length in lengths {
        let mut bytes = vec![0; length];
        generate::Noise::new(length as u64).fill(&mut bytes);
        // Text, which is a safe kind of file.
        bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
        fs::write(folder.join(format!("{length}.txt")), bytes).unwrap();
    }
    alba.publish(&folder, "lengths", "1", &["--releasable-to", "all"]);
    let a = alba.start();
    for length in lengths {
        let wanted = fs::read(folder.join(format!("{length}.txt"))).unwrap();
        for from in [0, 1, length / 2, length - 1].into_iter().filter(|from| *from < length) {
            let range = format!("bytes={from}-");
            let path = format!("/alba/lengths/resolve/main/{length}.txt");
            for http in [a.public(), &a.http] {
                let reply = http.try_request_with("GET", &path, &[("range", &range)], None).unwrap();
                assert!(reply.body[..] == wanted[from..], "{length} from {from}");
            }
        }
    }
}
