//! Pushing with the hub's stock clients, and publishing what was pushed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::hub::world::model;
use tests::hub::{Client, both, endpoint, newest, older};
use tests::net::Settings;
use tests::{Daemon, Home, Http, Net, generate, until};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A nation with a running node and a token that may stage.
struct World {
    net: Net,
    alba: Home,
    a: Daemon,
    token: String,
}

impl World {
    fn new(more: &str) -> Self {
        Self::with(more, |_, _| {})
    }

    fn with(more: &str, before: impl FnOnce(&Net, &Home)) -> Self {
        let net = Net::new();
        let alba = net.nation("alba");
        before(&net, &alba);
        alba.configure(&Settings { more: more.to_owned(), ..Settings::default() });
        let token = token(&alba, "builds", "stage");
        let a = alba.start();
        Self { net, alba, a, token }
    }

    fn url(&self) -> String {
        endpoint(self.a.public())
    }

    fn client(&self, client: Client, xet: bool) -> Client {
        let client = client.with("HF_TOKEN", &self.token);
        if xet { client } else { client.with("HF_HUB_DISABLE_XET", "1") }
    }

    /// Both clients by both routes, each with a name for what it pushes.
    fn routes(&self) -> Vec<(Client, String)> {
        let all = both().into_iter().zip(["new", "old"]);
        all.flat_map(|(client, name)| {
            [true, false].map(|xet| {
                let route = if xet { "xet" } else { "lfs" };
                (self.client(client.clone(), xet), format!("alba/{name}-{route}"))
            })
        })
        .collect()
    }

    fn staged(&self) -> Vec<Value> {
        self.a.http.get("/v1/staged").as_array().unwrap().clone()
    }

    /// What lies in the area, by folder.
    fn listing(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.alba.path.join("staging").join(folder)];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        found
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        raw(self.a.public(), method, path, &[("Authorization", &format!("Bearer {}", self.token))], body)
    }
}

fn token(home: &Home, name: &str, scope: &str) -> String {
    home.ok(&["token", "create", name, "--scope", scope]).stdout.trim().to_owned()
}

/// One request with a body of any kind.
fn raw(http: &Http, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let Http::Tcp(address) = http else { panic!("a TCP address") };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let reply = String::from_utf8_lossy(&all).into_owned();
    let status = reply.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let body = reply.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A model with a file large enough for several xorbs' chunks, and texts too large to come within a commit.
fn pushed(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = model(net, name, seed, 5);
    fs::write(folder.join("vocab.txt"), "a word of a vocabulary\n".repeat(30_000)).unwrap();
    folder
}

#[test]
fn a_folder_is_pushed_by_both_clients_and_both_routes() {
    let world = World::new("");
    let folder = pushed(&world.net, "first", 1);
    for (client, name) in world.routes() {
        client.passes(&world.url(), &["push-folder", &name, text(&folder)]);
    }
    assert_eq!(world.staged().len(), 4);
    // The same content four times lies here once.
    let weights = fs::metadata(folder.join("model.safetensors")).unwrap().len();
    let large =
        world.listing("objects").iter().filter(|path| fs::metadata(path).unwrap().len() == weights).count();
    assert_eq!(large, 1);
    assert!(!world.listing("xorbs").is_empty(), "the Xet route was taken");
    assert!(world.listing("incoming").is_empty() && world.listing("multipart").is_empty());
}

#[test]
fn a_large_folder_and_the_command_push_too() {
    let world = World::new("");
    for (client, name) in world.routes() {
        // One for each, since the older client keeps its notes of what it pushed in the folder, whatever it is pushed to.
        let folder = model(&world.net, &name.replace('/', "-"), 3, 2);
        for number in 0..60 {
            fs::write(folder.join(format!("part-{number}.json")), format!("{{\"n\": {number}}}")).unwrap();
        }
        client.passes(&world.url(), &["push-large-folder", &name, text(&folder)]);
        let cache = tempfile::tempdir().unwrap();
        let name = format!("{name}-command");
        let run = client.run(
            "hf",
            &world.url(),
            cache.path(),
            &["upload", &name, text(&folder), ".", "--revision", "beta"],
        );
        assert_eq!(run.code, 0, "{}: {run}", client.name);
        let of = |it: &&Value| it["model"] == name.as_str() && it["branch"] == "beta";
        let staged = world.staged();
        let beta = staged.iter().find(of).unwrap_or_else(|| panic!("{staged:?}"));
        assert!(beta["files"].as_u64().unwrap() >= 65, "{beta}");
    }
}

#[test]
fn commits_add_take_away_and_copy_and_a_stale_parent_is_refused() {
    let world = World::new("");
    let weights = world.net.path().join("w.safetensors");
    generate::safetensors(&weights, 3 << 20, 7).unwrap();
    for (client, name) in world.routes() {
        client.passes(&world.url(), &["push-commits", &name, text(&weights)]);
    }
}

#[test]
fn a_branch_begins_with_the_release_and_is_published_and_pulled_elsewhere() {
    for (client, xet) in [(newest(), true), (older(), false)] {
        let net = Net::new();
        let [alba, borea] = net.allies(["alba", "borea"]);
        alba.publish(&model(&net, "first", 1, 2), "small", "1", &["--releasable-to", "all"]);
        let (a, b) = (alba.start(), borea.start());
        b.connect(&a);
        let stage = token(&alba, "builds", "stage");
        let world = World { net, alba, a, token: stage };
        let weights = world.net.path().join("w.safetensors");
        generate::safetensors(&weights, 3 << 20, 7).unwrap();
        let client = world.client(client, xet);
        client.passes(&world.url(), &["push-onto-release", "alba/small", text(&weights)]);

        let publish = |more: &[&str]| {
            let all = [&["publish", "--staged", "alba/small", "--version", "2"], more].concat();
            world.alba.run(&all)
        };
        publish(&[]).expect(2, &["--yes"]);
        world
            .alba
            .run(&["publish", "--staged", "alba/small@other", "--version", "2", "--yes"])
            .expect(3, &["alba/small@main"]);
        world
            .alba
            .run(&["publish", "--staged", "alba/small", "--version", "1", "--yes"])
            .expect(7, &["published already"]);
        let run = publish(&["--yes"]);
        assert_eq!(run.code, 0, "{run}");
        for said in ["added.safetensors", "config.json", "1 added", "1 removed", "against alba/small@1"] {
            assert!(run.stderr.contains(said), "{said}: {run}");
        }
        assert!(world.staged().is_empty(), "the branch is cleared");
        assert!(world.listing("objects").is_empty() && world.listing("checkouts").is_empty());
        publish(&["--yes"]).expect(7, &["published already"]);
        b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
        let reply = b.public().request("GET", "/alba/small/resolve/main/added.safetensors", None);
        assert!(reply.status == 200 && reply.body[..] == fs::read(&weights).unwrap(), "{}", reply.status);
        let shown = b.public().request("GET", "/alba/small/resolve/main/config.json", None);
        assert_eq!(shown.status, 404, "what was taken away is not in the release");
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_clients_own_class_and_leaves_nothing() {
    let world = World::new("");
    let read = token(&world.alba, "reader", "read");
    let ended = token(&world.alba, "ended", "stage");
    world.alba.ok(&["token", "revoke", "ended"]);
    for (client, name) in world.routes() {
        client.passes(&world.url(), &["push-refused", &name, &read, &ended]);
    }
    // A secret that was refused is not kept either.
    for path in world.listing("objects") {
        let content = fs::read(&path).unwrap();
        assert!(!content.windows(11).any(|part| part == b"PRIVATE KEY"), "{}", path.display());
        assert!(!content.windows(6).any(|part| part == b"hf_AbC"), "{}", path.display());
    }
}

#[test]
fn a_full_area_and_a_full_disk_are_told_and_small_things_go_on() {
    // The setting counts in GiB, so that the file is sparse on its way: it is refused before it is sent.
    let world = World::new("[hub]\nstaging_gib = 1");
    let huge = world.net.path().join("huge.safetensors");
    sparse_weights(&huge, 2 << 30);
    let client = world.client(newest(), false);
    client.passes(&world.url(), &["push-full", "alba/full", text(&huge)]);
    assert!(world.listing("incoming").is_empty());
}

/// Weights that take no room on the disk.
fn sparse_weights(path: &Path, size: u64) {
    let head = json!({ "w": { "dtype": "U8", "shape": [size], "data_offsets": [0, size] } }).to_string();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(head.len() as u64).to_le_bytes()).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    file.set_len(8 + head.len() as u64 + size).unwrap();
}

#[test]
fn large_content_goes_in_parts() {
    let world = World::new("");
    let weights = world.net.path().join("w.safetensors");
    generate::safetensors(&weights, 70 << 20, 9).unwrap();
    let client = world.client(newest(), false);
    client.passes(&world.url(), &["push-file", "alba/parts", text(&weights), "model.safetensors"]);
    assert!(world.listing("multipart").is_empty());
    let path = "/alba/parts/resolve/main/model.safetensors";
    let bearer = format!("Bearer {}", world.token);
    let reply = world.a.public().try_request_with("GET", path, &[("authorization", &bearer)], None).unwrap();
    assert!(reply.status == 200 && reply.body[..] == fs::read(&weights).unwrap(), "{}", reply.status);
    assert!(reply.header("x-hf-warning").unwrap().contains("not signed"));
    let shown = world.a.public().request("GET", path, None);
    assert_eq!(shown.status, 401, "nobody else reads it");
}

fn batch(world: &World, name: &str, oid: &str, size: u64, transfers: &[&str]) -> (u16, Value) {
    let body = json!({ "operation": "upload", "transfers": transfers, "objects": [{ "oid": oid, "size": size }], "hash_algo": "sha256" });
    world.ask("POST", &format!("/{name}.git/info/lfs/objects/batch"), body.to_string().as_bytes())
}

fn path_of(href: &Value) -> String {
    let href = href.as_str().unwrap().trim_start_matches("http://");
    href[href.find('/').unwrap()..].to_owned()
}

#[test]
fn uploads_that_are_cut_or_not_what_was_announced_leave_nothing() {
    let world = World::new("");
    let made = world.ask("POST", "/api/repos/create", br#"{"name": "cut", "organization": "alba"}"#);
    assert_eq!(made.0, 200, "{made:?}");
    let oid = "11".repeat(32);
    let (status, answer) = batch(&world, "alba/cut", &oid, 100_000, &["basic"]);
    assert_eq!(status, 200, "{answer}");
    let put = path_of(&answer["objects"][0]["actions"]["upload"]["href"]);
    // Another content, more and less than announced, and a seal for something else.
    let a = world.a.public();
    for (body, wanted) in [(vec![7; 100_000], 400), (vec![7; 100_001], 413), (vec![7; 99_999], 400)] {
        let (status, answer) = raw(a, "PUT", &put, &[], &body);
        assert_eq!(status, wanted, "{answer}");
    }
    for forged in [
        put.replace("size=100000", "size=100001"),
        put.replace(&oid, &"22".repeat(32)),
        put.replace("seal=", "seal=x"),
    ] {
        assert_eq!(raw(a, "PUT", &forged, &[], &[7; 1000]).0, 401, "{forged}");
    }
    // Cut in the middle.
    let Http::Tcp(address) = a else { panic!() };
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "PUT {put} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100000\r\n\r\n").unwrap();
    stream.write_all(&[7; 50_000]).unwrap();
    until("the upload to begin", || (!world.listing("incoming").is_empty()).then_some(()));
    drop(stream);
    until("the cut upload to be gone", || world.listing("incoming").is_empty().then_some(()));
    assert!(world.listing("objects").is_empty());
    let verify = json!({ "oid": oid, "size": 100_000 }).to_string();
    assert_eq!(world.ask("POST", "/alba/cut/info/lfs/verify", verify.as_bytes()).0, 404);
    // A commit cannot name what is not here.
    let commit = |lines: &str| world.ask("POST", "/api/models/alba/cut/commit/main", lines.as_bytes());
    let head = r#"{"key": "header", "value": {"summary": "x"}}"#;
    let lfs = format!(
        r#"{{"key": "lfsFile", "value": {{"path": "w.safetensors", "algo": "sha256", "oid": "{oid}", "size": 100000}}}}"#
    );
    assert_eq!(commit(&format!("{head}\n{lfs}\n")).0, 400);
    // A revoked token's addresses end with it.
    world.alba.ok(&["token", "revoke", "builds"]);
    assert_eq!(raw(a, "PUT", &put, &[], &[7; 1000]).0, 401);
}

#[test]
fn commits_that_are_bombs_or_nonsense_are_refused() {
    let world = World::new("");
    world.ask("POST", "/api/repos/create", br#"{"name": "bad"}"#);
    let commit = |body: &[u8]| world.ask("POST", "/api/models/alba/bad/commit/main", body);
    let head = br#"{"key": "header", "value": {"summary": "x"}}"#;
    let with = |lines: &[u8]| [&head[..], b"\n", lines].concat();
    let deep = with(&[b"[".repeat(100_000), b"\n".to_vec()].concat());
    let long = with(
        &[
            br#"{"key": "file", "value": {"path": "a.txt", "content": ""#.to_vec(),
            b"A".repeat(20 << 20),
            b"\"}}".to_vec(),
        ]
        .concat(),
    );
    let many = with(
        &br#"{"key": "deletedFile", "value": {"path": "x"}}
"#
        .repeat(40_000),
    );
    let cases: [(&str, Vec<u8>, u16); 9] = [
        ("empty", Vec::new(), 400),
        ("no header", br#"{"key": "deletedFile", "value": {"path": "x"}}"#.to_vec(), 400),
        ("no json", b"\x00\xff\n".to_vec(), 400),
        ("unknown", with(br#"{"key": "merge", "value": {}}"#), 400),
        ("deep", deep, 400),
        ("a long line", long, 413),
        ("many lines", many, 413),
        ("not base64", with(br#"{"key": "file", "value": {"path": "a.txt", "content": "%", "encoding": "base64"}}"#), 400),
        ("outside", with(br#"{"key": "file", "value": {"path": "../../x.txt", "content": "eA==", "encoding": "base64"}}"#), 400),
    ];
    for (name, body, wanted) in cases {
        let (status, answer) = commit(&body);
        assert_eq!(status, wanted, "{name}: {answer}");
    }
    let path = "/api/models/alba/bad/preupload/main";
    for body in [
        &b"[]"[..],
        br#"{"files": [{"path": "../x", "size": 1}]}"#,
        br#"{"files": [{"path": "/x", "size": 1}]}"#,
    ] {
        assert_eq!(world.ask("POST", path, body).0, 400);
    }
    for name in ["..%2F..%2Fetc", "refs%2Fheads%2F..", "a%00b", "HEAD", &"x".repeat(200)] {
        let (status, answer) = world.ask("POST", &format!("/api/models/alba/bad/branch/{name}"), b"{}");
        assert!(matches!(status, 400 | 404), "{name}: {status} {answer}");
    }
    let tree = world.ask("GET", "/api/models/alba/bad/tree/main", b"");
    assert!(tree.0 == 404 || tree.1.as_array().is_some_and(Vec::is_empty), "{tree:?}");
    assert!(world.listing("incoming").is_empty());
}

#[test]
fn the_xet_routes_take_only_what_is_what_it_says() {
    let world = World::new("");
    world.ask("POST", "/api/repos/create", br#"{"name": "xet"}"#);
    let (status, told) = world.ask("GET", "/api/models/alba/xet/xet-write-token/main", b"");
    assert_eq!(status, 200, "{told}");
    let bearer = format!("Bearer {}", told["accessToken"].as_str().unwrap());
    assert!(told["casUrl"].as_str().unwrap().ends_with("/xet") && told["exp"].as_i64().is_some());
    let a = world.a.public();
    let ask = |path: &str, auth: &str, body: &[u8]| raw(a, "POST", path, &[("Authorization", auth)], body).0;
    let hash = "ab".repeat(32);
    let xorb = format!("/xet/v1/xorbs/default/{hash}");
    // One chunk of four bytes, not packed; its name is another.
    let chunk = [&[0u8, 4, 0, 0, 0, 4, 0, 0][..], b"abcd"].concat();
    assert_eq!(ask(&xorb, &bearer, &chunk), 400);
    assert_eq!(ask(&xorb, "Bearer x.1.y", &chunk), 401);
    assert_eq!(ask(&xorb, &format!("Bearer {}", world.token), &chunk), 401);
    // More than a chunk may announce, a packed bomb, a cut head, nothing.
    for bad in [
        &[0u8, 4, 0, 0, 0, 255, 255, 255][..],
        &[0, 9, 0, 0, 1, 0, 0, 2, 4, 0x22, 0x4d, 0x18, 0x60, 0, 0, 0, 0],
        &chunk[..5],
        &[],
    ] {
        assert_eq!(ask(&xorb, &bearer, bad), 400, "{bad:?}");
    }
    for path in ["/xet/v1/xorbs/default/zz", "/xet/v1/xorbs/other/00", "/xet/v1/xorbs/default/..%2F..%2Fx"] {
        assert_eq!(ask(path, &bearer, &chunk), 400, "{path}");
    }
    assert_eq!(ask("/xet/v1/shards", &bearer, b"no shard"), 400);
    assert_eq!(ask("/xet/v1/shards", &bearer, &[0xff; 4096]), 400);
    assert_eq!(
        raw(a, "GET", &format!("/xet/v1/chunks/default-merkledb/{hash}"), &[("Authorization", &bearer)], b"")
            .0,
        404
    );
    assert!(
        world.listing("xorbs").is_empty()
            && world.listing("objects").is_empty()
            && world.listing("incoming").is_empty()
    );
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let world = World::new("");
    let weights = world.net.path().join("w.safetensors");
    generate::safetensors(&weights, 24 << 20, 11).unwrap();
    let client = world.client(newest(), true);
    let cache = tempfile::tempdir().unwrap();
    let push = |url: &str, name: &str| {
        let args = ["push-file", name, text(&weights), "model.safetensors"];
        let run = client.scenario_in(url, cache.path(), &args);
        assert_eq!(run.code, 0, "{run}");
    };
    push(&world.url(), "alba/kept");
    let before = world.staged();
    let World { net, alba, a, token } = world;
    a.kill();
    let a = alba.start();
    let world = World { net, alba, a, token };
    assert_eq!(world.staged(), before);
    // The same client remembers what it sent, and need not send it again.
    push(&world.url(), "alba/again");
    assert_eq!(world.staged().len(), 2);
}

#[test]
fn pushing_can_be_switched_off() {
    let world = World::new("[hub]\npush = false");
    let (status, answer) = world.ask("POST", "/api/repos/create", br#"{"name": "small"}"#);
    assert_eq!(status, 403, "{answer}");
    assert!(!world.alba.path.join("staging").exists());
}
