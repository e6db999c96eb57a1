//! Peers with a valid certificate and bad intentions, on either end of the blob protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Country, Home, Setup, Stranger, eventually, noise};
use futures::{AsyncReadExt, AsyncWriteExt};
use node::events::TransferState;
use node::node::{PullError, PullOptions};
use node::swarm::streams::Protocol;
use node::wire::{self, Answer, Request};
use registry::chunk::ChunkMap;
use registry::statement::Releasable;
use registry::store::Store;

const LIMIT: Duration = Duration::from_secs(30);

/// What a hostile server does when it is asked for chunks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trick {
    /// Ends in the middle.
    Truncated,
    /// Announces 4 GiB.
    Oversized,
    /// A byte now and then.
    Drip,
    /// An answer of a type that does not exist.
    UnknownType,
    /// Availability where content was asked for.
    OtherAnswer,
    /// Right length, wrong bytes.
    WrongBytes,
    /// Says nothing more.
    Silent,
    /// A chunk map of another file.
    WrongMap,
    /// A chunk map that announces 4 GiB.
    HugeMap,
}

fn weights() -> Vec<(&'static str, Vec<u8>)> {
    let text: String = noise("text", 6 << 20).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    vec![("vocab.txt", text.into_bytes())]
}

fn everything() -> Vec<u8> {
    Answer::News(wire::News { file: None, replaces: false, have: wire::Have::Everything }).encode()
}

/// Serves with a trick for as long as it runs.
fn serve(mut stranger: Stranger, store: Store, map: Arc<ChunkMap>, trick: Trick) -> Stranger {
    let (closed, nothing) = tokio::sync::mpsc::channel(1);
    let mut incoming = std::mem::replace(&mut stranger.started.incoming.blob, nothing);
    drop(closed);
    tokio::spawn(async move {
        while let Some(inbound) = incoming.recv().await {
            let (store, map) = (store.clone(), Arc::clone(&map));
            tokio::spawn(async move {
                let (mut reader, mut writer) = inbound.stream.split();
                while let Ok(Some((kind, body))) = wire::read_frame(&mut reader, "request", 64).await {
                    let request = Request::decode(kind, &body).unwrap();
                    let answer: Vec<u8> = match request {
                        Request::Open { .. } => Answer::Opened { complete: true }.encode(),
                        Request::Watch => everything(),
                        Request::Cancel { .. } => continue,
                        Request::Map { .. } => {
                            let bytes = map.encode();
                            let mut out = Answer::Map { len: bytes.len() as u32 }.encode();
                            match trick {
                                Trick::HugeMap => Answer::Map { len: u32::MAX }.encode(),
                                Trick::WrongMap => {
                                    out.extend(bytes.iter().rev());
                                    out
                                }
                                _ => {
                                    out.extend(bytes);
                                    out
                                }
                            }
                        }
                        Request::Chunks { first, count, .. } => {
                            let mut bytes = Vec::new();
                            for index in first..first + count {
                                let chunk = store.read_chunk(&map.blob(), &map, index as usize);
                                bytes.extend(chunk.unwrap().unwrap());
                            }
                            let head = Answer::Data { len: bytes.len() as u32 }.encode();
                            match trick {
                                Trick::Truncated => {
                                    writer.write_all(&head).await.unwrap();
                                    writer.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
                                    writer.close().await.unwrap();
                                    return;
                                }
                                Trick::Oversized => Answer::Data { len: u32::MAX }.encode(),
                                Trick::Drip => {
                                    writer.write_all(&head).await.unwrap();
                                    for byte in bytes {
                                        if writer.write_all(&[byte]).await.is_err() {
                                            return;
                                        }
                                        let _ = writer.flush().await;
                                        tokio::time::sleep(Duration::from_millis(50)).await;
                                    }
                                    return;
                                }
                                Trick::UnknownType => vec![0x7f, 0, 0, 0, 0],
                                Trick::OtherAnswer => everything(),
                                Trick::WrongBytes => {
                                    bytes.reverse();
                                    [head, bytes].concat()
                                }
                                Trick::Silent => {
                                    tokio::time::sleep(LIMIT * 4).await;
                                    return;
                                }
                                Trick::WrongMap | Trick::HugeMap => [head, bytes].concat(),
                            }
                        }
                    };
                    if writer.write_all(&answer).await.is_err() || writer.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    stranger
}

/// An honest and a hostile source, and somebody who pulls from both.
async fn against(trick: Trick) {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let known = a.node.store().release(&release).unwrap().unwrap();
    let map = Arc::new(a.node.store().chunk_map(&known.files[0].chunk_map).unwrap().unwrap());
    let stranger = Stranger::new(&alba, a.node.store()).await;
    let stranger = serve(stranger, a.node.store().clone(), map, trick);
    let b = Home::with(&borea, &[&alba], Setup { stall_secs: 2, ..Setup::default() }).await.unwrap();
    b.node.dial(stranger.address()).await.unwrap();
    b.dial(&a).await;
    let start = Instant::now();
    let pulled = b.node.pull("alba/m".parse().unwrap(), PullOptions::default());
    let report = tokio::time::timeout(LIMIT, pulled).await.expect("no end").unwrap();
    assert_eq!(report.transfer.state, TransferState::Done, "{trick:?}");
    assert!(a.content(&release, "vocab.txt") == b.content(&release, "vocab.txt"), "{trick:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{trick:?} took {:?}", start.elapsed());
    if trick == Trick::WrongBytes {
        let share = report.transfer.peers.iter().find(|share| share.peer_id == stranger.peer.to_base58());
        assert!(share.is_some_and(|share| share.banned && share.bytes == 0), "{:?}", report.transfer.peers);
    }
}

macro_rules! tricks {
    ($($name:ident: $trick:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            against(Trick::$trick).await;
        }
    )*};
}

tricks! {
    frames_that_are_cut_short: Truncated,
    lengths_over_the_limit: Oversized,
    slow_drips: Drip,
    answers_of_an_unknown_type: UnknownType,
    answers_to_another_question: OtherAnswer,
    wrong_bytes: WrongBytes,
    silence: Silent,
    a_chunk_map_that_is_not_the_signed_one: WrongMap,
    a_chunk_map_without_end: HugeMap,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drip_alone_ends_in_an_error_that_says_so() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let known = a.node.store().release(&release).unwrap().unwrap();
    let map = Arc::new(a.node.store().chunk_map(&known.files[0].chunk_map).unwrap().unwrap());
    let setup = Setup { stall_secs: 2, peers: vec![a.address()], ..Setup::default() };
    let b = Home::with(&borea, &[&alba], setup).await.unwrap();
    eventually(LIMIT, "the release is known", || b.node.store().release(&release).unwrap().is_some()).await;
    a.stop().await;
    let stranger = Stranger::new(&alba, a.node.store()).await;
    let stranger = serve(stranger, a.node.store().clone(), map, Trick::Drip);
    b.node.dial(stranger.address()).await.unwrap();
    let error = tokio::time::timeout(
        LIMIT * 3,
        b.node.pull(release.to_string().parse().unwrap(), PullOptions::default()),
    )
    .await
    .expect("no end")
    .unwrap_err();
    assert!(matches!(error, PullError::Network(_)), "{error}");
    assert!(error.to_string().contains("brought next to nothing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_survives_every_malformed_request() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let server = a.node.peer_id().parse().unwrap();
    let trusting = Home::start(&borea, &[&alba]).await;
    let stranger = Stranger::new(&borea, trusting.node.store()).await;
    stranger.dial(&a).await.unwrap();
    let open = Request::Open { release }.encode();
    let chunks = |file, first, count| Request::Chunks { file, first, count, encoded: false }.encode();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown type", vec![0x7f, 0, 0, 0, 0]),
        ("a length of 4 GiB", vec![0x01, 0xff, 0xff, 0xff, 0xff]),
        ("an open that is too short", wire::frame(0x01, &[0; 31])),
        ("an open that is too long", wire::frame(0x01, &[0; 33])),
        ("chunks before an open", chunks(0, 0, 1)),
        ("two opens", [open.clone(), open.clone()].concat()),
        ("a file that is not there", [open.clone(), chunks(9, 0, 1)].concat()),
        ("a chunk that is not there", [open.clone(), chunks(0, 4000, 1)].concat()),
        ("no chunks", [open.clone(), chunks(0, 0, 0)].concat()),
        ("an overflowing range", [open.clone(), chunks(0, u32::MAX, 2)].concat()),
        ("too many bytes", [open.clone(), chunks(0, 0, 200)].concat()),
    ];
    for (name, bytes) in cases {
        let mut stream = stranger.started.network.streams.open(server, Protocol::Blob).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut answered = Vec::new();
        let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answered)).await;
        assert!(end.is_ok(), "{name}: the stream stays open");
        assert!(answered.len() < 64, "{name}: {} bytes came", answered.len());
    }
    // A proper request is still answered.
    let mut stream = stranger.started.network.streams.open(server, Protocol::Blob).await.unwrap();
    stream.write_all(&open).await.unwrap();
    stream.flush().await.unwrap();
    let (kind, len) = wire::read_header(&mut stream).await.unwrap().unwrap();
    let body = wire::read_body(&mut stream, "answer", len.into(), 64).await.unwrap();
    assert_eq!(Answer::decode(kind, len, &body).unwrap(), Answer::Opened { complete: true });
    // Going on like that ends the connection.
    for _ in 0..20 {
        if let Ok(mut stream) = stranger.started.network.streams.open(server, Protocol::Blob).await {
            let _ = stream.write_all(&[0x7f, 0, 0, 0, 0]).await;
            let _ = stream.flush().await;
            let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
        }
    }
    eventually(LIMIT, "it is disconnected", || a.node.peers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_streams_is_bounded_and_none_of_those_within_the_limit_is_lost() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let server: libp2p::PeerId = a.node.peer_id().parse().unwrap();
    let trusting = Home::start(&borea, &[&alba]).await;
    let stranger = Stranger::new(&borea, trusting.node.store()).await;
    stranger.dial(&a).await.unwrap();
    let one = || {
        let control = stranger.started.network.streams.clone();
        async move {
            let mut stream = control.open(server, Protocol::Blob).await.ok()?;
            stream.write_all(&Request::Open { release }.encode()).await.ok()?;
            stream.flush().await.ok()?;
            let answer = wire::read_header(&mut stream).await.ok()??;
            Some((stream, answer))
        }
    };
    let held: Vec<_> =
        futures::future::join_all((0..32).map(|_| one())).await.into_iter().flatten().collect();
    assert_eq!(held.len(), 32, "within the limit every stream is answered");
    let more: Vec<_> =
        futures::future::join_all((0..60).map(|_| one())).await.into_iter().flatten().collect();
    assert!(held.len() + more.len() <= wire::MAX_BLOB_STREAMS, "{}", held.len() + more.len());
    drop((held, more));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(one().await.is_some(), "places are given back");
}
