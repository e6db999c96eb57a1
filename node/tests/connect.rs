//! Who gets a connection, and what the others are told.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{Alerts, Country, Home, QUIC, Setup, Stranger, TCP, eventually};
use libp2p::identity::Keypair;
use node::swarm;
use registry::timestamp::DAY;
use registry::{Signed, Timestamp};

const SOON: Duration = Duration::from_secs(10);

async fn meet(transport: &str) {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let setup = || Setup { listen: vec![transport.to_owned()], ..Setup::default() };
    let a = Home::with(&alba, &[&borea], setup()).await.unwrap();
    let b = Home::with(&borea, &[&alba], setup()).await.unwrap();
    b.dial(&a).await;
    eventually(SOON, "both see each other", || a.node.peers().len() == 1 && b.node.peers().len() == 1).await;
    assert_eq!(a.node.peers()[0].nation, borea.nation);
    assert_eq!(b.node.peers()[0].nation, alba.nation);
    assert_eq!(b.node.peers()[0].peer_id, a.node.peer_id());
    a.stop().await;
    eventually(SOON, "the other notices", || b.node.peers().is_empty()).await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_nations_meet_over_tcp() {
    meet(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_nations_meet_over_quic() {
    meet(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nation_that_is_not_pinned_is_refused_and_told_why() {
    for transport in [TCP, QUIC] {
        let (alba, cora) = (Country::new("alba"), Country::new("cora"));
        let setup = || Setup { listen: vec![transport.to_owned()], ..Setup::default() };
        // Cora trusts alba, alba does not trust cora.
        let a = Home::with(&alba, &[], setup()).await.unwrap();
        let c = Home::with(&cora, &[&alba], setup()).await.unwrap();
        let (mut at_a, mut at_c) = (Alerts::of(&a.node), Alerts::of(&c.node));
        let error = c.node.dial(a.address()).await.unwrap_err().to_string();
        assert!(error.contains("does not trust `cora`"), "{error}");
        let (message, peer, _) = at_a.next("peer_refused").await;
        assert!(message.contains("the nation `cora` is not pinned here"), "{message}");
        assert_eq!(peer, Some(c.node.peer_id()));
        let (message, _, nation) = at_c.next("refused_by_peer").await;
        assert!(message.contains("`alba`") && message.contains("does not trust `cora`"), "{message}");
        assert_eq!(nation, Some(alba.nation.clone()));
        assert!(a.node.peers().is_empty() && c.node.peers().is_empty());
        assert_eq!(a.node.refusals().0, 1);
        // Pinned, it may.
        cora.trust_in(a.node.store());
        c.dial(&a).await;
        eventually(SOON, "connected", || a.node.peers().len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_right_are_refused() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let b = Home::start(&borea, &[&alba]).await;
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id().to_base58();
    let later = Timestamp::now().plus(DAY);
    let mut forged = Country::new("borea").certificate(&peer, later).to_json();
    let text = String::from_utf8(forged.clone()).unwrap();
    let at = text.find("\"sig\":\"").unwrap() + 8;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let cases = [
        ("expired", borea.certificate(&peer, Timestamp::now().plus(-1)), "certificate has expired"),
        (
            "another peer's",
            borea.certificate(&b.node.peer_id(), later),
            "certificate is for another peer key",
        ),
        ("forged", Signed::parse(&forged).unwrap(), "not signed by the node role"),
        ("a root", borea.root.clone(), "could not read"),
    ];
    for (name, certificate, expected) in cases {
        let stranger = Stranger::with(borea.nation.clone(), &keypair, &certificate, b.node.store()).await;
        let error = stranger.dial(&a).await.unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
        stranger.started.network.send(swarm::Command::Shutdown).await;
    }
    assert_eq!(a.node.refusals().0, 4);
    assert!(a.node.peers().is_empty());
    // The right one is taken.
    let right = borea.certificate(&peer, later);
    let stranger = Stranger::with(borea.nation.clone(), &keypair, &right, b.node.store()).await;
    stranger.dial(&a).await.unwrap();
    eventually(SOON, "connected", || a.node.peers().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_a_certificate_that_nobody_would_accept() {
    let alba = Country::new("alba");
    let wrong =
        alba.certificate("12D3KooWGRUoiTWnyUiuvRQXQcGYmMgYdFcnA2nX9cEWgCWuVpbn", Timestamp::now().plus(DAY));
    let setup = Setup { certificate: Some(wrong), ..Setup::default() };
    let error = Home::with(&alba, &[], setup).await.err().unwrap().to_string();
    assert!(error.contains("names peer 12D3KooWGRU"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_at_the_start() {
    let alba = Country::new("alba");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port());
    let setup = Setup { listen: vec![listen.clone()], ..Setup::default() };
    let error = Home::with(&alba, &[], setup).await.err().unwrap().to_string();
    assert!(error.contains(&listen), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nation_is_disconnected_and_refused() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let setup = Setup { peers: vec![a.address()], ..Setup::default() };
    let b = Home::with(&borea, &[&alba], setup).await.unwrap();
    eventually(SOON, "the configured peer is dialled", || a.node.peers().len() == 1).await;
    a.node.store().unpin_nation(&borea.nation).unwrap();
    a.node.disconnect_nation(&borea.nation).await;
    eventually(SOON, "disconnected", || a.node.peers().is_empty() && b.node.peers().is_empty()).await;
    eventually(SOON, "refused when it comes back", || a.node.refusals().0 > 0).await;
    assert!(a.node.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_is_not_waited_for() {
    use tokio::io::AsyncReadExt;
    let alba = Country::new("alba");
    let a = Home::start(&alba, &[]).await;
    let address: libp2p::Multiaddr = a.address().parse().unwrap();
    let port = address
        .iter()
        .find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        })
        .unwrap();
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut heard = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(25), socket.read_to_end(&mut heard)).await;
    assert!(closed.is_ok(), "a silent connection is still open");
}
