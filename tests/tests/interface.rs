//! The HTTP interface: health, events, and the border between the socket and the port.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use tests::{Net, generate};

#[test]
fn the_port_reads_and_the_socket_writes() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, 1).unwrap();
    let release = alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    let public = a.public();
    assert_eq!(public.get("/healthz")["status"], "ok");
    assert_eq!(public.get("/readyz")["status"], "ok");
    let status = public.get("/v1/status");
    assert_eq!(status["nation"], "alba");
    assert!(status["home"].is_null(), "the port does not tell where the keys lie: {status}");
    assert_eq!(public.get("/v1/models")[0]["model"], "alba/small");
    assert_eq!(public.get("/v1/resolve?ref=alba/small")["release"], *release);
    let evidence = public.get(&format!("/v1/releases/{release}/evidence"));
    let kinds: Vec<_> =
        evidence["statements"].as_array().unwrap().iter().map(|s| s["kind"].clone()).collect();
    assert!(kinds.contains(&json!("root")) && kinds.contains(&json!("release")), "{evidence}");
    let routes = public.get("/v1/openapi.json");
    assert!(routes["openapi"].as_str().unwrap().starts_with("3."), "{routes}");

    // Nothing that changes anything is reachable by TCP.
    for (method, path) in [
        ("POST", "/v1/pull"),
        ("POST", "/v1/statements"),
        ("POST", "/v1/nations"),
        ("DELETE", "/v1/nations/borea"),
        ("POST", "/v1/gc"),
        ("POST", "/v1/workers"),
        ("POST", "/v1/shutdown"),
        ("POST", "/v1/import"),
        ("POST", "/v1/export"),
        ("PUT", "/v1/pins/alba/small"),
        ("POST", "/v1/drafts"),
        ("POST", "/v1/peers"),
        ("POST", "/v1/sync"),
    ] {
        let reply = public.request(method, path, Some(&json!({})));
        assert!(matches!(reply.status, 403..=405), "{method} {path}: {}", reply.status);
    }
    // A page in somebody's browser can't read it by another name.
    let reply = public.try_request_with("GET", "/v1/status", &[("host", "evil.example")], None);
    assert!(reply.is_err() || reply.unwrap().status >= 400, "another host's name is refused");
    let mode = std::fs::metadata(alba.path.join("steelyard.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Problems are RFC 9457.
    let reply = public.request("GET", "/v1/resolve?ref=alba/none", None);
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    assert_eq!(problem["code"], "not_found");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");

    // Live events: a pull is seen from outside while it runs.
    b.connect(&a);
    let mut events = b.public().events("GET", "/v1/events?kinds=transfer,admitted", None);
    b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    let limit = Duration::from_secs(20);
    events.find(limit, "the transfer's end", |e| e.name == "transfer" && e.json()["state"] == "done");
    let transfers = b.public().get("/v1/transfers");
    assert_eq!(transfers[0]["state"], "done", "{transfers}");

    // It ends in good order: the streams end, the socket goes, the exit code is 0.
    assert_eq!(b.stop(), 0);
    while let Some(event) = events.next(limit) {
        assert!(["transfer", "admitted", "lagged"].contains(&event.name.as_str()), "{event:?}");
    }
    assert!(!borea.path.join("steelyard.sock").exists());
    // Without a node the same commands do the work by themselves.
    let shown = borea.json(&["show", "alba/small"]);
    assert_eq!(shown["presence"], "complete", "{shown}");
    assert_eq!(borea.json(&["status"])["running"], false);
}

#[test]
fn what_nothing_keeps_is_named_by_pull_and_by_gc() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    for (version, seed) in [("1", 1), ("2", 2)] {
        let folder = net.folder(&format!("model-{version}"));
        generate::safetensors(&folder.join("model.safetensors"), 2 << 20, seed).unwrap();
        alba.publish(&folder, "small", version, &["--releasable-to", "all"]);
    }
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    // The channel keeps its release by itself; an older version has nobody.
    let kept = borea.json(&["pull", "alba/small"]);
    assert_eq!((&kept["version"], &kept["channels"]), (&json!("2"), &json!(["stable"])), "{kept}");
    borea.run(&["pull", "alba/small@1"]).expect(0, &["not pinned", "steelyard pin alba/small@1"]);
    borea.run(&["gc", "--dry-run"]).expect(0, &["alba/small@1", "no channel points to it"]);
    let pinned = borea.json(&["pull", "alba/small@1", "--pin"]);
    assert_eq!(pinned["pinned"], true, "{pinned}");
    assert_eq!(borea.json(&["gc", "--dry-run"])["releases"], json!([]));
    borea.ok(&["unpin", "alba/small@1"]);
    let gone = borea.json(&["gc"]);
    assert_eq!(
        (&gone["releases"][0]["version"], &gone["releases"][0]["reason"]),
        (&json!("1"), &json!("unpinned"))
    );
    assert_eq!(gone["bytes_freed"], gone["releases"][0]["bytes"], "{gone}");

    // Each transfer has a row and an ID, and an ID shows its peers.
    let transfers = borea.json(&["transfers"]);
    let id =
        transfers.as_array().unwrap().iter().find(|t| t["peers"] != json!([])).unwrap()["id"].to_string();
    assert_eq!(borea.json(&["transfers", &id])["id"].to_string(), id);
    borea.run(&["transfers", &id]).expect(0, &["alba", "chunks", &a.peer_id()[a.peer_id().len() - 8..]]);
    borea.run(&["transfers", "99"]).expect(3, &["99"]);
    // The worker's interface is not needed to look at the status; what only this machine may know is in it.
    let status = borea.json(&["status"]);
    assert_eq!(status["folder"], json!(borea.path.display().to_string()));
    assert_eq!((&status["running"], &status["serving"]), (&json!(true), &json!([])));
}
