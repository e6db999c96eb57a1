//! Document 08: notes and their keys, checkpoints, who witnessed one, the portable proof and evidence of a fork.

use std::collections::BTreeMap;

use crate::log::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, note_keys};
use crate::log::evidence::{Evidence, EvidenceError};
use crate::log::note::{MAX_SIGNATURES, Note, NoteError, NoteKey};
use crate::log::proof::{LogProof, LogProofError};
use crate::log::tree::Hash;
use crate::statement::{RoleName, Root, Statement};
use crate::{Digest, Nation, Signed};
use serde_json::{Value, json};

use super::tree::{self, hex};
use super::{Outcome, Runner, broken, bytes, bytes_of, items, parsed, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[
    ("note", note),
    ("note-key", note_key),
    ("checkpoint", checkpoint),
    ("cosignatures", cosignatures),
    ("log-proof", log_proof),
    ("fork-evidence", fork_evidence),
];

pub(super) fn keys(list: &Value) -> Result<Vec<NoteKey>, String> {
    let list = list.as_array().ok_or_else(|| broken("no list of keys"))?;
    list.iter().map(|key| NoteKey::parse(key.as_str().unwrap_or_default()).map_err(broken)).collect()
}

fn note_code(error: &NoteError) -> String {
    match error {
        NoteError::TooLarge { .. } => "too-large",
        NoteError::Malformed(_) => "note",
        NoteError::TooManySignatures => "too-many-signatures",
        NoteError::Key(_) => "key",
    }
    .to_owned()
}

pub(super) fn checkpoint_code(error: &CheckpointError) -> String {
    match error {
        CheckpointError::Note(error) => return note_code(error),
        CheckpointError::Malformed(_) => "checkpoint",
        CheckpointError::Origin { .. } => "origin",
        CheckpointError::Unsigned(_) => "unsigned",
    }
    .to_owned()
}

fn note(input: &Value) -> Outcome {
    let bytes = bytes(input, "bytes")?;
    let note = Note::parse(&bytes).map_err(|error| note_code(&error))?;
    // It has one form.
    same(note.to_string().as_bytes(), &bytes[..])?;
    added_one_by_one(&note)?;
    let signed: Vec<bool> = keys(&input["keys"])?.iter().map(|key| note.signed_by(key)).collect();
    Ok(json!({ "text": note.text(), "lines": note.signatures().len(), "signed": signed }))
}

/// The same note comes of a text and of lines that are added, and no more of them than can be read.
fn added_one_by_one(note: &Note) -> Result<(), String> {
    let lines: Vec<String> = note.signatures().iter().map(ToString::to_string).collect();
    for (line, signature) in lines.iter().zip(note.signatures()) {
        same(line.starts_with(&format!("\u{2014} {} ", signature.name())), true)?;
    }
    for wrong in [note.text().trim_end_matches('\n'), &format!("{}\n", note.text()), "a\tb\n"] {
        same(Note::new(wrong.to_owned()).is_err(), true)?;
    }
    let Ok(fresh) = Note::new(note.text().to_owned()) else { return Ok(()) };
    let mut made = fresh.clone();
    same(made.add_lines(&lines.concat()), Ok(true))?;
    same(&made, note)?;
    // A line that is there is not added.
    same(made.add_lines(&lines.concat()), Ok(false))?;
    if lines.len() == MAX_SIGNATURES {
        let another = "\u{2014} another AAAAAAA=\n";
        let (mut fresh, all) = (fresh, lines.concat() + another);
        same(made.add_lines(another), Err(NoteError::TooManySignatures))?;
        same(fresh.add_lines(&all), Err(NoteError::TooManySignatures))?;
    }
    Ok(())
}

fn note_key(input: &Value) -> Outcome {
    let key = NoteKey::parse(text(input, "text")?).map_err(|_| "key".to_owned())?;
    let written = key.to_string();
    same(written.as_str(), text(input, "text")?)?;
    // What a key is for shows in its hash alone: the other use has another.
    let blob =
        written.splitn(3, '+').nth(2).and_then(|blob| data_encoding::BASE64.decode(blob.as_bytes()).ok());
    let blob = blob.ok_or("its own form can't be read")?;
    let (usage, public) = blob.split_first().ok_or("its own form is empty")?;
    let usage = if *usage == 1 { "note" } else { "cosignature" };
    Ok(json!({ "name": key.name(), "use": usage, "public": hex(public), "hash": hex(&key.hash()) }))
}

fn checkpoint(input: &Value) -> Outcome {
    let nation: Nation = parsed(input, "nation")?;
    let found = SignedCheckpoint::verify(&nation, &bytes(input, "bytes")?, &keys(&input["keys"])?)
        .map_err(|error| checkpoint_code(&error))?;
    let again = Checkpoint::new(&nation, found.size(), *found.root());
    same(found.note().text().starts_with(&again.text()), true)?;
    Ok(json!({ "size": found.size().to_string(), "root": hex(found.root()) }))
}

fn roots(input: &Value) -> Result<Vec<Root>, String> {
    let read = |root: &Value| {
        let signed = Signed::parse(&bytes_of(root).map_err(broken)?).map_err(broken)?;
        match signed.peek().map_err(broken)? {
            Statement::Root(root) => Ok(root),
            _ => Err(broken("no root")),
        }
    };
    items(input, "roots")?.iter().map(read).collect()
}

fn cosignatures(input: &Value) -> Outcome {
    let (roots, nation): (_, Nation) = (roots(input)?, parsed(input, "nation")?);
    let own = roots
        .iter()
        .find(|root| root.nation == nation)
        .ok_or_else(|| broken("no root of the log's nation"))?;
    let log = note_keys(own, RoleName::Log);
    let mut found = SignedCheckpoint::verify(&nation, &bytes(input, "bytes")?, &log)
        .map_err(|error| checkpoint_code(&error))?;
    let known: Vec<_> =
        roots.iter().map(|root| (root.nation.clone(), note_keys(root, RoleName::Witness))).collect();
    let count = |found: &SignedCheckpoint| found.witnesses(known.iter().map(|(n, keys)| (n, &keys[..])));
    let witnesses = count(&found);
    merged(&found, &log)?;
    // What a node drops as noise never counted, and what counts is not dropped; of each key one line stays at most.
    let all: Vec<NoteKey> = log.into_iter().chain(known.iter().flat_map(|(_, keys)| keys.clone())).collect();
    found.prune(&all);
    same(&count(&found), &witnesses)?;
    same(found.note().signatures().len() <= all.len(), true)?;
    Ok(json!({ "witnesses": witnesses }))
}

/// The cosignatures of the same checkpoint are taken over once, those of another never.
fn merged(found: &SignedCheckpoint, log: &[NoteKey]) -> Result<(), String> {
    let mut bare = found.clone();
    bare.prune(log);
    // The log's own line and no other.
    same(bare.note().signatures().len(), log.len())?;
    let (before, more) = (bare.clone(), found.note().signatures().len() > bare.note().signatures().len());
    same(bare.merge(found), Ok(more))?;
    same(bare.note().signatures().len(), found.note().signatures().len())?;
    same(bare.merge(found), Ok(false))?;
    let key = crate::key::SecretKey::from_seed(&[6; 32]);
    let other = SignedCheckpoint::sign(found.nation(), found.size() + 1, *found.root(), &key)
        .map_err(|error| error.to_string())?;
    let mut bare = before.clone();
    same((bare.merge(&other), &bare), (Ok(false), &before))
}

fn log_proof(input: &Value) -> Outcome {
    let code = |error: LogProofError| match error {
        LogProofError::Malformed(_) => "proof".to_owned(),
        LogProofError::Checkpoint(error) => checkpoint_code(&error),
        LogProofError::Proof(error) => tree::code(error),
    };
    let (bytes, nation): (_, Nation) = (bytes(input, "bytes")?, parsed(input, "nation")?);
    let statement: Digest = text(input, "statement")?.parse().map_err(broken)?;
    let witnesses = input["witnesses"].as_object().ok_or_else(|| broken("no witnesses"))?;
    let witnesses = witnesses
        .iter()
        .map(|(nation, list)| Ok((Nation::new(nation).map_err(broken)?, keys(list)?)))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let proof = LogProof::parse(&bytes).map_err(code)?;
    same(proof.to_text(), bytes)?;
    let known = witnesses.iter().map(|(nation, keys)| (nation, &keys[..]));
    let logged = proof.verify(&statement, &nation, &keys(&input["keys"])?, known).map_err(code)?;
    let (index, size) = (logged.index.to_string(), logged.size.to_string());
    Ok(json!({ "index": index, "size": size, "witnesses": logged.witnesses, "witnessed": logged.witnessed }))
}

fn evidence_code(error: EvidenceError) -> String {
    match error {
        EvidenceError::Malformed(_) => "evidence".to_owned(),
        EvidenceError::Checkpoint(error) => checkpoint_code(&error),
        EvidenceError::Proof(error) => tree::code(error),
        EvidenceError::Consistent => "consistent".to_owned(),
    }
}

fn fork_evidence(input: &Value) -> Outcome {
    let known = keys(&input["keys"])?;
    let evidence = Evidence::parse(&bytes(input, "bytes")?).map_err(evidence_code)?;
    same(&Evidence::parse(&evidence.to_json()).map_err(evidence_code)?, &evidence)?;
    let fork = evidence.verify(&known).map_err(evidence_code)?;
    // What was believed can be made here from the two checkpoints, and is believed again.
    same(made(&evidence, &known)?, evidence)?;
    same(fork.one != fork.other, true)?;
    Ok(json!({
        "nation": fork.nation, "size": fork.size.to_string(), "one": hex(&fork.one), "other": hex(&fork.other),
    }))
}

/// The evidence that this crate makes of the two checkpoints in believed evidence.
fn made(evidence: &Evidence, known: &[NoteKey]) -> Result<Evidence, String> {
    let read = |note: &str| {
        SignedCheckpoint::verify(&evidence.nation, note.as_bytes(), known).map_err(|error| error.to_string())
    };
    let (smaller, larger) = (read(&evidence.smaller)?, read(&evidence.larger)?);
    let decode = |text: &String| -> Result<Hash, String> {
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())?;
        bytes.try_into().map_err(|_| format!("believed, and no hash: {text}"))
    };
    Ok(match &evidence.prefix {
        None => Evidence::of_equal(&smaller, &larger),
        Some(prefix) => {
            let proof = evidence.proof.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            Evidence::of_prefix(&smaller, &larger, &decode(prefix)?, &proof)
        }
    })
}
