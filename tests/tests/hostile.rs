//! Peers that misbehave on the wire: truncated frames, lengths beyond every limit, slow drips, floods.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::SubstreamBox;
use registry::Digest;
use serde_json::Value;
use tests::hostile::{Connection, Hostile, Identity, choose, frame, hello, read_frame, say_hello};
use tests::http::runtime;
use tests::{Daemon, Home, Net, generate, meter, wait};

const BLOB: &str = "/steelyard/blob/1";
const SYNC: &str = "/steelyard/sync/1";
/// Memory that a node may gain while it is attacked, in bytes.
const MAX_GROWTH: u64 = 64 << 20;
/// An attacked node gives up on its attacker by then.
const LIMIT: Duration = Duration::from_secs(60);
/// Settings with which a peer that brings nothing is given up soon.
const IMPATIENT: &str = "[transfer]\nstall_secs = 2\n";

/// alba has published `alba/small`; its release's digest.
fn publish(net: &Net, alba: &Home) -> Digest {
    let folder = net.folder("small");
    generate::safetensors(&folder.join("model.safetensors"), 8 << 20, 11).unwrap();
    alba.publish(&folder, "small", "1", &["--releasable-to", "all"]).parse().unwrap()
}

/// The node still answers, serves an honest ally and did not grow.
fn unharmed(node: &Daemon, memory: u64, net: &Net, name: &str) {
    assert_eq!(node.http.get("/readyz")["status"], "ok");
    let now = meter::resident(node.pid());
    assert!(now < memory + MAX_GROWTH, "it grew from {memory} to {now} bytes");
    let ally = net.nation(name);
    ally.trust(&node.home);
    let file: Value = serde_json::from_slice(&std::fs::read(ally.nation_file()).unwrap()).unwrap();
    node.http.post("/v1/nations", &serde_json::json!({ "file": file, "fingerprint": ally.fingerprint() }));
    let other = ally.start();
    other.connect(node);
    other.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
}

/// Reads until the other end closes the stream; true when it did within `limit`.
async fn ended(stream: &mut SubstreamBox, limit: Duration) -> bool {
    let mut sink = vec![0; 64 << 10];
    let start = Instant::now();
    while start.elapsed() < limit {
        match tokio::time::timeout(limit, stream.read(&mut sink)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

#[test]
fn hostile_hellos_are_cut_off() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    publish(&net, &alba);
    let a = alba.start();
    let memory = meter::resident(a.pid());
    let address = a.address();
    let identity = Identity::of(&borea).unwrap();
    let stranger = Identity { keypair: libp2p::identity::Keypair::generate_ed25519(), ..identity.clone() };
    let certificate = identity.certificate.clone();
    let oversized = [&b"SYHL\x01\0\0\0"[..], &u32::MAX.to_le_bytes()].concat();
    let hellos: Vec<(&str, Vec<u8>)> = vec![
        ("nothing that is known", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("another version", [&b"SYHL\x02\0\0\0"[..], &hello(&certificate)[8..]].concat()),
        ("a length of 4 GiB", oversized),
        ("a certificate that is no JSON", hello(b"no json at all")),
        ("an empty certificate", hello(b"")),
        ("a root instead of a certificate", hello(&std::fs::read(borea.path.join("root.json")).unwrap())),
    ];
    runtime().block_on(async {
        for (what, bytes) in hellos {
            let connection = Hostile::new(identity.clone()).unwrap().dial(&address).await;
            let mut connection = connection.unwrap();
            let mut stream = connection.open().await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            assert!(connection.closed_within(LIMIT).await, "{what}: the connection was kept");
        }
        // Somebody else's certificate, with another key.
        let mut peer = Hostile::new(stranger).unwrap();
        let connection = peer.dial(&address).await.unwrap();
        let mut stream = connection.open().await.unwrap();
        let verdict = say_hello(&mut stream, &hello(&certificate)).await;
        assert!(verdict.as_ref().map_or(true, |verdict| *verdict != 0), "a stolen certificate: {verdict:?}");
        // One byte a second is given up after the hello's limit, not after a day.
        let mut connection = Hostile::new(identity.clone()).unwrap().dial(&address).await.unwrap();
        let mut stream = connection.open().await.unwrap();
        let start = Instant::now();
        let drip = async {
            for byte in hello(&certificate) {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = drip => {}
            closed = connection.closed_within(LIMIT) => assert!(closed, "the drip was waited for"),
        }
        assert!(start.elapsed() < LIMIT, "the drip was waited for");
        // A connection on which nothing is ever said, too.
        let mut connection = Hostile::new(identity).unwrap().dial(&address).await.unwrap();
        assert!(connection.closed_within(LIMIT).await, "silence was kept");
    });
    assert!(a.http.get("/v1/peers").as_array().unwrap().is_empty(), "none of them became a peer");
    unharmed(&a, memory, &net, "cora");
}

#[test]
fn hostile_requests_do_no_harm() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let release = publish(&net, &alba);
    let a = alba.start();
    let memory = meter::resident(a.pid());
    let address = a.address();
    let open = frame(0x01, release.as_bytes());
    let chunks = |first: u32, count: u32| {
        frame(0x04, &[0u32, first, count].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())
    };
    let mut header_only = vec![0x01];
    header_only.extend(u32::MAX.to_le_bytes());
    let attacks: Vec<(&str, &str, Vec<u8>)> = vec![
        ("a request of 4 GiB", BLOB, header_only.clone()),
        ("an unknown frame", BLOB, frame(0x7f, b"x")),
        ("an answer instead of a request", BLOB, frame(0x84, &[0; 16])),
        ("chunks before the release", BLOB, chunks(0, 1)),
        ("the release twice", BLOB, [open.clone(), open.clone()].concat()),
        ("a release of 31 bytes", BLOB, frame(0x01, &[0; 31])),
        ("no chunks", BLOB, [open.clone(), chunks(0, 0)].concat()),
        ("257 chunks", BLOB, [open.clone(), chunks(0, 257)].concat()),
        ("a range that overflows", BLOB, [open.clone(), chunks(u32::MAX, 2)].concat()),
        ("a chunk that is not there", BLOB, [open.clone(), chunks(1 << 30, 1)].concat()),
        ("a file that is not there", BLOB, [open.clone(), frame(0x02, &u32::MAX.to_le_bytes())].concat()),
        ("a feed request of 4 GiB", SYNC, [&[0x11][..], &u32::MAX.to_le_bytes()].concat()),
        ("a page of no statements", SYNC, frame(0x11, &[0; 10])),
        ("a page of 65,535 statements", SYNC, frame(0x11, &[&[0; 8][..], &[0xff; 2]].concat())),
    ];
    runtime().block_on(async {
        let mut peer = Hostile::new(Identity::of(&borea).unwrap()).unwrap();
        for (what, protocol, bytes) in attacks {
            let connection = peer.join(&address).await.unwrap();
            let mut stream = connection.speak(protocol).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            stream.close().await.unwrap();
            assert!(ended(&mut stream, LIMIT).await, "{what}: the stream was kept");
        }
        // A frame that begins and never goes on, on many streams at once; the streams are dropped with the connection.
        let connection = peer.join(&address).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..48 {
            let Ok(mut stream) = connection.speak(BLOB).await else { break };
            stream.write_all(&open[..7]).await.unwrap();
            stream.flush().await.unwrap();
            streams.push(stream);
        }
        println!("{} half requests were held open", streams.len());
        // A thousand requests ahead on one stream, and nobody reads the answers.
        if let Ok(mut stream) = connection.speak(BLOB).await {
            let flood: Vec<u8> = (0..1000).flat_map(|_| chunks(0, 8)).collect();
            let send = async {
                stream.write_all(&open).await?;
                stream.write_all(&flood).await?;
                stream.flush().await
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), send).await;
            assert!(meter::resident(a.pid()) < memory + MAX_GROWTH, "answers nobody reads are not piled up");
        }
        drop(streams);
        drop(connection);
    });
    unharmed(&a, memory, &net, "cora");
}

/// What a hostile server does with a request for chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Half of the bytes, then the end of the stream.
    Truncated,
    /// An answer of 4 GiB.
    Oversized,
    /// One byte a second.
    Drip,
    /// Bytes that were not asked for.
    Wrong,
    /// A frame that answers nothing.
    Nonsense,
    /// Busy, for ever.
    Refused,
    /// Nothing at all.
    Silence,
}

/// Plays borea's node: it has everything, and answers requests for chunks with its fault.
async fn play(mut connection: Connection, fault: Fault) {
    while let Some(mut stream) = connection.accept().await {
        tokio::spawn(async move {
            let Ok(protocol) = choose(&mut stream, &[BLOB, SYNC]).await else { return };
            while let Ok((kind, body)) = read_frame(&mut stream).await {
                let answer = match (protocol.as_str(), kind) {
                    // An empty page of the feed, and nothing more.
                    (SYNC, _) => frame(0x91, &[&[7; 16][..], &[0; 8], &[0], &[0; 2]].concat()),
                    (_, 0x01) => frame(0x81, &[1]),
                    (_, 0x03) => frame(0x83, &[1]),
                    (_, 0x02) => frame(0xff, &[4]),
                    _ => {
                        misbehave(&mut stream, fault, &body).await;
                        return;
                    }
                };
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn misbehave(stream: &mut SubstreamBox, fault: Fault, request: &[u8]) {
    let count = request.get(8..12).and_then(|b| <[u8; 4]>::try_from(b).ok()).map_or(1, u32::from_le_bytes);
    let length = count * 65_536;
    let head = |length: u32| [&[0x84][..], &length.to_le_bytes()].concat();
    let send = async {
        match fault {
            Fault::Truncated => {
                stream.write_all(&head(length)).await?;
                stream.write_all(&vec![0; length as usize / 2]).await?;
                stream.close().await?;
            }
            Fault::Oversized => {
                stream.write_all(&head(u32::MAX)).await?;
                loop {
                    stream.write_all(&[0; 65_536]).await?;
                    stream.flush().await?;
                }
            }
            Fault::Drip => {
                stream.write_all(&head(length)).await?;
                loop {
                    stream.write_all(&[0]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Fault::Wrong => {
                stream.write_all(&head(length)).await?;
                stream.write_all(&vec![0xa5; length as usize]).await?;
                stream.flush().await?;
                tokio::time::sleep(LIMIT).await;
            }
            Fault::Nonsense => stream.write_all(&frame(0x42, b"nonsense")).await?,
            Fault::Refused => stream.write_all(&frame(0xff, &[3])).await?,
            Fault::Silence => tokio::time::sleep(LIMIT).await,
        }
        stream.flush().await
    };
    let _ = tokio::time::timeout(LIMIT, send).await;
}

#[test]
fn a_hostile_source_does_not_stop_a_pull() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    publish(&net, &alba);
    let a = alba.start();
    for fault in [
        Fault::Truncated,
        Fault::Oversized,
        Fault::Drip,
        Fault::Wrong,
        Fault::Nonsense,
        Fault::Refused,
        Fault::Silence,
    ] {
        // A puller that has nothing yet.
        let _ = std::fs::remove_dir_all(&cora.path);
        let fresh = net.nation("cora");
        fresh.trust(&alba);
        fresh.trust(&borea);
        let file: Value = serde_json::from_slice(&std::fs::read(fresh.nation_file()).unwrap()).unwrap();
        let _ = a.http.request("DELETE", "/v1/nations/cora", None);
        a.http.post("/v1/nations", &serde_json::json!({ "file": file, "fingerprint": fresh.fingerprint() }));
        let c = fresh.start_with_fixed_ports(IMPATIENT);

        let (tell, told) = std::sync::mpsc::channel();
        let identity = Identity::of(&borea).unwrap();
        let peer = identity.peer_id().to_string();
        let server = runtime().spawn(async move {
            let mut hostile = Hostile::new(identity).unwrap();
            tell.send(hostile.listen().await.unwrap()).unwrap();
            // Each connection is played at once; the listener goes on.
            while let Ok(connection) = hostile.accept().await {
                tokio::spawn(play(connection, fault));
            }
        });
        let address = told.recv_timeout(LIMIT).unwrap();
        c.connect(&a);
        c.http.post("/v1/peers", &serde_json::json!({ "address": address }));
        wait::until("the hostile peer to be connected", || c.knows(&peer).then_some(()));
        let memory = meter::resident(c.pid());
        let start = Instant::now();
        let done = c.pull("alba/small").unwrap_or_else(|problem| panic!("{fault:?}: {problem}"));
        println!("{fault:?}: pulled in {:?}", start.elapsed());
        assert!(start.elapsed() < LIMIT, "{fault:?} held the pull up for {:?}", start.elapsed());
        let share = done["transfer"]["peers"].as_array().unwrap().iter().find(|s| s["peer_id"] == *peer);
        if let Some(share) = share {
            assert_eq!(share["bytes"], 0, "{fault:?}: nothing of it was kept: {share}");
        }
        let grown = meter::peak_resident(c.pid());
        assert!(grown < memory + MAX_GROWTH, "{fault:?}: it grew from {memory} to {grown} bytes");
        fresh.ok(&["verify", "alba/small"]);
        server.abort();
        c.stop();
    }
}
