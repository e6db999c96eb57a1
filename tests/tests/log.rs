//! Nations' logs: what is signed is appended, witnessed and followed; lies and restored backups are found.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use registry::key::SecretKey;
use registry::log::checkpoint::{SignedCheckpoint, note_keys};
use registry::log::tree::{leaf_hash, node_hash};
use registry::log::witness::AddCheckpoint;
use registry::statement::{RoleName, Statement};
use registry::{Nation, Signed};
use serde_json::{Value, json};
use tests::hostile::{Hostile, Identity, frame, read_frame};
use tests::http::{Events, runtime};
use tests::{Daemon, Home, Net, generate, until, wait};

const LOG: &str = "/steelyard/log/1";

fn small(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, seed).unwrap();
    folder
}

/// One nation's log as a node has it.
fn log_of(node: &Daemon, nation: &str) -> Value {
    let status = node.http.get("/v1/log");
    let logs = status["logs"].as_array().unwrap().clone();
    logs.into_iter().find(|log| log["nation"] == nation).unwrap_or_else(|| json!({ "size": 0 }))
}

fn size(node: &Daemon, nation: &str) -> u64 {
    log_of(node, nation)["size"].as_u64().unwrap()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Waits until `node` has `entries` of the log, cosigned by `witnesses`.
fn wait_for(node: &Daemon, nation: &str, entries: u64, witnesses: &[&str]) {
    until(&format!("{entries} entries of {nation} cosigned by {witnesses:?}"), || {
        let log = log_of(node, nation);
        let cosigned = names(&log["witnesses"]);
        (log["size"] == entries && witnesses.iter().all(|one| cosigned.contains(one))).then_some(())
    });
}

fn alerts(node: &Daemon) -> Events {
    node.http.events("GET", "/v1/events?kinds=alert", None)
}

fn alert(events: &mut Events, code: &str) -> Value {
    events.find(Duration::from_secs(30), code, |event| event.json()["code"] == code).json()
}

/// A copy of a home folder, as a backup makes it of a node that is stopped.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--"]).args([from, to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn what_is_published_is_logged_witnessed_and_proved_at_an_ally() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    let folder = small(&net, "model", 1);
    let start = Instant::now();
    let args = ["publish", folder.to_str().unwrap(), "--as", "alba/m", "--version", "1", "--licence", "MIT"];
    let said = alba.json(&args);
    println!("published, logged and witnessed after {:?}: {}", start.elapsed(), said["log"]);
    assert_eq!(said["log"]["logged"]["index"], 0, "{said}");
    assert_eq!(names(&said["log"]["logged"]["witnesses"]), ["borea", "cora"], "{said}");
    let release = said["release"].as_str().unwrap();

    // The release and the channel: two entries, the same ones everywhere.
    for node in [&b, &c] {
        wait_for(node, "alba", 2, &["borea", "cora"]);
        until("the release to be known", || {
            let place = node.http.request("GET", &format!("/v1/log/place/{release}"), None);
            (place.status == 200 && place.json()["logged"]["index"] == 0).then_some(())
        });
        assert_eq!(log_of(node, "alba")["root"], log_of(&a, "alba")["root"]);
    }
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    borea.ok(&["show", "alba/m"]).expect(0, &["entry 0 of `alba`", "cora"]);
    borea.ok(&["log", "show", "alba"]).expect(0, &["release", "alba/m@1", "channel"]);
    alba.ok(&["log", "monitor"]).expect(0, &["alba/m@1"]);

    // Any C2SP client reads the log from any node, and the tiles are the tree that the checkpoint signs.
    let public = b.public();
    let checkpoint = public.request("GET", "/log/alba/checkpoint", None);
    assert_eq!(checkpoint.status, 200);
    assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
    let root = fs::read(alba.path.join("root.json")).unwrap();
    let Statement::Root(root) = Signed::parse(&root).unwrap().peek().unwrap() else { panic!("no root") };
    let nation = Nation::new("alba").unwrap();
    let signed =
        SignedCheckpoint::verify(&nation, &checkpoint.body, &note_keys(&root, RoleName::Log)).unwrap();
    let bundle = public.request("GET", "/log/alba/tile/entries/000.p/2", None);
    assert_eq!(bundle.body.len(), 2 * 35, "{}", bundle.text());
    assert!(bundle.header("cache-control").unwrap().contains("immutable"));
    let leaf = |at: usize| leaf_hash(&bundle.body[at * 35 + 2..(at + 1) * 35]);
    assert_eq!(node_hash(&leaf(0), &leaf(1)), *signed.root());
    let tile = public.request("GET", "/log/alba/tile/0/000.p/2", None);
    assert_eq!(&tile.body[..], [leaf(0), leaf(1)].concat());
    assert_eq!(public.request("GET", "/log/alba/tile/0/001", None).status, 404);
    assert_eq!(public.request("GET", "/log/dora/checkpoint", None).status, 404);
}

#[test]
fn a_log_outlives_its_owners_absence() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let release = alba.publish(&small(&net, "model", 2), "m", "1", &[]);
    wait_for(&b, "alba", 2, &["borea"]);
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    a.stop();
    // cora never met alba.
    let c = cora.start();
    c.connect(&b);
    wait_for(&c, "alba", 2, &["borea"]);
    c.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    let place = c.http.get(&format!("/v1/log/place/{release}"));
    assert_eq!(place["logged"]["index"], 0, "{place}");
    assert_eq!(names(&place["logged"]["witnesses"]), ["borea"], "{place}");
}

#[test]
fn statements_wait_until_an_ally_was_asked() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let a = alba.start();
    let folder = small(&net, "model", 3);
    let args = ["publish", folder.to_str().unwrap(), "--as", "alba/m", "--version", "1", "--licence", "MIT"];
    let said = alba.json(&args);
    assert_eq!(said["log"]["logged"], Value::Null, "{said}");
    assert!(said["log"]["waiting"].as_str().unwrap().contains("no ally"), "{said}");
    let status = a.http.get("/v1/log");
    assert_eq!(status["pending"], 2, "{status}");
    alba.ok(&["status"]).expect(0, &["2 statements to be logged"]);
    let b = borea.start();
    a.connect(&b);
    wait_for(&b, "alba", 2, &["borea"]);
    assert_eq!(a.http.get("/v1/log")["pending"], 0);

    // Without allies there is nobody to ask.
    let dora = net.nation("dora");
    let d = dora.start();
    dora.publish(&small(&net, "other", 4), "m", "1", &[]);
    until("dora's log to have grown", || (size(&d, "dora") == 2).then_some(()));
    // And a nation that says so does without them.
    drop(b);
    a.stop();
    let a = alba.start_with_fixed_ports("[log]\nstandalone = true\n");
    alba.publish(&small(&net, "third", 5), "m", "2", &[]);
    until("alba's log to have grown alone", || (size(&a, "alba") == 4).then_some(()));
}

/// Two nodes with the same log key, from one backup, each with its own ally: the log shows two heads.
#[test]
fn a_log_that_shows_two_heads_is_caught_within_one_round() {
    let net = Net::new();
    let [alba, borea, cora, dora] = net.allies(["alba", "borea", "cora", "dora"]);
    // One ally at a time: whoever meets at a third meets each other too.
    let (a, b) = (alba.start(), borea.start());
    a.connect(&b);
    alba.publish(&small(&net, "model", 6), "m", "1", &[]);
    wait_for(&b, "alba", 2, &["borea"]);
    a.stop();
    let twin = Home { path: net.path().join("twin"), ..alba.clone() };
    copy(&alba.path, &twin.path);

    let first = alba.start();
    first.connect(&b);
    alba.publish(&small(&net, "to-borea", 7), "m", "2", &[]);
    wait_for(&b, "alba", 4, &["borea"]);
    first.kill();
    b.stop();
    let (second, c) = (twin.start(), cora.start());
    second.connect(&c);
    twin.publish(&small(&net, "to-cora", 8), "m", "2", &[]);
    wait_for(&c, "alba", 4, &["cora"]);
    second.kill();
    let (b, d) = (borea.start(), dora.start());
    assert_ne!(log_of(&b, "alba")["root"], log_of(&c, "alba")["root"]);

    // The two meet, and a third learns of it from either.
    let (mut seen, mut told) = (alerts(&b), alerts(&d));
    d.connect(&c);
    let start = Instant::now();
    b.connect(&c);
    let alarm = alert(&mut seen, "log-evidence");
    println!("caught after {:?}: {}", start.elapsed(), alarm["message"]);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    alert(&mut told, "log-evidence");
    for node in [&b, &c, &d] {
        until("everybody to hold the evidence", || log_of(node, "alba")["disputed"].as_bool()?.then_some(()));
    }
    borea.ok(&["status"]).expect(0, &["alba", "proved to lie"]);
    borea.run(&["doctor"]).expect(1, &["proved to lie"]);
    assert!(b.http.get("/readyz")["warnings"][0].as_str().unwrap().contains("alba"));

    // It is portable: a third nation's node verifies it without a network, and so does whoever has alba's nation file.
    let kept = borea.json(&["evidence", "ls"]);
    let file = kept[0]["path"].as_str().unwrap().to_owned();
    d.stop();
    let shown = dora.run(&["--json", "evidence", "show", &file]);
    assert_eq!(shown.code, 4, "{shown}");
    let proved: Value = serde_json::from_str(shown.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&proved["nation"], &proved["size"]), (&json!("alba"), &json!(4)), "{proved}");
    let nation_file = alba.nation_file();
    let offline = ["evidence", "show", &file, "--nation-file", nation_file.to_str().unwrap()];
    dora.run(&offline).expect(4, &["signed two things", "proved"]);
    // A changed one proves nothing.
    let mut forged: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    forged["larger"] = forged["smaller"].clone();
    let forged_file = net.path().join("forged.json");
    fs::write(&forged_file, forged.to_string()).unwrap();
    dora.run(&["evidence", "show", forged_file.to_str().unwrap()]).expect(2, &[]);

    // Nothing more of that log is taken, until a person decides.
    let again = alba.start();
    again.connect(&b);
    alba.publish(&small(&net, "later", 9), "m", "3", &[]);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(size(&b, "alba"), 4);
    // Nobody who holds the evidence is there to hand it back.
    again.kill();
    c.kill();
    borea.run(&["log", "settle", "alba"]).expect(2, &["--yes"]);
    borea.ok(&["log", "settle", "alba", "--yes"]);
    assert_eq!(log_of(&b, "alba")["disputed"], false);
}

#[test]
fn a_node_restored_from_a_backup_does_not_fork_its_log() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let b = borea.start();
    let a = alba.start();
    a.connect(&b);
    alba.publish(&small(&net, "model", 10), "m", "1", &[]);
    wait_for(&b, "alba", 2, &["borea"]);
    a.stop();
    let backup = net.path().join("backup");
    copy(&alba.path, &backup);
    let a = alba.start();
    a.connect(&b);
    alba.publish(&small(&net, "lost", 11), "m", "2", &[]);
    wait_for(&b, "alba", 4, &["borea"]);
    a.kill();
    fs::remove_dir_all(&alba.path).unwrap();
    copy(&backup, &alba.path);

    let a = alba.start();
    let mut alarms = alerts(&a);
    let folder = small(&net, "new", 12);
    alba.publish(&folder, "other", "1", &[]);
    a.connect(&b);
    let alarm = alert(&mut alarms, "log-behind");
    assert!(alarm["message"].as_str().unwrap().contains("steelyard log recover"), "{alarm}");
    let status = a.http.get("/v1/log");
    assert_eq!(status["behind"], 4, "{status}");
    assert!(a.http.get("/readyz")["warnings"][0].as_str().unwrap().contains("backup"));
    alba.run(&["doctor"]).expect(1, &["restored from a backup"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((size(&a, "alba"), size(&b, "alba")), (2, 4), "nothing was appended");
    assert_eq!(log_of(&b, "alba")["disputed"], false);

    let done = alba.json(&["log", "recover"]);
    assert_eq!((&done["from"], &done["to"]), (&json!(2), &json!(4)), "{done}");
    // What waited is appended behind what was recovered.
    wait_for(&b, "alba", 6, &["borea"]);
    wait_for(&a, "alba", 6, &["borea"]);
    assert_eq!(log_of(&b, "alba")["disputed"], false);
    until("the lost statements to be known again", || {
        let seen = alba.run(&["--json", "log", "monitor"]);
        let seen: Value = serde_json::from_str(seen.stdout.lines().next()?).ok()?;
        seen["unknown"].as_array()?.is_empty().then_some(())
    });
    // They came from an ally, which a person should know of.
    alba.run(&["log", "monitor"]).expect(4, &["another nation's node brought"]);
}

/// Asks a witness to cosign; its answer's frame.
fn ask(hostile: &mut Hostile, address: &str, body: &str) -> (u8, Vec<u8>) {
    runtime().block_on(async {
        let connection = hostile.join(address).await.unwrap();
        let mut stream = connection.speak(LOG).await.unwrap();
        use futures::AsyncWriteExt;
        stream.write_all(&frame(0x25, body.as_bytes())).await.unwrap();
        stream.flush().await.unwrap();
        read_frame(&mut stream).await.unwrap()
    })
}

#[test]
fn a_witness_never_goes_back_not_even_after_a_kill() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let key = SecretKey::load(&alba.path.join("keys/log.key")).unwrap();
    let nation = Nation::new("alba").unwrap();
    let leaves: Vec<_> = (0..8u8).map(|byte| leaf_hash(&[byte; 33])).collect();
    let two = node_hash(&leaves[0], &leaves[1]);
    let other = node_hash(&leaves[2], &leaves[3]);
    let four = node_hash(&two, &other);
    let request = |old, size, root, proof: &[[u8; 32]]| {
        let signed = SignedCheckpoint::sign(&nation, size, root, &key).unwrap();
        AddCheckpoint { old_size: old, proof: proof.to_vec(), note: signed.note().clone() }.to_body()
    };
    let mut hostile = Hostile::new(Identity::of(&alba).unwrap()).unwrap();
    let mut b = borea.start_with_fixed_ports("");
    let address = b.address();
    assert_eq!(ask(&mut hostile, &address, &request(0, 2, two, &[])).0, 0xa6);
    for round in 0..3 {
        b.kill();
        b = borea.start();
        // Back to one entry, or anew from nothing: no, and the size cosigned last.
        for body in [request(0, 1, leaves[0], &[]), request(0, 2, two, &[]), request(1, 2, two, &[leaves[1]])]
        {
            let (kind, answer) = ask(&mut hostile, &address, &body);
            assert_eq!(kind, 0xaf, "round {round}");
            assert_eq!((answer[0], answer[1]), (3, 2), "conflict with size 2");
        }
        // The same again is cosigned again.
        assert_eq!(ask(&mut hostile, &address, &request(2, 2, two, &[])).0, 0xa6);
        // A larger one without its proof is not.
        let (kind, answer) = ask(&mut hostile, &address, &request(2, 4, four, &[two]));
        assert_eq!((kind, answer[0]), (0xaf, 4));
    }
    assert_eq!(ask(&mut hostile, &address, &request(2, 4, four, &[other])).0, 0xa6);
    b.kill();
    let b = borea.start();
    let (kind, answer) = ask(&mut hostile, &address, &request(2, 4, four, &[other]));
    assert_eq!((kind, answer[0], answer[1]), (0xaf, 3, 4));
    // Another root for the size that it cosigned: the log lied to its witness, which can prove it.
    let lie = node_hash(&other, &two);
    let (kind, answer) = ask(&mut hostile, &address, &request(4, 4, lie, &[]));
    assert_eq!((kind, answer[0]), (0xaf, 7));
    until("the evidence", || log_of(&b, "alba")["disputed"].as_bool().filter(|disputed| *disputed));

    // Over HTTP it is the same witness.
    let body = request(4, 4, four, &[]);
    let reply = runtime().block_on(async { post(b.public(), body).await });
    assert_eq!(reply, 403, "a log that lied is cosigned no more");
}

async fn post(http: &tests::Http, body: String) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let tests::Http::Tcp(address) = http else { panic!("no TCP") };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /log/add-checkpoint HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// A peer that serves entries which are not those of the head, and evidence that proves nothing.
#[test]
fn what_proves_nothing_is_held_against_whoever_brought_it() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let key = SecretKey::load(&alba.path.join("keys/log.key")).unwrap();
    let nation = Nation::new("alba").unwrap();
    let head = SignedCheckpoint::sign(&nation, 1, leaf_hash(&[1; 33]), &key).unwrap();
    let b = borea.start();
    let mut seen = alerts(&b);
    let address = b.address();
    let identity = Identity::of(&alba).unwrap();
    let evidence = json!({
        "version": 1, "nation": "alba", "smaller": head.note().to_string(), "larger": head.note().to_string(),
    });
    runtime().spawn(async move {
        let mut hostile = Hostile::new(identity).unwrap();
        let mut connection = hostile.join(&address).await.unwrap();
        let mut round = 0;
        while let Some(mut stream) = connection.accept().await {
            use futures::AsyncWriteExt;
            let Ok(protocol) = tests::hostile::choose(&mut stream, &[LOG, "/steelyard/sync/1"]).await else {
                continue;
            };
            if protocol != LOG {
                continue;
            }
            while let Ok((kind, _)) = read_frame(&mut stream).await {
                let answers = match (kind, round % 2) {
                    (0x21, 0) => vec![frame(0xa1, &[1, 0]), frame(0xa2, head.note().to_string().as_bytes())],
                    (0x21, _) => vec![frame(0xa1, &[1, 0]), frame(0xa3, evidence.to_string().as_bytes())],
                    (0x23, _) => vec![frame(0xa4, &[&[0; 8][..], &[2; 33]].concat())],
                    _ => vec![frame(0xaf, &[1, 0, 0, 0, 0, 0, 0, 0, 0])],
                };
                for answer in answers {
                    let _ = stream.write_all(&answer).await;
                }
                let _ = stream.flush().await;
                round += usize::from(kind == 0x21);
            }
        }
    });
    let alarm = alert(&mut seen, "bad_log");
    assert!(alarm["message"].as_str().unwrap().contains("entries"), "{alarm}");
    wait::within(Duration::from_secs(20), "both lies to be tried", || {
        (b.log().matches("proves nothing").count() > 0).then_some(())
    });
    assert_eq!(size(&b, "alba"), 0, "nothing was kept");
    assert!(!log_of(&b, "alba")["disputed"].as_bool().unwrap_or(false), "nobody was convicted");
}

/// Two histories, and an operator who kept the wrong one: it is given up for the one that allies have, and nothing is lost.
#[test]
fn a_nation_mends_its_log_after_it_was_proved_to_have_forked() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let (a, b) = (alba.start(), borea.start());
    a.connect(&b);
    alba.publish(&small(&net, "model", 20), "m", "1", &[]);
    wait_for(&b, "alba", 2, &["borea"]);
    a.stop();
    let twin = Home { path: net.path().join("twin"), ..alba.clone() };
    copy(&alba.path, &twin.path);
    let first = alba.start();
    first.connect(&b);
    alba.publish(&small(&net, "to-borea", 21), "m", "2", &[]);
    wait_for(&b, "alba", 4, &["borea"]);
    first.kill();
    b.stop();
    let (second, c) = (twin.start(), cora.start());
    second.connect(&c);
    let late = twin.publish(&small(&net, "to-cora", 22), "n", "1", &[]);
    wait_for(&c, "alba", 4, &["cora"]);
    second.kill();
    let b = borea.start();
    b.connect(&c);
    let disputed = |node: &Daemon| log_of(node, "alba")["disputed"].as_bool()?.then_some(());
    until("both to hold the evidence", || disputed(&b).and(disputed(&c)));
    let evidence = borea.json(&["evidence", "ls"])[0]["path"].as_str().unwrap().to_owned();

    // alba learns what it did, and can't append.
    let second = twin.start();
    second.connect(&b);
    until("alba to hold the evidence against itself", || disputed(&second));
    twin.run(&["log", "settle", "alba", "--anew"]).expect(2, &["--yes"]);
    twin.ok(&["log", "settle", "alba", "--anew", "--yes"]);
    let status = second.http.get("/v1/log");
    assert_eq!((&status["behind"], size(&second, "alba")), (&json!(4), 0), "{status}");
    // Over a restart too, and though nobody has settled anything elsewhere yet.
    second.kill();
    let second = twin.start();
    second.connect(&b);
    assert_eq!(second.http.get("/v1/log")["behind"], 4);
    // borea has the history that stays, cora the one that is given up.
    borea.ok(&["log", "settle", "alba", "--yes"]);
    cora.ok(&["log", "settle", "alba", "--anew", "--yes"]);
    assert_eq!((size(&b, "alba"), size(&c, "alba")), (4, 0));
    let done = twin.json(&["log", "recover"]);
    assert_eq!((&done["from"], &done["to"]), (&json!(0), &json!(4)), "{done}");

    // What was signed in the history that is gone stands behind the other one, and everybody has one log again.
    c.connect(&second);
    for node in [&second, &b, &c] {
        wait_for(node, "alba", 6, &["borea", "cora"]);
        assert_eq!(log_of(node, "alba")["root"], log_of(&second, "alba")["root"]);
        assert_eq!(log_of(node, "alba")["disputed"], false);
    }
    let place = second.http.get(&format!("/v1/log/place/{late}"));
    assert!(place["logged"]["index"].as_u64().unwrap() >= 4, "{place}");
    // That it had forked remains provable, and is held against it by nobody who settled it.
    let peers: Vec<_> = [&b, &c].iter().map(|node| node.http.post("/v1/sync", &json!({}))).collect();
    assert_eq!(peers.len(), 2);
    borea.run(&["evidence", "show", &evidence]).expect(4, &["proved"]);
    assert_eq!(log_of(&c, "alba")["disputed"], false);
}
