//! Pulling releases: from several peers, over restarts, past bad sources.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{Alerts, Country, Home, QUIC, Setup, eventually, noise, only};
use node::events::{TransferInfo, TransferState};
use node::node::{PullError, PullOptions};
use registry::statement::{RecallTarget, Releasable};
use registry::{Digest, Reference};

const MIB: usize = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(30);

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn pull(home: &Home, text: &str) -> Result<TransferInfo, PullError> {
    let pulled = tokio::time::timeout(LIMIT * 3, home.node.pull(reference(text), PullOptions::default()));
    pulled.await.expect("the pull has no end").map(|report| report.transfer)
}

fn weights() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("model.safetensors", safetensors(24)),
        ("tokenizer.json", tokenizer()),
        ("config.json", br#"{"model_type":"test"}"#.to_vec()),
        ("empty.txt", Vec::new()),
        ("copy.json", br#"{"model_type":"test"}"#.to_vec()),
    ]
}

fn tokenizer() -> Vec<u8> {
    let words: Vec<String> =
        noise("tokenizer", 350_000).chunks(8).map(|word| format!("\"{word:02x?}\"")).collect();
    format!("{{\"vocabulary\":[{}]}}", words.join(",")).into_bytes()
}

/// Tensors of one MiB each.
fn safetensors(tensors: usize) -> Vec<u8> {
    let mut header = String::from("{");
    for i in 0..tensors {
        let (from, to) = (i * MIB, (i + 1) * MIB);
        let comma = if i == 0 { "" } else { "," };
        header.push_str(&format!(
            r#"{comma}"t{i}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{from},{to}]}}"#,
            MIB / 2
        ));
    }
    header.push('}');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&noise("weights", tensors * MIB));
    out
}

fn assert_same(from: &Home, to: &Home, release: &Digest) {
    for (path, _) in weights() {
        assert!(from.content(release, path) == to.content(release, path), "{path} differs");
        assert!(to.content(release, path).is_some(), "{path} is missing");
    }
}

async fn simple(transport: &str) {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let listen = vec![transport.to_owned()];
    let a = Home::with(&alba, &[&borea], Setup { listen: listen.clone(), ..Setup::default() }).await.unwrap();
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let setup = Setup { listen, peers: vec![a.address()], ..Setup::default() };
    let b = Home::with(&borea, &[&alba], setup).await.unwrap();
    let info = pull(&b, "alba/m").await.unwrap();
    assert_eq!(info.state, TransferState::Done);
    assert_eq!(info.release, Some(release));
    assert_eq!(info.bytes_done, info.bytes_total);
    assert_eq!(info.bytes_resumed, 0);
    assert_eq!(info.peers.len(), 1);
    assert_eq!(info.peers[0].nation, alba.nation);
    assert_same(&a, &b, &release);
    // Again: nothing is fetched.
    let info = pull(&b, "alba/m@1").await.unwrap();
    assert_eq!(info.bytes_resumed, info.bytes_total);
    assert!(info.peers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_pulled_over_tcp() {
    simple(common::TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_pulled_over_quic() {
    simple(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_share_the_work() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    pull(&b, "alba/m").await.unwrap();
    let c = Home::start(&cora, &[&alba, &borea]).await;
    c.dial(&a).await;
    c.dial(&b).await;
    let info = pull(&c, "alba/m").await.unwrap();
    assert_same(&a, &c, &release);
    assert_eq!(info.peers.len(), 2, "{:?}", info.peers);
    let bytes: u64 = info.peers.iter().map(|share| share.bytes).sum();
    assert!(
        bytes >= info.bytes_total - 100 && bytes < info.bytes_total * 12 / 10,
        "{bytes} of {}",
        info.bytes_total
    );
    assert!(info.peers.iter().all(|share| share.bytes > info.bytes_total / 10), "{:?}", info.peers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_wrong_bytes_is_banned_and_the_other_completes_it() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    pull(&b, "alba/m").await.unwrap();
    // Every chunk of the weights is wrong at borea, so that whatever is asked of it shows.
    for i in 0..24 {
        b.corrupt(&release, "model.safetensors", (i * MIB + 5000) as u64);
    }
    let c = Home::start(&cora, &[&alba, &borea]).await;
    let mut alerts = Alerts::of(&c.node);
    c.dial(&a).await;
    c.dial(&b).await;
    let info = pull(&c, "alba/m").await.unwrap();
    assert_same(&a, &c, &release);
    let share = info.peers.iter().find(|share| share.nation == borea.nation).unwrap();
    assert!(share.banned && share.bad_chunks > 0, "{share:?}");
    let (message, peer, nation) = alerts.next("corrupt_chunk").await;
    assert!(message.contains("model.safetensors") && message.contains("`borea`"), "{message}");
    assert_eq!((peer, nation), (Some(b.node.peer_id()), Some(borea.nation.clone())));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_only_a_corrupt_peer_has_it_the_pull_fails_as_a_verification_and_resumes_elsewhere() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let mirror = Home::joined(&alba, &[&borea], vec![a.address()]).await;
    pull(&mirror, "alba/m").await.unwrap();
    // Or the provider table would lead to it.
    mirror.stop().await;
    a.corrupt(&release, "model.safetensors", 20 * MIB as u64);
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    let error = pull(&b, "alba/m").await.unwrap_err();
    assert!(matches!(error, PullError::Verification(_)), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    let mirror = mirror.restart(Vec::new()).await;
    b.dial(&mirror).await;
    let info = pull(&b, "alba/m").await.unwrap();
    assert!(info.bytes_resumed > 0, "{info:?}");
    assert_same(&mirror, &b, &release);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_releasable_does_not_exist_for_the_asker() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let secret = a.publish(&alba, "secret", "1", &weights(), only(&[&borea])).await;
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    let c = Home::joined(&cora, &[&alba], vec![a.address()]).await;
    pull(&b, "alba/secret").await.unwrap();
    let error = pull(&c, "alba/secret").await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { asked: 1, .. }), "{error}");
    assert_eq!(c.node.store().statement(&secret).unwrap(), None);
    // With the statement from elsewhere, the policy refuses before a byte is asked for.
    let signed = a.node.store().statement(&secret).unwrap().unwrap();
    registry::publish::learn(c.node.store(), &signed, registry::Timestamp::now()).unwrap();
    let error = pull(&c, &secret.to_string()).await.unwrap_err();
    let PullError::Policy(decision) = error else { panic!("{error}") };
    assert!(decision.refusals().any(|check| check.rule == "releasable-to-us"));
    assert_eq!(c.node.peers()[0].received_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_resumes() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    let node = b.node.clone();
    let pulling =
        tokio::spawn(async move { node.pull(reference("alba/m"), PullOptions::default()).await.map(|_| ()) });
    eventually(LIMIT, "some of it is here", || {
        b.node.transfers().first().is_some_and(|info| info.bytes_done > 2 * MIB as u64)
    })
    .await;
    let id = b.node.transfers()[0].id;
    if b.node.cancel_transfer(id) {
        let ended = pulling.await.unwrap();
        assert!(ended.is_ok() || matches!(ended, Err(PullError::Cancelled)), "{ended:?}");
    }
    let b = b.restart(vec![a.address()]).await;
    let info = pull(&b, "alba/m").await.unwrap();
    assert!(info.bytes_resumed > 0, "{info:?}");
    assert_same(&a, &b, &release);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_release_are_one_transfer() {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let a = Home::start(&alba, &[&borea]).await;
    a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba], vec![a.address()]).await;
    let (one, two, three) = tokio::join!(pull(&b, "alba/m"), pull(&b, "alba/m@1"), pull(&b, "alba/m:stable"));
    for info in [one.unwrap(), two.unwrap(), three.unwrap()] {
        assert_eq!(info.state, TransferState::Done);
    }
    let received = b.node.peers()[0].received_bytes;
    let total: u64 = weights().iter().map(|(_, content)| content.len() as u64).sum();
    assert!(received < total * 12 / 10, "{received} of {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_what_it_has_while_it_fetches_and_a_dead_source_is_replaced() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    let c = Home::joined(&cora, &[&alba, &borea], vec![a.address(), b.address()]).await;
    eventually(LIMIT, "all are connected", || c.node.peers().len() == 2).await;
    let (at_b, at_c) = tokio::join!(pull(&b, "alba/m"), async {
        let pulling = pull(&c, "alba/m");
        let killed = async {
            eventually(LIMIT, "borea is done", || {
                b.node.transfers().first().is_some_and(|info| info.state == TransferState::Done)
            })
            .await;
            a.stop().await;
        };
        tokio::join!(pulling, killed).0
    });
    at_b.unwrap();
    at_c.unwrap();
    assert_same(&b, &c, &release);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recalled_release_is_neither_pulled_nor_served() {
    let (alba, borea, cora) = (Country::new("alba"), Country::new("borea"), Country::new("cora"));
    let a = Home::start(&alba, &[&borea, &cora]).await;
    let release = a.publish(&alba, "m", "1", &weights(), Releasable::All).await;
    let b = Home::joined(&borea, &[&alba, &cora], vec![a.address()]).await;
    pull(&b, "alba/m").await.unwrap();
    a.accept(&alba.recall(RecallTarget::Release(release), 1)).await;
    eventually(LIMIT, "borea knows", || !b.node.store().recalls().unwrap().is_empty()).await;
    let error = pull(&b, "alba/m").await.unwrap_err();
    assert!(matches!(error, PullError::Policy(_)), "{error}");
    // Cora pins only borea, and has the release from elsewhere: nobody serves it any more.
    let c = Home::joined(&cora, &[&alba, &borea], vec![b.address()]).await;
    let error = pull(&c, "alba/m").await.unwrap_err();
    assert!(matches!(error, PullError::Policy(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_ask_is_said_so() {
    let alba = Country::new("alba");
    let a = Home::start(&alba, &[]).await;
    let error = pull(&a, "alba/m").await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { asked: 0, .. }), "{error}");
    assert!(error.to_string().contains("none is connected"), "{error}");
    let error = pull(&a, "borea/m").await.unwrap_err();
    assert!(matches!(error, PullError::NotPinned { .. }), "{error}");
    assert!(error.to_string().contains("steelyard trust add"), "{error}");
}
