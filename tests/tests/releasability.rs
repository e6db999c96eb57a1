//! Releasability at every door, with real nodes and with peers that claim to be somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::PathBuf;

use futures::AsyncWriteExt;
use libp2p::identity::Keypair;
use registry::key::SecretKey;
use registry::statement::{Capability, NodeCertificate, Releasable, Release, RoleName, Statement};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Digest, Nation, Signed, Timestamp, publish};
use serde_json::{Value, json};
use tests::hostile::{Hostile, Identity, frame, hello, read_frame, say_hello};
use tests::http::runtime;
use tests::{Home, Net, generate, until};

const BLOB: &str = "/steelyard/blob/1";
/// The answer to whoever may not know that a release is there: the same as to one that asks for what is not.
const NOT_FOUND: (u8, &[u8]) = (0xff, &[1]);

fn folder(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, seed).unwrap();
    folder
}

fn key(home: &Home, role: RoleName) -> SecretKey {
    SecretKey::load(&home.path.join(format!("keys/{role}.key"))).unwrap()
}

/// Puts into cora's store what no command of its would: a release by cora, for all, of blobs that it never had.
fn copycat(of: &Home, release: &str, by: &Home) -> Digest {
    let known: Release = {
        let store = Store::open(&of.path.join("store")).unwrap();
        store.release(&release.parse().unwrap()).unwrap().unwrap()
    };
    let copy = Release {
        model: format!("{}/copy", by.nation).parse().unwrap(),
        releasable_to: Releasable::All,
        issued: Timestamp::now(),
        ..known
    };
    let signed = Signed::sign(&Statement::Release(copy), &key(by, RoleName::Release));
    let store = Store::open(&by.path.join("store")).unwrap();
    publish::learn(&store, &signed, Timestamp::now()).unwrap().digest
}

/// What a node answers a peer with this identity that opens a release.
fn opened(identity: &Identity, address: &str, release: &Digest) -> (u8, Vec<u8>) {
    runtime().block_on(async {
        let mut peer = Hostile::new(identity.clone()).unwrap();
        let connection = peer.join(address).await.unwrap();
        let mut stream = connection.speak(BLOB).await.unwrap();
        stream.write_all(&frame(0x01, release.as_bytes())).await.unwrap();
        stream.flush().await.unwrap();
        read_frame(&mut stream).await.unwrap()
    })
}

#[test]
fn a_release_that_names_a_restricted_blob_opens_no_door() {
    let net = Net::new();
    let [alba, borea, cora, dora] = net.allies(["alba", "borea", "cora", "dora"]);
    let secret = alba.publish(&folder(&net, "secret", 1), "secret", "1", &["--releasable-to", "borea"]);
    let copy = copycat(&alba, &secret, &cora);
    let (a, b, c, d) = (alba.start(), borea.start(), cora.start(), dora.start());
    b.connect(&a);
    b.pull("alba/secret").unwrap_or_else(|problem| panic!("{problem}"));
    // borea learns cora's release and takes it for whole: its bytes are here, and borea may have them.
    b.connect(&c);
    let pulled = b.pull(&copy.to_string()).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(pulled["already_here"], true, "{pulled}");
    // Nobody else gets them from borea under that name: neither whoever signed it ...
    let identity = Identity::of(&cora).unwrap();
    let (kind, body) = opened(&identity, &b.address(), &copy);
    assert_eq!((kind, &body[..]), NOT_FOUND, "cora was given what alba gave to borea alone");
    // ... nor anybody for whom it is releasable, nor from alba.
    c.connect(&a);
    until("alba to learn cora's release", || {
        (a.http.request("GET", &format!("/v1/releases/{copy}"), None).status == 200).then_some(())
    });
    for node in [&a, &b] {
        d.connect(node);
        let (kind, body) = opened(&Identity::of(&dora).unwrap(), &node.address(), &copy);
        assert_eq!((kind, &body[..]), NOT_FOUND, "dora was given alba's bytes");
    }
    d.http.post("/v1/sync", &json!({}));
    let problem = d.pull(&copy.to_string()).unwrap_err();
    assert!(["not_found", "network"].contains(&problem["code"].as_str().unwrap()), "{problem}");
    assert!(dora.listing().iter().all(|(_, size)| *size < 1 << 20), "bytes came through");
    // Nor does it leave by hand.
    let file = net.path().join("copy.steelyard");
    let out = file.to_str().unwrap();
    borea.run(&["export", &copy.to_string(), out, "--for", "dora"]).expect(5, &["dora", "another release"]);
    borea.run(&["export", "alba/secret@1", out, "--for", "cora"]).expect(5, &["cora", "alba"]);
    assert!(!file.exists());
    alba.ok(&["export", "alba/secret@1", out, "--for", "borea"]);
    cora.run(&["import", out]).expect(5, &["borea"]);
}

#[test]
fn a_peer_that_claims_another_nation_gets_nothing() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let secret = alba.publish(&folder(&net, "secret", 1), "secret", "1", &["--releasable-to", "borea"]);
    let a = alba.start();
    let address = a.address();
    let own = Identity::of(&borea).unwrap();
    assert_eq!(opened(&own, &address, &secret.parse().unwrap()).0, 0x81, "borea itself may have it");

    let keypair = Keypair::generate_ed25519();
    let certificate = |nation: &str, signer: &Home, issued: i64, expires: i64| {
        let now = Timestamp::now();
        let certificate = NodeCertificate {
            nation: Nation::new(nation).unwrap(),
            peer_id: keypair.public().to_peer_id().to_string(),
            capabilities: vec![Capability::Fetch, Capability::Serve],
            issued: now.plus(issued),
            expires: now.plus(expires),
        };
        Signed::sign(&Statement::Node(certificate), &key(signer, RoleName::Node)).to_json()
    };
    let by_role = |role: RoleName| {
        let certificate = NodeCertificate {
            nation: Nation::new("borea").unwrap(),
            peer_id: keypair.public().to_peer_id().to_string(),
            capabilities: vec![Capability::Fetch],
            issued: Timestamp::now(),
            expires: Timestamp::now().plus(DAY),
        };
        Signed::sign(&Statement::Node(certificate), &key(&borea, role)).to_json()
    };
    let claims = [
        ("borea, signed by cora", certificate("borea", &cora, 0, DAY)),
        ("alba itself, signed by cora", certificate("alba", &cora, 0, DAY)),
        ("borea, by its release key", by_role(RoleName::Release)),
        ("borea, ended", certificate("borea", &borea, -2 * DAY, -DAY)),
        ("borea, not begun", certificate("borea", &borea, DAY, 2 * DAY)),
        ("a nation that nobody pinned", certificate("zeta", &borea, 0, DAY)),
        ("borea's own certificate, another's key", own.certificate.clone()),
    ];
    for (what, certificate) in claims {
        runtime().block_on(async {
            let identity = Identity { keypair: keypair.clone(), certificate: certificate.clone() };
            let mut peer = Hostile::new(identity).unwrap();
            let connection = peer.dial(&address).await.unwrap();
            let mut stream = connection.open().await.unwrap();
            let verdict = say_hello(&mut stream, &hello(&certificate)).await;
            assert!(verdict.as_ref().map_or(true, |verdict| *verdict != 0), "{what}: {verdict:?}");
            // It goes on as if it had been admitted.
            if let Ok(mut stream) = connection.speak(BLOB).await {
                let open = frame(0x01, secret.parse::<Digest>().unwrap().as_bytes());
                let _ = stream.write_all(&open).await;
                let _ = stream.flush().await;
                let answer = read_frame(&mut stream).await;
                assert!(answer.is_err(), "{what}: it was answered {answer:?}");
            }
        });
    }
    // cora, as itself, is not told that it is there.
    let (kind, body) = opened(&Identity::of(&cora).unwrap(), &address, &secret.parse().unwrap());
    assert_eq!((kind, &body[..]), NOT_FOUND);
    let unknown = Digest::of(b"no release at all");
    let (kind, body) = opened(&Identity::of(&cora).unwrap(), &address, &unknown);
    assert_eq!((kind, &body[..]), NOT_FOUND, "it is answered as what is not there");
    // A nation that was let go gets nothing more, however good its certificate.
    let reply = a.http.request("DELETE", "/v1/nations/borea", None);
    assert!(reply.status < 300, "{}", reply.text());
    runtime().block_on(async {
        assert!(Hostile::new(own.clone()).unwrap().join(&address).await.is_err(), "borea was let in");
    });
}

/// A release that another nation let slip here: the operator sees it, whoever reads over TCP does not.
#[test]
fn the_read_only_interface_shows_what_is_for_its_own_nation() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let secret = alba.publish(&folder(&net, "secret", 1), "secret", "1", &["--releasable-to", "cora"]);
    let open = alba.publish(&folder(&net, "open", 2), "open", "1", &["--releasable-to", "all"]);
    let open_release = {
        let from = Store::open(&alba.path.join("store")).unwrap();
        let to = Store::open(&borea.path.join("store")).unwrap();
        for (_, signed) in from.feed(0, 100).unwrap() {
            publish::learn(&to, &signed, Timestamp::now()).unwrap();
        }
        from.release(&open.parse().unwrap()).unwrap().unwrap()
    };
    let b = borea.start();
    let status = |http: &tests::Http, path: &str| http.request("GET", path, None).status;
    for (digest, public) in [(&secret, 404), (&open, 200)] {
        for path in [format!("/v1/releases/{digest}"), format!("/v1/releases/{digest}/evidence")] {
            assert_eq!(status(&b.http, &path), 200, "{path}");
            assert_eq!(status(b.public(), &path), public, "{path}");
        }
        assert_eq!(status(b.public(), &format!("/v1/resolve?ref={digest}")), public);
    }
    assert_eq!(status(b.public(), "/v1/resolve?ref=alba/secret"), 404);
    // Nor do its live events name it: the statement of another restricted release that comes in now, and of an open one.
    let mut local = b.http.events("GET", "/v1/events?kinds=statement,channel", None);
    let mut public = b.public().events("GET", "/v1/events?kinds=statement,channel", None);
    let learn = |name: &str, to: Releasable| {
        let known: Release = open_release.clone();
        let release = Release { model: format!("alba/{name}").parse().unwrap(), releasable_to: to, ..known };
        let signed = Signed::sign(&Statement::Release(release), &key(&alba, RoleName::Release));
        b.http.post("/v1/statements", &serde_json::from_slice(&signed.to_json()).unwrap());
        signed.digest().to_string()
    };
    let hidden = learn("hidden", Releasable::Nations([Nation::new("cora").unwrap()].into()));
    let shown = learn("shown", Releasable::All);
    let limit = std::time::Duration::from_secs(20);
    local.find(limit, "the restricted release", |event| event.json()["digest"] == *hidden);
    let first = public.next(limit).expect("an event").json();
    assert_eq!(first["digest"], *shown, "{first}");
    let models: Value = b.public().get("/v1/models");
    assert!(models.to_string().contains("alba/open") && !models.to_string().contains("secret"), "{models}");
    drop(b);
    fs::remove_dir_all(&borea.path).unwrap();
}
