//! The logs' formats against other implementations, on random inputs of fixed seeds: `ct-merkle` for the tree and its
//! proofs, `signed_note` for notes, `tlog_tiles` for checkpoints, tiles and proofs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use registry::Nation;
use registry::key::SecretKey;
use registry::log::checkpoint::{Checkpoint, SignedCheckpoint};
use registry::log::evidence::{Evidence, MAX_EVIDENCE};
use registry::log::note::{KeyUse, MAX_NOTE, Note, NoteKey};
use registry::log::proof::{LogProof, MAX_PROOF_FILE};
use registry::log::tiles::Tile;
use registry::log::tree::{
    self, Hash, MAX_PROOF, ProofError, Subtrees, completed, consistency, empty_root, inclusion, leaf_hash,
    verify_consistency, verify_inclusion,
};
use sha2::Sha256;
use signed_note::{StandardVerifier, VerifierList};

/// Random numbers that are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

#[derive(Default)]
struct Memory {
    hashes: HashMap<(u8, u64), Hash>,
    size: u64,
}

impl Subtrees for Memory {
    type Error = String;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, String> {
        self.hashes.get(&(level, index)).copied().ok_or_else(|| format!("no hash {level}/{index}"))
    }
}

impl Memory {
    fn push(&mut self, entry: &[u8]) {
        let hashes = completed(self, self.size, leaf_hash(entry)).unwrap();
        for (level, hash) in (0u8..).zip(hashes) {
            self.hashes.insert((level, self.size >> level), hash);
        }
        self.size += 1;
    }
}

fn flat(proof: &[Hash]) -> Vec<u8> {
    proof.concat()
}

#[test]
fn roots_and_proofs_are_those_of_ct_merkle() {
    let mut random = Random(1);
    let mut ours = Memory::default();
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut roots = vec![theirs.root()];
    for _ in 0..130 {
        let len = random.below(40);
        let entry = random.bytes(len);
        ours.push(&entry);
        theirs.push(entry);
        roots.push(theirs.root());
    }
    assert_eq!(tree::root(&ours, 0).unwrap(), empty_root());
    for size in 0..=ours.size {
        let root = tree::root(&ours, size).unwrap();
        assert_eq!(root[..], roots[size as usize].as_bytes()[..], "root of {size}");
        for index in 0..size {
            let proof = inclusion(&ours, index, size).unwrap().unwrap();
            let leaf = leaf_hash(&theirs.items()[index as usize]);
            verify_inclusion(&leaf, index, size, &proof, &root).unwrap();
            // Theirs believes ours.
            InclusionProof::<Sha256>::from_bytes(flat(&proof));
            roots[size as usize]
                .verify_inclusion(
                    &theirs.items()[index as usize],
                    index,
                    &InclusionProof::from_bytes(flat(&proof)),
                )
                .unwrap();
        }
        assert_eq!(inclusion(&ours, size, size).unwrap(), None);
        for old in 1..=size {
            let proof = consistency(&ours, old, size).unwrap().unwrap();
            let old_root = tree::root(&ours, old).unwrap();
            verify_consistency(old, size, &proof, &old_root, &root).unwrap();
            let their_proof = ConsistencyProof::<Sha256>::try_from_bytes(flat(&proof)).unwrap();
            roots[size as usize].verify_consistency(&roots[old as usize], &their_proof).unwrap();
        }
        assert_eq!(consistency(&ours, 0, size).unwrap(), None);
        assert_eq!(consistency(&ours, size + 1, size).unwrap(), None);
    }
    // Ours believes theirs, at the full size.
    let size = ours.size;
    let root = tree::root(&ours, size).unwrap();
    for index in 0..size {
        let proof = theirs.prove_inclusion(index as usize);
        let hashes: Vec<Hash> = proof.as_bytes().chunks(32).map(|hash| hash.try_into().unwrap()).collect();
        verify_inclusion(&leaf_hash(&theirs.items()[index as usize]), index, size, &hashes, &root).unwrap();
        let old = index + 1;
        let proof = theirs.prove_consistency((size - old) as usize);
        let hashes: Vec<Hash> = proof.as_bytes().chunks(32).map(|hash| hash.try_into().unwrap()).collect();
        verify_consistency(old, size, &hashes, &tree::root(&ours, old).unwrap(), &root).unwrap();
    }
}

#[test]
fn every_change_to_a_proof_is_noticed() {
    let mut random = Random(2);
    let mut tree = Memory::default();
    let entries: Vec<Vec<u8>> = (0..70).map(|_| random.bytes(33)).collect();
    entries.iter().for_each(|entry| tree.push(entry));
    for size in 1..=tree.size {
        let root = tree::root(&tree, size).unwrap();
        for index in 0..size {
            let leaf = leaf_hash(&entries[index as usize]);
            let proof = inclusion(&tree, index, size).unwrap().unwrap();
            let refused = |leaf: &Hash, index, size, proof: &[Hash], root: &Hash| {
                verify_inclusion(leaf, index, size, proof, root).expect_err("a false proof was believed")
            };
            let mut long = proof.clone();
            long.push(leaf);
            assert_eq!(refused(&leaf, index, size, &long, &root), ProofError::Length { found: long.len() });
            if let Some((_, short)) = proof.split_last() {
                assert_eq!(
                    refused(&leaf, index, size, short, &root),
                    ProofError::Length { found: short.len() }
                );
                let mut other = proof.clone();
                other[random.below(proof.len() as u64) as usize][random.below(32) as usize] ^= 1;
                assert_eq!(refused(&leaf, index, size, &other, &root), ProofError::Root);
            }
            refused(&leaf, (index + 1) % size.max(2), size, &proof, &root);
            assert_eq!(refused(&leaf, size, size, &proof, &root), ProofError::Outside { index: size, size });
            assert_eq!(refused(&[7; 32], index, size, &proof, &root), ProofError::Root);
        }
        for old in 1..size {
            let old_root = tree::root(&tree, old).unwrap();
            let proof = consistency(&tree, old, size).unwrap().unwrap();
            let refused = |old, size, proof: &[Hash], old_root: &Hash, root: &Hash| {
                verify_consistency(old, size, proof, old_root, root).expect_err("a false proof was believed")
            };
            let mut long = proof.clone();
            long.push(root);
            assert_eq!(refused(old, size, &long, &old_root, &root), ProofError::Length { found: long.len() });
            let short = &proof[..proof.len() - 1];
            refused(old, size, short, &old_root, &root);
            let mut other = proof.clone();
            other[random.below(proof.len() as u64) as usize][random.below(32) as usize] ^= 1;
            assert_eq!(refused(old, size, &other, &old_root, &root), ProofError::Root);
            assert_eq!(refused(old, size, &proof, &[7; 32], &root), ProofError::Root);
            assert_eq!(refused(old, size, &proof, &old_root, &[7; 32]), ProofError::Root);
            assert_eq!(
                refused(size, old, &proof, &root, &old_root),
                ProofError::Backwards { old: size, new: old }
            );
        }
        assert_eq!(verify_consistency(size, size, &[], &root, &root), Ok(()));
        assert_eq!(verify_consistency(size, size, &[], &[7; 32], &root), Err(ProofError::Root));
        assert_eq!(
            verify_consistency(size, size, &[root], &root, &root),
            Err(ProofError::Length { found: 1 })
        );
        assert_eq!(verify_consistency(0, size, &[], &empty_root(), &root), Ok(()));
        assert_eq!(verify_consistency(0, size, &[], &root, &root), Err(ProofError::Root));
        assert_eq!(
            verify_consistency(0, size, &[root], &empty_root(), &root),
            Err(ProofError::Length { found: 1 })
        );
    }
}

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

fn key(random: &mut Random) -> SecretKey {
    SecretKey::from_seed(&random.bytes(32).try_into().unwrap())
}

#[test]
fn notes_are_those_of_signed_note() {
    let mut random = Random(3);
    for round in 0..50 {
        let secret = key(&mut random);
        let name = format!("steelyard/nation-{round}");
        let ours = NoteKey::new(&name, KeyUse::Note, secret.public()).unwrap();
        assert_eq!(NoteKey::parse(&ours.to_string()).unwrap(), ours);
        let theirs = StandardVerifier::new(&ours.to_string()).unwrap();
        let text = format!("{name}\n{}\nsome line\n", random.next());
        let mut note = Note::new(text.clone()).unwrap();
        note.sign(&name, &secret).unwrap();
        let written = note.to_string();
        let read = signed_note::Note::from_bytes(written.as_bytes()).unwrap();
        assert_eq!(read.text(), text.as_bytes());
        let (verified, unverified) = read.verify(&VerifierList::new(vec![Box::new(theirs.clone())])).unwrap();
        assert_eq!((verified.len(), unverified.len()), (1, 0));
        // What they write, we read.
        let again = Note::parse(&read.to_bytes()).unwrap();
        assert_eq!(again, note);
        assert!(again.signed_by(&ours));
        // A changed text is believed by neither.
        let changed = written.replace("some line", "some lime");
        assert!(!Note::parse(changed.as_bytes()).unwrap().signed_by(&ours));
        let read = signed_note::Note::from_bytes(changed.as_bytes()).unwrap();
        assert!(read.verify(&VerifierList::new(vec![Box::new(theirs)])).is_err());
    }
}

#[test]
fn checkpoints_are_those_of_tlog_tiles() {
    let mut random = Random(4);
    for _ in 0..200 {
        let root: Hash = random.bytes(32).try_into().unwrap();
        let shift = random.below(62) + 1;
        let ours = Checkpoint::new(&nation("alba"), (random.next() >> shift) | 1, root);
        let theirs = tlog_tiles::Checkpoint::from_bytes(ours.text().as_bytes()).unwrap();
        assert_eq!((theirs.origin(), theirs.size()), (ours.origin.as_str(), ours.size));
        assert_eq!(theirs.hash().0, root);
        assert_eq!(theirs.to_bytes(), ours.text().as_bytes());
        assert_eq!(Checkpoint::parse(&ours.text()).unwrap(), ours);
        // Damaged texts are refused by both, or mean the same to both.
        let mut bytes = ours.text().into_bytes();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = b' ' + (random.below(95) as u8);
        let text = String::from_utf8(bytes).unwrap();
        if let Ok(read) = Checkpoint::parse(&text) {
            let theirs = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).unwrap();
            assert_eq!((theirs.size(), theirs.hash().0), (read.size, read.root), "{text}");
        }
    }
}

#[test]
fn tile_paths_are_those_of_tlog_tiles() {
    // Theirs name the tile's height too.
    let with_height = |path: &str| path.replacen("tile/", "tile/8/", 1).replace("/entries/", "/data/");
    let mut random = Random(5);
    for _ in 0..2000 {
        let shift = random.below(55) + 9;
        let width = random.below(256) + 1;
        let level = (random.below(3) > 0).then(|| random.below(7) as u8);
        let ours = Tile { level, index: random.next() >> shift, width };
        let path = ours.to_string();
        assert_eq!(Tile::parse(&path), Some(ours), "{path}");
        let theirs = tlog_tiles::Tile::from_path(&with_height(&path)).unwrap();
        assert_eq!(theirs.level_index(), ours.index, "{path}");
        assert_eq!(u64::from(theirs.width()), ours.width, "{path}");
        assert_eq!(theirs.is_data(), level.is_none());
        assert_eq!(theirs.path(), with_height(&path));
        // A damaged path is refused by both, or names the same tile for both.
        let mut bytes = path.into_bytes();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = *b"0123456789x/.p".get(random.below(14) as usize).unwrap();
        let damaged = String::from_utf8(bytes).unwrap();
        match (Tile::parse(&damaged), tlog_tiles::Tile::from_path(&with_height(&damaged))) {
            (Some(ours), Ok(theirs)) => {
                assert_eq!((theirs.level_index(), u64::from(theirs.width())), (ours.index, ours.width));
            }
            (Some(ours), Err(error)) => panic!("{damaged}: {ours:?}, but {error:?}"),
            (None, _) => {}
        }
    }
}

#[test]
fn proofs_are_those_of_tlog_tiles() {
    struct Theirs(Vec<tlog_tiles::Hash>);
    impl tlog_tiles::HashReader for Theirs {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
        }
    }
    let mut random = Random(6);
    let mut ours = Memory::default();
    let mut theirs = Theirs(Vec::new());
    for index in 0..300u64 {
        let entry = random.bytes(33);
        ours.push(&entry);
        let added = tlog_tiles::stored_hashes(index, &entry, &theirs).unwrap();
        theirs.0.extend(added);
        let size = index + 1;
        let root = tree::root(&ours, size).unwrap();
        assert_eq!(tlog_tiles::tree_hash(size, &theirs).unwrap().0, root);
        let at = random.below(size);
        let proof = tlog_tiles::prove_record(size, at, &theirs).unwrap();
        let mine = inclusion(&ours, at, size).unwrap().unwrap();
        assert_eq!(proof.iter().map(|hash| hash.0).collect::<Vec<_>>(), mine);
        let old = random.below(size) + 1;
        let proof = tlog_tiles::prove_tree(size, old, &theirs).unwrap();
        let hashes: Vec<Hash> = proof.iter().map(|hash| hash.0).collect();
        assert_eq!(hashes, consistency(&ours, old, size).unwrap().unwrap(), "{old} to {size}");
    }
}

#[test]
fn a_cosignature_counts_for_its_nation_alone() {
    let mut random = Random(7);
    let (log, borea, cora) = (key(&mut random), key(&mut random), key(&mut random));
    let alba = nation("alba");
    let mut checkpoint = SignedCheckpoint::sign(&alba, 3, [9; 32], &log).unwrap();
    let now = registry::Timestamp::from_unix(1_795_000_000);
    for (name, key) in [
        ("steelyard/borea/witness", &borea),
        ("steelyard/cora/witness", &cora),
        ("steelyard/alba/witness", &log),
    ] {
        let line = checkpoint.note().cosign(name, key, now).unwrap();
        assert!(checkpoint.add_lines(&line.to_string()).unwrap());
        assert!(!checkpoint.add_lines(&line.to_string()).unwrap());
    }
    let witness = |name: &str, key: &SecretKey| {
        vec![NoteKey::new(&format!("steelyard/{name}/witness"), KeyUse::Cosignature, key.public()).unwrap()]
    };
    let all = [
        (alba.clone(), witness("alba", &log)),
        (nation("borea"), witness("borea", &borea)),
        // Under another's name nothing counts.
        (nation("cora"), witness("borea", &borea)),
        (nation("dora"), witness("dora", &cora)),
    ];
    let found = checkpoint.witnesses(all.iter().map(|(nation, keys)| (nation, keys.as_slice())));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(nation("borea"), now)]);
    // Noise is dropped, what counts stays.
    let keys: Vec<NoteKey> =
        [witness("borea", &borea), vec![NoteKey::new("steelyard/alba", KeyUse::Note, log.public()).unwrap()]]
            .concat();
    checkpoint.prune(&keys);
    assert_eq!(checkpoint.note().signatures().len(), 2);
    assert!(SignedCheckpoint::verify(&alba, checkpoint.note().to_string().as_bytes(), &keys).is_ok());
}

#[test]
fn what_is_as_long_as_the_limit_is_read_and_what_is_longer_is_not() {
    // A proof's note is read by whoever believes it, so any text fills it.
    let head = "c2sp.org/tlog-proof@v1\nindex 7\n\n";
    let proof = |len: usize| format!("{head}{}", "n".repeat(len - head.len())).into_bytes();
    assert_eq!(LogProof::parse(&proof(MAX_PROOF_FILE)).unwrap().index, 7);
    assert!(LogProof::parse(&proof(MAX_PROOF_FILE + 1)).is_err());

    let secret = key(&mut Random(8));
    let [one, other] =
        [[1; 32], [2; 32]].map(|root| SignedCheckpoint::sign(&nation("alba"), 3, root, &secret));
    let evidence = Evidence::of_equal(&one.unwrap(), &other.unwrap());
    let json = String::from_utf8(evidence.to_json()).unwrap();
    let padded = |len: usize| format!("{json}{}", " ".repeat(len - json.len())).into_bytes();
    assert_eq!(Evidence::parse(&padded(MAX_EVIDENCE)).unwrap(), evidence);
    assert!(Evidence::parse(&padded(MAX_EVIDENCE + 1)).is_err());
    let with_hashes = |count: usize| {
        let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
        value["proof"] = vec![data_encoding::BASE64.encode(&[3; 32]); count].into();
        Evidence::parse(value.to_string().as_bytes())
    };
    assert!(with_hashes(MAX_PROOF).is_ok());
    assert!(with_hashes(MAX_PROOF + 1).is_err());

    let text = |len: usize| format!("{}\n", "t".repeat(len - 1));
    let line = "\n\u{2014} a AAAAAAA=\n";
    let note = |len: usize| format!("{}{line}", text(len - line.len()));
    assert_eq!(Note::parse(note(MAX_NOTE).as_bytes()).unwrap().to_string().len(), MAX_NOTE);
    assert!(Note::parse(note(MAX_NOTE + 1).as_bytes()).is_err());
}
