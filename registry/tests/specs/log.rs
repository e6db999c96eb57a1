//! Document 08: the tree, notes, checkpoints, tiles, the witness's decision, proofs and evidence.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use registry::log::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, note_keys};
use registry::log::evidence::{Evidence, EvidenceError};
use registry::log::note::{MAX_SIGNATURES, Note, NoteError, NoteKey};
use registry::log::proof::{LogProof, LogProofError};
use registry::log::tiles::{self, TILE_HEIGHT, TILE_WIDTH, Tile};
use registry::log::tree::{self, Hash, ProofError, Subtrees};
use registry::log::witness::{AddCheckpoint, Cosigned, Refusal, decide};
use registry::log::{ENTRY, entry, statement_of};
use registry::statement::{RoleName, Root, Statement};
use registry::{Digest, Nation, Signed};
use serde_json::{Value, json};

use crate::vectors::{Outcome, Runner, bytes, number, text};

pub(crate) const KINDS: &[(&str, Runner)] = &[
    ("log-entry", log_entry),
    ("log-root", log_root),
    ("log-inclusion", inclusion),
    ("log-consistency", consistency),
    ("note", note),
    ("note-key", note_key),
    ("checkpoint", checkpoint),
    ("tile-path", tile_path),
    ("tile", tile),
    ("cosignatures", cosignatures),
    ("witness-request", witness_request),
    ("witness", witness),
    ("log-proof", log_proof),
    ("fork-evidence", fork_evidence),
];

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn hash(value: &Value) -> Hash {
    let bytes = data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    bytes.try_into().unwrap()
}

fn hashes(input: &Value, key: &str) -> Vec<Hash> {
    input[key].as_array().unwrap().iter().map(hash).collect()
}

fn nation(input: &Value) -> Nation {
    Nation::new(text(input, "nation")).unwrap()
}

fn keys(list: &Value) -> Vec<NoteKey> {
    list.as_array().unwrap().iter().map(|key| NoteKey::parse(key.as_str().unwrap()).unwrap()).collect()
}

// ------------------------------------------------------------------------------------------------------- the codes

fn proof_code(error: ProofError) -> String {
    match error {
        ProofError::Outside { .. } => "outside",
        ProofError::Backwards { .. } => "backwards",
        ProofError::Length { .. } => "length",
        ProofError::Root => "root",
    }
    .to_owned()
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

pub(crate) fn checkpoint_code(error: &CheckpointError) -> String {
    match error {
        CheckpointError::Note(error) => return note_code(error),
        CheckpointError::Malformed(_) => "checkpoint",
        CheckpointError::Origin { .. } => "origin",
        CheckpointError::Unsigned(_) => "unsigned",
    }
    .to_owned()
}

/// The answer, and for a 409 the size in its body.
pub(crate) fn refusal_code(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Conflict { size } | Refusal::Fork { size } => format!("{} {size}", refusal.status()),
        _ => refusal.status().to_string(),
    }
}

// --------------------------------------------------------------------------------------------------------- the tree

/// A tree in memory that is built as a log grows.
#[derive(Default)]
struct Grown(HashMap<(u8, u64), Hash>, u64);

impl Subtrees for Grown {
    type Error = Infallible;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.0[&(level, index)])
    }
}

impl Grown {
    /// A log of this many entries, which say their number.
    fn of(count: u64) -> Self {
        let mut grown = Self::default();
        for at in 0..count {
            let Ok(completed) = tree::completed(&grown, at, tree::leaf_hash(&numbered(at)));
            for (level, hash) in (0u8..).zip(completed) {
                grown.0.insert((level, at >> level), hash);
            }
            grown.1 += 1;
        }
        grown
    }
}

fn numbered(at: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[0] = 1;
    entry[1..9].copy_from_slice(&at.to_be_bytes());
    entry
}

fn log_entry(input: &Value) -> Outcome {
    let found = bytes(input, "entry");
    let found: [u8; ENTRY] = found.try_into().map_err(|_| "entry".to_owned())?;
    let statement = statement_of(&found).ok_or("entry")?;
    assert_eq!(entry(&statement), found);
    Ok(json!({ "statement": statement.to_string() }))
}

fn log_root(input: &Value) -> Outcome {
    let count = number(&input["count"]);
    let grown = Grown::of(count);
    let Ok(root) = tree::root(&grown, count);
    // Whatever is proved here must hold here.
    for index in 0..count {
        let Ok(path) = tree::inclusion(&grown, index, count);
        let leaf = tree::leaf_hash(&numbered(index));
        assert_eq!(tree::verify_inclusion(&leaf, index, count, &path.unwrap(), &root), Ok(()));
    }
    for old in 1..=count {
        let (Ok(path), Ok(before)) = (tree::consistency(&grown, old, count), tree::root(&grown, old));
        assert_eq!(tree::verify_consistency(old, count, &path.unwrap(), &before, &root), Ok(()));
    }
    Ok(json!({ "root": hex(&root) }))
}

fn inclusion(input: &Value) -> Outcome {
    let (index, size) = (number(&input["index"]), number(&input["size"]));
    let (leaf, proof) = (tree::leaf_hash(&bytes(input, "entry")), hashes(input, "proof"));
    let root = hash(&input["rootHash"]);
    tree::verify_inclusion(&leaf, index, size, &proof, &root).map_err(proof_code)?;
    let Ok(made) = tree::inclusion(&Grown::of(size), index, size);
    assert_eq!(made, Some(proof), "the same proof is made here");
    Ok(json!({}))
}

fn consistency(input: &Value) -> Outcome {
    let (old, new) = (number(&input["old"]), number(&input["new"]));
    let proof = hashes(input, "proof");
    let (old_root, new_root) = (hash(&input["oldRoot"]), hash(&input["newRoot"]));
    tree::verify_consistency(old, new, &proof, &old_root, &new_root).map_err(proof_code)?;
    let Ok(made) = tree::consistency(&Grown::of(new), old, new);
    assert_eq!(made.unwrap_or_default(), proof, "the same proof is made here");
    Ok(json!({}))
}

// ------------------------------------------------------------------------------------------- notes and checkpoints

fn note(input: &Value) -> Outcome {
    let bytes = bytes(input, "bytes");
    let note = Note::parse(&bytes).map_err(|error| note_code(&error))?;
    assert_eq!(note.to_string().as_bytes(), bytes, "one form");
    added_one_by_one(&note);
    let signed: Vec<bool> = keys(&input["keys"]).iter().map(|key| note.signed_by(key)).collect();
    Ok(json!({ "text": note.text(), "lines": note.signatures().len(), "signed": signed }))
}

/// The same note comes of a text and of lines that are added, and no more of them than can be read.
fn added_one_by_one(note: &Note) {
    let lines: Vec<String> = note.signatures().iter().map(ToString::to_string).collect();
    for (line, signature) in lines.iter().zip(note.signatures()) {
        assert!(line.starts_with(&format!("\u{2014} {} ", signature.name())));
    }
    for wrong in [note.text().trim_end_matches('\n'), &format!("{}\n", note.text()), "a\tb\n"] {
        assert!(Note::new(wrong.to_owned()).is_err(), "{wrong:?}");
    }
    let Ok(mut made) = Note::new(note.text().to_owned()) else { return };
    assert_eq!(made.add_lines(&lines.concat()), Ok(true));
    assert_eq!(made, *note);
    assert_eq!(made.add_lines(&lines.concat()), Ok(false), "a line that is there is not added");
    if lines.len() == MAX_SIGNATURES {
        let another = "\u{2014} another AAAAAAA=\n";
        let mut fresh = Note::new(note.text().to_owned()).unwrap();
        let all = lines.concat() + another;
        assert_eq!(made.add_lines(another), Err(NoteError::TooManySignatures));
        assert_eq!(fresh.add_lines(&all), Err(NoteError::TooManySignatures));
    }
}

fn note_key(input: &Value) -> Outcome {
    let key = NoteKey::parse(text(input, "text")).map_err(|_| "key".to_owned())?;
    assert_eq!(key.to_string(), text(input, "text"));
    // What a key is for shows in its hash alone: the other use has another.
    let written = key.to_string();
    let blob = data_encoding::BASE64.decode(written.splitn(3, '+').nth(2).unwrap().as_bytes()).unwrap();
    let usage = if blob[0] == 1 { "note" } else { "cosignature" };
    Ok(json!({ "name": key.name(), "use": usage, "public": hex(&blob[1..]), "hash": hex(&key.hash()) }))
}

fn checkpoint(input: &Value) -> Outcome {
    let found = SignedCheckpoint::verify(&nation(input), &bytes(input, "bytes"), &keys(&input["keys"]))
        .map_err(|error| checkpoint_code(&error))?;
    let again = Checkpoint::new(&nation(input), found.size(), *found.root());
    assert!(found.note().text().starts_with(&again.text()));
    Ok(json!({ "size": found.size().to_string(), "root": hex(found.root()) }))
}

fn tile_path(input: &Value) -> Outcome {
    let path = text(input, "path");
    let tile = Tile::parse(path).ok_or("path")?;
    assert_eq!(tile.to_string(), path, "one path");
    Ok(json!({ "level": tile.level, "index": tile.index.to_string(), "width": tile.width }))
}

fn tile(input: &Value) -> Outcome {
    let count = number(&input["count"]);
    let tile = Tile::parse(text(input, "path")).unwrap();
    if !tile.exists(count) {
        return Err("missing".to_owned());
    }
    let start = tile.index * TILE_WIDTH;
    let content = match tile.level {
        Some(level) => {
            let grown = Grown::of(count);
            let subtree = |index| grown.0[&(level * TILE_HEIGHT, index)];
            tiles::hashes(&(start..start + tile.width).map(subtree).collect::<Vec<_>>())
        }
        None => {
            let entries: Vec<_> = (start..start + tile.width).map(numbered).collect();
            tiles::bundle(entries.iter().map(|entry| &entry[..]))
        }
    };
    Ok(json!({ "bytes": hex(&content) }))
}

// -------------------------------------------------------------------------------------------------------- witnesses

pub(crate) fn root_of(signed: &Signed) -> Root {
    let Statement::Root(root) = signed.peek().unwrap() else { panic!("no root") };
    root
}

fn roots(input: &Value) -> Vec<Root> {
    let all = input["roots"].as_array().unwrap().iter();
    all.map(|root| root_of(&Signed::parse(&bytes(&json!({ "root": root }), "root")).unwrap())).collect()
}

fn cosignatures(input: &Value) -> Outcome {
    let (roots, nation) = (roots(input), nation(input));
    let own = roots.iter().find(|root| root.nation == nation).unwrap();
    let log = note_keys(own, RoleName::Log);
    let mut found = SignedCheckpoint::verify(&nation, &bytes(input, "bytes"), &log)
        .map_err(|error| checkpoint_code(&error))?;
    let known: Vec<_> =
        roots.iter().map(|root| (root.nation.clone(), note_keys(root, RoleName::Witness))).collect();
    let count = |found: &SignedCheckpoint| found.witnesses(known.iter().map(|(n, keys)| (n, &keys[..])));
    let witnesses = count(&found);
    merged(&found, &log);
    // What a node drops as noise never counted, and what counts is not dropped.
    let all: Vec<NoteKey> = log.into_iter().chain(known.iter().flat_map(|(_, keys)| keys.clone())).collect();
    found.prune(&all);
    assert_eq!(count(&found), witnesses);
    assert!(found.note().signatures().len() <= all.len(), "one line of each key at most");
    Ok(json!({ "witnesses": witnesses }))
}

/// The cosignatures of the same checkpoint are taken over once, those of another never.
fn merged(found: &SignedCheckpoint, log: &[NoteKey]) {
    let mut bare = found.clone();
    bare.prune(log);
    assert_eq!(bare.note().signatures().len(), log.len(), "the log's own line and no other");
    let (before, more) = (bare.clone(), found.note().signatures().len() > bare.note().signatures().len());
    assert_eq!(bare.merge(found), Ok(more));
    assert_eq!(bare.note().signatures().len(), found.note().signatures().len());
    assert_eq!(bare.merge(found), Ok(false));
    let key = registry::key::SecretKey::from_seed(&[6; 32]);
    let other = SignedCheckpoint::sign(found.nation(), found.size() + 1, *found.root(), &key).unwrap();
    let mut bare = before.clone();
    assert_eq!((bare.merge(&other), &bare), (Ok(false), &before));
}

fn witness_request(input: &Value) -> Outcome {
    let body = bytes(input, "bytes");
    let read = AddCheckpoint::parse(&body).map_err(|refusal| refusal_code(&refusal))?;
    assert_eq!(read.to_body().as_bytes(), body, "one form");
    let nation = read.nation().map_err(|refusal| refusal_code(&refusal))?;
    let proof: Vec<_> = read.proof.iter().map(|hash| hex(hash)).collect();
    Ok(json!({ "old": read.old_size.to_string(), "proof": proof, "nation": nation }))
}

fn witness(input: &Value) -> Outcome {
    let before = input["before"]
        .as_object()
        .map(|before| Cosigned { size: number(&before["size"]), root: hash(&before["root"]) });
    let request = AddCheckpoint::parse(&bytes(input, "bytes")).unwrap();
    let cosigned = decide(&request, &nation(input), &keys(&input["keys"]), before)
        .map_err(|refusal| refusal_code(&refusal))?;
    Ok(json!({ "size": cosigned.size().to_string(), "root": hex(cosigned.root()) }))
}

// ------------------------------------------------------------------------------------------------ proofs, evidence

fn log_proof(input: &Value) -> Outcome {
    let code = |error: LogProofError| match error {
        LogProofError::Malformed(_) => "proof".to_owned(),
        LogProofError::Checkpoint(error) => checkpoint_code(&error),
        LogProofError::Proof(error) => proof_code(error),
    };
    let bytes = bytes(input, "bytes");
    let statement: Digest = text(input, "statement").parse().unwrap();
    let witnesses: BTreeMap<Nation, Vec<NoteKey>> = input["witnesses"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(nation, list)| (Nation::new(nation).unwrap(), keys(list)))
        .collect();
    let proof = LogProof::parse(&bytes).map_err(code)?;
    assert_eq!(proof.to_text(), bytes, "one form");
    let known = witnesses.iter().map(|(nation, keys)| (nation, &keys[..]));
    let logged = proof.verify(&statement, &nation(input), &keys(&input["keys"]), known).map_err(code)?;
    let (index, size) = (logged.index.to_string(), logged.size.to_string());
    Ok(json!({ "index": index, "size": size, "witnesses": logged.witnesses, "witnessed": logged.witnessed }))
}

pub(crate) fn evidence_code(error: EvidenceError) -> String {
    match error {
        EvidenceError::Malformed(_) => "evidence".to_owned(),
        EvidenceError::Checkpoint(error) => checkpoint_code(&error),
        EvidenceError::Proof(error) => proof_code(error),
        EvidenceError::Consistent => "consistent".to_owned(),
    }
}

fn fork_evidence(input: &Value) -> Outcome {
    let evidence = Evidence::parse(&bytes(input, "bytes")).map_err(evidence_code)?;
    assert_eq!(Evidence::parse(&evidence.to_json()).unwrap(), evidence);
    let fork = evidence.verify(&keys(&input["keys"])).map_err(evidence_code)?;
    // What was believed can be made here from the two checkpoints, and is believed again.
    let known = keys(&input["keys"]);
    let read = |note: &str| SignedCheckpoint::verify(&evidence.nation, note.as_bytes(), &known).unwrap();
    let (smaller, larger) = (read(&evidence.smaller), read(&evidence.larger));
    let decode = |text: &String| data_encoding::BASE64.decode(text.as_bytes()).unwrap().try_into().unwrap();
    let made = match &evidence.prefix {
        None => Evidence::of_equal(&smaller, &larger),
        Some(prefix) => {
            let proof: Vec<Hash> = evidence.proof.iter().map(decode).collect();
            Evidence::of_prefix(&smaller, &larger, &decode(prefix), &proof)
        }
    };
    assert_eq!(made, evidence);
    assert_ne!(fork.one, fork.other);
    Ok(
        json!({ "nation": fork.nation, "size": fork.size.to_string(), "one": hex(&fork.one), "other": hex(&fork.other) }),
    )
}
