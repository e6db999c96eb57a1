//! Announcements on the one topic: a recall and evidence against a log in full, of everything else only that there is news.
//!
//! Nothing is forwarded that was not judged: a malformed message and a recall that does not verify are rejected and held
//! against whoever brought them; what concerns a nation that is not pinned here is neither kept nor passed on.

use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::MessageAcceptance;
use registry::admit::Door;
use registry::statement::{Kind, Statement};
use registry::store::Store;
use registry::{Digest, Nation, Signed, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::node::Node;
use crate::wire::MAX_GOSSIP;

/// The version of the messages.
const VERSION: u32 = 1;
/// When the peers are asked again for news that one of them announced and did not have itself yet.
const AGAIN: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(4)];

/// A message of the topic: exactly one of the fields beside `version`.
#[derive(Debug, Serialize, Deserialize)]
struct Announcement {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<Hint>,
    /// A recall's envelopes, as they travel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recall: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Growth>,
    /// Evidence against a log, as it travels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Box<RawValue>>,
}

/// A nation's log has grown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Growth {
    nation: Nation,
    size: u64,
    /// How many nations have cosigned it.
    #[serde(default)]
    cosigned: usize,
}

const EMPTY: Announcement =
    Announcement { version: VERSION, hint: None, recall: None, log: None, evidence: None };

/// There is news of a nation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hint {
    nation: Nation,
    /// The newest statement. Left out where not everybody may know of it; `nonce` then tells one hint from the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<u64>,
}

/// What an announcement says.
#[derive(Debug)]
pub enum Announced {
    /// There is news of a nation, perhaps this statement.
    Hint(Nation, Option<Digest>),
    /// A recall: the JSON of its envelopes.
    Recall(Vec<u8>),
    /// A nation's log has so many entries now, cosigned by so many nations.
    Log(Nation, u64, usize),
    /// Evidence against a log: its JSON.
    Evidence(Vec<u8>),
}

/// Reads a message; `None` when no honest node sends it.
pub fn parse(data: &[u8]) -> Option<Announced> {
    if data.len() > MAX_GOSSIP {
        return None;
    }
    let message: Announcement = serde_json::from_slice(data).ok()?;
    if message.version != VERSION {
        return None;
    }
    let bytes = |raw: Box<RawValue>| raw.get().as_bytes().to_vec();
    match (message.hint, message.recall, message.log, message.evidence) {
        (Some(hint), None, None, None) => Some(Announced::Hint(hint.nation, hint.digest)),
        (None, Some(recall), None, None) => Some(Announced::Recall(bytes(recall))),
        (None, None, Some(log), None) => Some(Announced::Log(log.nation, log.size, log.cosigned)),
        (None, None, None, Some(evidence)) => Some(Announced::Evidence(bytes(evidence))),
        _ => None,
    }
}

/// The message that says that a log has grown.
pub fn compose_growth(nation: Nation, size: u64, cosigned: usize) -> Option<Vec<u8>> {
    serde_json::to_vec(&Announcement { log: Some(Growth { nation, size, cosigned }), ..EMPTY }).ok()
}

/// The message that hands evidence on; `None` when it is too long for one, and comes with the heads alone.
pub fn compose_evidence(json: &[u8]) -> Option<Vec<u8>> {
    let raw = RawValue::from_string(String::from_utf8(json.to_vec()).ok()?).ok()?;
    let message = serde_json::to_vec(&Announcement { evidence: Some(raw), ..EMPTY }).ok()?;
    (message.len() <= MAX_GOSSIP).then_some(message)
}

/// The message that announces a statement.
pub fn compose(store: &Store, signed: &Signed, statement: &Statement) -> Option<Vec<u8>> {
    let message = if statement.kind() == Kind::Recall {
        let json = String::from_utf8(signed.to_json()).ok()?;
        Announcement { recall: Some(RawValue::from_string(json).ok()?), ..EMPTY }
    } else {
        let release = match statement {
            Statement::Release(_) => Some(signed.digest()),
            Statement::Channel(channel) => Some(channel.release),
            Statement::Attestation(attestation) => Some(attestation.release),
            _ => None,
        };
        // Named only where every ally may know of it.
        let open = registry::releasable::statement_to_everybody(store, statement).unwrap_or(false)
            && release.is_none_or(|release| {
                let door = Door::open(store, Timestamp::now());
                door.and_then(|door| door.may_be_announced(&release)).unwrap_or(false)
            });
        let nonce = if open {
            None
        } else {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).ok()?;
            Some(u64::from_le_bytes(bytes) >> 11)
        };
        let hint = Hint { nation: statement.nation().clone(), digest: open.then(|| signed.digest()), nonce };
        Announcement { hint: Some(hint), ..EMPTY }
    };
    serde_json::to_vec(&message).ok()
}

/// Judges a message and does what follows from it.
pub(crate) async fn receive(node: &Node, from: PeerId, data: &[u8]) -> MessageAcceptance {
    let Some(announced) = parse(data) else {
        let message = format!("peer {from} gossiped a message that can't be read");
        node.fault(&from, "bad_gossip", &message).await;
        return MessageAcceptance::Reject;
    };
    match announced {
        Announced::Hint(nation, digest) => {
            if node.store().trust().member(&nation).is_err() {
                return MessageAcceptance::Ignore;
            }
            let node2 = node.clone();
            node.spawn("news", async move { follow(&node2, from, digest).await });
            MessageAcceptance::Accept
        }
        Announced::Recall(bytes) => {
            let is_recall = Signed::parse(&bytes)
                .ok()
                .and_then(|signed| signed.peek().ok())
                .is_some_and(|statement| statement.kind() == Kind::Recall);
            let taken =
                if is_recall { crate::sync::take_gossiped(node, from, bytes).await } else { Some(false) };
            match taken {
                Some(true) => MessageAcceptance::Accept,
                Some(false) => {
                    let message = format!("peer {from} gossiped a recall that does not verify");
                    node.fault(&from, "bad_gossip", &message).await;
                    MessageAcceptance::Reject
                }
                None => MessageAcceptance::Ignore,
            }
        }
        Announced::Log(nation, size, cosigned) => {
            if node.store().trust().member(&nation).is_err() {
                return MessageAcceptance::Ignore;
            }
            let node2 = node.clone();
            node.spawn("log", async move {
                crate::log::follow::grown(&node2, from, nation, size, cosigned).await;
            });
            MessageAcceptance::Accept
        }
        Announced::Evidence(json) => match crate::log::dispute::take(node, from, json).await {
            Some(true) => MessageAcceptance::Accept,
            Some(false) => {
                let message = format!("peer {from} gossiped evidence against a log that proves nothing");
                node.fault(&from, "bad_gossip", &message).await;
                MessageAcceptance::Reject
            }
            None => MessageAcceptance::Ignore,
        },
    }
}

/// Asks for announced news until it is here: whoever brought the hint may not have it itself yet.
async fn follow(node: &Node, from: PeerId, digest: Option<Digest>) {
    let here = || {
        let store = node.store().clone();
        async move {
            let Some(digest) = digest else { return false };
            let found = crate::node::blocking(move || store.statement(&digest)).await;
            matches!(found, Ok(Some(_)))
        }
    };
    if here().await {
        return;
    }
    let Some(_permit) = node.inner().syncer.follow_permit() else { return };
    crate::sync::sync_peer(node, from).await;
    for pause in AGAIN {
        if here().await {
            return;
        }
        tokio::time::sleep(pause).await;
        for (peer, _) in node.book().connected() {
            crate::sync::kick(node, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_whole_messages_are_read() {
        let hint = br#"{"version":1,"hint":{"nation":"alba"}}"#;
        assert!(matches!(parse(hint), Some(Announced::Hint(nation, None)) if nation.as_str() == "alba"));
        let log = compose_growth(Nation::new("alba").unwrap(), 7, 2).unwrap();
        assert!(matches!(parse(&log), Some(Announced::Log(_, 7, 2))));
        let evidence = compose_evidence(br#"{"a":1}"#).unwrap();
        assert!(matches!(parse(&evidence), Some(Announced::Evidence(json)) if json == br#"{"a":1}"#));
        let recall = br#"{"version":1,"recall":[{"payload":""}]}"#;
        assert!(matches!(parse(recall), Some(Announced::Recall(_))));
        for wrong in [
            &br#"{"version":2,"hint":{"nation":"alba"}}"#[..],
            br#"{"version":1}"#,
            br#"{"version":1,"hint":{"nation":"alba"},"recall":[]}"#,
            br#"{"version":1,"hint":{"nation":"../alba"}}"#,
            br#"{"version":1,"hint":{"nation":"alba","digest":"b3:00"}}"#,
            b"",
            b"\xff",
        ] {
            assert!(parse(wrong).is_none(), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(parse(&vec![b' '; MAX_GOSSIP + 1]).is_none());
    }
}
