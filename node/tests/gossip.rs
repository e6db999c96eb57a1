//! News travels: by gossip at once, by synchronisation for sure.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{Alerts, Country, Home, Stranger, eventually, only};
use node::events::Event;
use node::swarm::Command;
use registry::statement::{RecallTarget, Releasable};

const LIMIT: Duration = Duration::from_secs(20);

fn card() -> Vec<(&'static str, Vec<u8>)> {
    vec![("README.md", b"# a model".to_vec())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recall_reaches_a_node_over_another_within_seconds() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let all = [&alba, &borea, &cora];
    let a = Home::start(&alba, &all[1..]).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    // Cora never speaks with alba.
    let c = Home::joined(&cora, &[&alba, &borea], vec![b.address()]).await;
    eventually(LIMIT, "connected", || b.node.peers().len() == 2).await;
    let release = a.publish(&alba, "m", "1", &card(), Releasable::All).await;
    eventually(LIMIT, "cora learns of the release", || c.node.store().release(&release).unwrap().is_some())
        .await;

    let mut events = c.node.events().subscribe();
    let start = Instant::now();
    let digest = a.accept(&alba.recall(RecallTarget::Release(release), 1)).await;
    eventually(LIMIT, "cora keeps the recall", || c.node.store().statement(&digest).unwrap().is_some()).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "the recall took {took:?}");
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |= matches!(event, Event::Recall { digest: of, .. } if of == digest);
    }
    assert!(told, "no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_a_nation_does_not_reach_it() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    let c = Home::joined(&cora, &[&alba, &borea], vec![a.address(), b.address()]).await;
    eventually(LIMIT, "connected", || c.node.peers().len() == 2 && b.node.peers().len() == 2).await;
    let secret = a.publish(&alba, "secret", "1", &card(), only(&[&borea])).await;
    let open = a.publish(&alba, "open", "1", &[("README.md", b"another".to_vec())], Releasable::All).await;
    eventually(LIMIT, "borea learns of both", || {
        [secret, open].iter().all(|digest| b.node.store().release(digest).unwrap().is_some())
    })
    .await;
    eventually(LIMIT, "cora learns of the open one", || c.node.store().release(&open).unwrap().is_some())
        .await;
    c.node.sync_now().await;
    assert!(c.node.store().release(&secret).unwrap().is_none());
    let channels = c.node.store().channels().unwrap();
    assert!(channels.iter().all(|(_, channel)| channel.release != secret), "{channels:?}");
    // A recall goes to all.
    let digest = a.accept(&alba.recall(RecallTarget::Release(secret), 1)).await;
    eventually(LIMIT, "cora knows the recall", || c.node.store().statement(&digest).unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_nation_said_before_it_was_pinned_is_learnt_afterwards() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &card(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    eventually(LIMIT, "borea has it", || b.node.store().release(&release).unwrap().is_some()).await;
    let c = Home::joined(&cora, &[&borea], vec![b.address()]).await;
    eventually(LIMIT, "connected", || c.node.peers().len() == 1).await;
    c.node.sync_now().await;
    assert!(c.node.store().release(&release).unwrap().is_none());
    alba.trust_in(c.node.store());
    c.node.sync_now().await;
    assert!(c.node.store().release(&release).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_what_is_new_is_read() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    for version in ["1", "2", "3"] {
        a.publish(&alba, "m", version, &card(), Releasable::All).await;
    }
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    eventually(LIMIT, "borea has all", || b.node.store().last_seq() == 6).await;
    let b = b.restart(vec![a.address()]).await;
    b.node.sync_now().await;
    assert_eq!(b.node.store().last_seq(), 6, "nothing is kept twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_recalls_and_garbage_are_held_against_the_sender() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &card(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    eventually(LIMIT, "borea has it", || b.node.store().release(&release).unwrap().is_some()).await;
    let stranger = Stranger::new(&alba, a.node.store()).await;
    stranger.dial(&b).await.unwrap();
    let mut alerts = Alerts::of(&b.node);
    // Signed by another key that calls itself alba's.
    let genuine = alba.recall(RecallTarget::Release(release), 1);
    let mut forged = String::from_utf8(genuine.to_json()).unwrap();
    let at = forged.find("\"sig\":\"").unwrap() + 8;
    let other = if &forged[at..at + 1] == "A" { "B" } else { "A" };
    forged.replace_range(at..at + 1, other);
    let deadline = Instant::now() + LIMIT;
    let mut round = 0;
    let told = loop {
        // Gossip forms its links a moment after the connection, and forgets nothing: each try is another message.
        round += 1;
        let message = format!(r#"{{"version":1,"recall":{forged},"round":{round}}}"#);
        stranger.started.network.send(Command::Publish(message.into_bytes())).await;
        match tokio::time::timeout(Duration::from_millis(500), alerts.next("bad_gossip")).await {
            Ok(told) => break told,
            Err(_) => assert!(Instant::now() < deadline, "the forged recall never arrived"),
        }
    };
    assert!(told.0.contains("does not verify"), "{}", told.0);
    assert_eq!(told.1, Some(stranger.peer.to_base58()));
    // Garbage without end: disconnected.
    for round in 0..40 {
        stranger.started.network.send(Command::Publish(format!("garbage {round}").into_bytes())).await;
    }
    let peer = stranger.peer.to_base58();
    eventually(LIMIT, "it is disconnected", || b.node.peers().iter().all(|info| info.peer_id != peer)).await;
    assert_eq!(b.node.peers().len(), 1);
    assert!(b.node.store().recalls().unwrap().is_empty());
}
