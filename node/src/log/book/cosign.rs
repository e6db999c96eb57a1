//! Cosignatures: what this node cosigned, and what allies cosigned of ours.

use registry::key::SecretKey;
use registry::log::checkpoint::SignedCheckpoint;
use registry::log::evidence::Evidence;
use registry::log::note::Note;
use registry::log::witness::{AddCheckpoint, Refusal};
use registry::store::{LogError, Store};
use registry::{Nation, Timestamp};

use super::{Head, Result, Weighed, as_head, fault, weigh};
use crate::wire::LogRefusal;

/// What a request for a cosignature came to.
pub(crate) enum Cosigned {
    /// The lines.
    Lines {
        /// As they are answered.
        lines: Vec<u8>,
        /// Whose log.
        nation: Nation,
        /// Its size.
        size: u64,
    },
    /// No, and the size cosigned last where that matters.
    Refused(LogRefusal, u64),
    /// The log contradicts itself: evidence.
    Fork(Vec<u8>),
}

/// The note that keeps the checkpoint of a log that this node cosigned last.
fn vouched_key(nation: &Nation) -> String {
    format!("log/cosigned/{nation}")
}

pub(super) fn vouched(store: &Store, nation: &Nation) -> Option<SignedCheckpoint> {
    let note = store.get_meta(&vouched_key(nation))?;
    store.read_checkpoint(nation, &note).ok()
}

/// Cosigns, as this nation's witness. The caller sees to it that one log is cosigned once at a time.
pub(crate) fn cosign(store: &Store, key: &SecretKey, body: &[u8], now: Timestamp) -> Result<Cosigned> {
    let request = match AddCheckpoint::parse(body) {
        Ok(request) => request,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let answer = match store.cosign(&request, key, now) {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(match fault(error)? {
                LogError::Disputed(_) => Cosigned::Refused(LogRefusal::Disputed, 0),
                _ => Cosigned::Refused(LogRefusal::Malformed, 0),
            });
        }
    };
    let Ok(nation) = request.nation() else { return Ok(Cosigned::Refused(LogRefusal::Malformed, 0)) };
    let note = request.note.to_string();
    match answer {
        Ok(lines) => {
            let Ok(checkpoint) = store.read_checkpoint(&nation, note.as_bytes()) else {
                return Ok(Cosigned::Refused(LogRefusal::BadSignature, 0));
            };
            // Before it is answered: what was vouched for is shown to whoever asks, and weighed against what comes.
            store.put_meta(&vouched_key(&nation), note.as_bytes())?;
            Ok(Cosigned::Lines { lines: lines.into_bytes(), nation, size: checkpoint.size() })
        }
        Err(Refusal::Fork { size }) => {
            if let Weighed::Fork(evidence) = weigh(store, note.as_bytes())? {
                return Ok(Cosigned::Fork(evidence));
            }
            let evidence = match (vouched(store, &nation), store.read_checkpoint(&nation, note.as_bytes())) {
                (Some(before), Ok(now)) if before.size() == now.size() => Evidence::of_equal(&before, &now),
                _ => return Ok(Cosigned::Refused(LogRefusal::Conflict, size)),
            };
            let proven = evidence.verify(&store.log_keys(&nation)).is_ok();
            Ok(if proven {
                Cosigned::Fork(evidence.to_json())
            } else {
                Cosigned::Refused(LogRefusal::Conflict, size)
            })
        }
        Err(refusal) => Ok(refused(&refusal)),
    }
}

fn refused(refusal: &Refusal) -> Cosigned {
    match refusal {
        Refusal::Malformed(_) => Cosigned::Refused(LogRefusal::Malformed, 0),
        Refusal::UnknownLog(_) => Cosigned::Refused(LogRefusal::Unknown, 0),
        Refusal::BadSignature => Cosigned::Refused(LogRefusal::BadSignature, 0),
        Refusal::Conflict { size } | Refusal::Fork { size } => Cosigned::Refused(LogRefusal::Conflict, *size),
        Refusal::BadProof(_) => Cosigned::Refused(LogRefusal::BadProof, 0),
    }
}

/// The nation whose log a request for a cosignature is about; nothing is believed.
pub(crate) fn asked_about(body: &[u8]) -> Option<Nation> {
    AddCheckpoint::parse(body).ok()?.nation().ok()
}

/// The request that asks a witness to cosign a head, having cosigned `old` last; nothing where there is no such proof.
pub(crate) fn request(store: &Store, head: &Head, old: u64) -> Result<Option<Vec<u8>>> {
    let (Some(proof), Ok(mut note)) =
        (store.log_consistency(&head.nation, old, head.size)?, Note::parse(&head.note))
    else {
        return Ok(None);
    };
    // Others' cosignatures are nothing to this witness.
    let own = registry::log::checkpoint::origin(&head.nation);
    note.retain(|line| line.name() == own);
    Ok(Some(AddCheckpoint { old_size: old, proof, note }.to_body().into_bytes()))
}

/// Those of the lines that are no cosignatures of a time that our clock can't explain; nothing where none is left.
fn timely(head: &Head, lines: &str) -> Option<String> {
    let mut note = Note::parse(&head.note).ok()?;
    note.retain(|_| false);
    note.add_lines(lines).ok()?;
    note.drop_ahead(Timestamp::now());
    let lines: String = note.signatures().iter().map(ToString::to_string).collect();
    Some(lines).filter(|lines| !lines.is_empty())
}

/// Keeps an ally's cosignatures under a head of ours; whether the ally counts among its witnesses now.
pub(crate) fn take_cosignatures(store: &Store, head: &Head, ally: &Nation, lines: &[u8]) -> Result<bool> {
    let Some(lines) = std::str::from_utf8(lines).ok().and_then(|lines| timely(head, lines)) else {
        return Ok(false);
    };
    if let Err(error) = store.add_cosignatures(&head.nation, head.size, &lines) {
        let error = fault(error)?;
        tracing::debug!("cosignatures were not taken: {error}");
        return Ok(false);
    }
    let all = store.log_checkpoints(&head.nation)?;
    let kept = all.iter().find(|checkpoint| checkpoint.size() == head.size);
    // A newer checkpoint with the same witnesses has taken its place: nothing is lost.
    Ok(kept.is_none_or(|checkpoint| as_head(store, checkpoint).witnesses.contains(ally)))
}
