//! What the targets about logs do with their input. The keys are those of the vectors of document 08, so that what is in
//! the corpus is believed, and whatever a fuzzer makes of it must not be.

use registry::log::checkpoint::{Checkpoint, SignedCheckpoint, nation_of, origin};
use registry::log::evidence::Evidence;
use registry::log::note::{MAX_SIGNATURES, Note, NoteKey};
use registry::log::proof::LogProof;
use registry::log::tiles::{TILE_WIDTH, Tile};
use registry::log::tree::MAX_PROOF;
use registry::log::witness::{AddCheckpoint, Cosigned, decide};
use registry::{Digest, Nation};

/// The log key of alba.
const LOG: &str = "steelyard/alba+9543cb25+AYqHX/8es4RRV3rNWv7kBUVlaN18ieCQhjoFV7x69J8X";
/// The witness key of borea.
const WITNESS: &str = "steelyard/borea/witness+195781f1+BPpINBR/bmkMNpPv9hM2BGQDzYrioU8xs8QHNYVpI5Vl";

fn alba() -> Nation {
    Nation::new("alba").unwrap()
}

fn keys() -> Vec<NoteKey> {
    vec![NoteKey::parse(LOG).unwrap()]
}

pub fn log_note(data: &[u8]) {
    if let Ok(note) = Note::parse(data) {
        assert_eq!(Note::parse(note.to_string().as_bytes()).as_ref(), Ok(&note), "a note has one form");
        assert_eq!(note.to_string().as_bytes(), data);
        assert!(note.text().ends_with('\n') && (1..=MAX_SIGNATURES).contains(&note.signatures().len()));
        let mut again = note.clone();
        let lines: String = note.signatures().iter().map(ToString::to_string).collect();
        assert_eq!(again.add_lines(&lines), Ok(false), "a line that is there is not added");
        let witness = NoteKey::parse(WITNESS).unwrap();
        assert!(!note.signed_by(&witness) && note.cosigned_by(&keys()[0]).is_none());
        let _ = (note.signed_by(&keys()[0]), note.cosigned_by(&witness));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = NoteKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
}

pub fn log_checkpoint(data: &[u8]) {
    if let Ok(signed) = SignedCheckpoint::verify(&alba(), data, &keys()) {
        assert!(signed.note().signed_by(&keys()[0]));
        assert_eq!(signed.note().text().split('\n').next(), Some(origin(&alba()).as_str()));
        let mut pruned = signed.clone();
        pruned.prune(&keys());
        assert_eq!(pruned.note().signatures().len(), 1);
        assert_eq!((pruned.size(), pruned.root()), (signed.size(), signed.root()));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = Checkpoint::parse(text) {
        assert_eq!(Checkpoint::parse(&read.text()), Ok(read.clone()));
        assert!(read.size <= i64::MAX as u64 && text.starts_with(&read.text()));
        assert!(nation_of(&read.origin).is_none_or(|nation| origin(&nation) == read.origin));
    }
}

pub fn log_tile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(tile) = Tile::parse(text) else { return };
    assert_eq!(tile.to_string(), text, "a tile has one path");
    assert!((1..=TILE_WIDTH).contains(&tile.width) && tile.index < 1 << 55);
    assert!(!tile.exists(0));
}

pub fn log_witness(data: &[u8]) {
    let Ok(request) = AddCheckpoint::parse(data) else { return };
    assert_eq!(AddCheckpoint::parse(request.to_body().as_bytes()).as_ref(), Ok(&request));
    assert_eq!(request.to_body().as_bytes(), data, "a request has one form");
    assert!(request.proof.len() < MAX_PROOF);
    for before in [None, Some(Cosigned { size: request.old_size, root: [0; 32] })] {
        let before_size = before.map_or(0, |before| before.size);
        match decide(&request, &alba(), &keys(), before) {
            Ok(checkpoint) => {
                assert!(before_size == request.old_size && request.old_size <= checkpoint.size());
            }
            Err(refusal) => assert!([400, 403, 404, 409, 422].contains(&refusal.status())),
        }
    }
}

pub fn log_proof(data: &[u8]) {
    let Ok(proof) = LogProof::parse(data) else { return };
    assert_eq!(proof.to_text(), data, "a proof has one form");
    assert!(proof.path.len() <= MAX_PROOF);
    let witnesses = vec![NoteKey::parse(WITNESS).unwrap()];
    let borea = Nation::new("borea").unwrap();
    let statement = Digest::of(b"nothing that was ever signed");
    assert!(proof.verify(&statement, &alba(), &keys(), [(&borea, witnesses.as_slice())]).is_err());
}

pub fn log_evidence(data: &[u8]) {
    let Ok(evidence) = Evidence::parse(data) else { return };
    let again = Evidence::parse(&evidence.to_json()).expect("what was read can be written and read again");
    assert_eq!(again, evidence);
    assert!(evidence.verify(&[]).is_err(), "a key is needed to convict");
    if let Ok(fork) = evidence.verify(&keys()) {
        assert_eq!(fork.nation, alba());
        assert_ne!(fork.one, fork.other);
    }
}
