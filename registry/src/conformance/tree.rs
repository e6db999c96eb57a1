//! Document 08: the tree of a log, its proofs and its tiles.

use std::collections::HashMap;

use crate::log::tiles::{self, TILE_HEIGHT, TILE_WIDTH, Tile};
use crate::log::tree::{self, Hash, ProofError, Subtrees};
use crate::log::{ENTRY, entry, statement_of};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, bytes_of, items, number, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[
    ("log-entry", log_entry),
    ("log-root", log_root),
    ("log-inclusion", inclusion),
    ("log-consistency", consistency),
    ("tile-path", tile_path),
    ("tile", tile),
];

/// Most entries of a log that a vector gives by its count: eight times the longest of ours. Every proof in it is made.
const MAX_ENTRIES: u64 = 4_096;

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub(super) fn hash(value: &Value) -> Result<Hash, String> {
    let bytes = bytes_of(value).map_err(broken)?;
    bytes.try_into().map_err(|_| broken(format!("no hash: {value}")))
}

pub(super) fn code(error: ProofError) -> String {
    match error {
        ProofError::Outside { .. } => "outside",
        ProofError::Backwards { .. } => "backwards",
        ProofError::Length { .. } => "length",
        ProofError::Root => "root",
    }
    .to_owned()
}

/// A tree in memory that is built as a log grows.
#[derive(Default)]
struct Grown(HashMap<(u8, u64), Hash>);

impl Subtrees for Grown {
    type Error = String;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, String> {
        let found = self.0.get(&(level, index)).copied();
        found.ok_or_else(|| format!("subtree {index} of level {level} was asked for and is not there"))
    }
}

impl Grown {
    /// A log of this many entries, which say their number.
    fn of(count: u64) -> Result<Self, String> {
        if count > MAX_ENTRIES {
            return Err(broken(format!("{count} entries are more than {MAX_ENTRIES}")));
        }
        let mut grown = Self::default();
        for at in 0..count {
            let completed = tree::completed(&grown, at, tree::leaf_hash(&numbered(at)))?;
            for (level, hash) in (0u8..).zip(completed) {
                grown.0.insert((level, at >> level), hash);
            }
        }
        Ok(grown)
    }
}

fn numbered(at: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[0] = 1;
    entry[1..9].copy_from_slice(&at.to_be_bytes());
    entry
}

fn log_entry(input: &Value) -> Outcome {
    let found: [u8; ENTRY] = bytes(input, "entry")?.try_into().map_err(|_| "entry".to_owned())?;
    let statement = statement_of(&found).ok_or("entry")?;
    same(entry(&statement), found)?;
    Ok(json!({ "statement": statement.to_string() }))
}

fn log_root(input: &Value) -> Outcome {
    let count = number(&input["count"])?;
    let grown = Grown::of(count)?;
    let root = tree::root(&grown, count)?;
    // Whatever is proved here must hold here.
    for index in 0..count {
        let path = tree::inclusion(&grown, index, count)?.ok_or("no proof is made")?;
        let leaf = tree::leaf_hash(&numbered(index));
        same(tree::verify_inclusion(&leaf, index, count, &path, &root), Ok(()))?;
    }
    for old in 1..=count {
        let path = tree::consistency(&grown, old, count)?.ok_or("no proof is made")?;
        let before = tree::root(&grown, old)?;
        same(tree::verify_consistency(old, count, &path, &before, &root), Ok(()))?;
    }
    Ok(json!({ "root": hex(&root) }))
}

fn inclusion(input: &Value) -> Outcome {
    let (index, size) = (number(&input["index"])?, number(&input["size"])?);
    let leaf = tree::leaf_hash(&bytes(input, "entry")?);
    let proof = items(input, "proof")?.iter().map(hash).collect::<Result<Vec<_>, _>>()?;
    tree::verify_inclusion(&leaf, index, size, &proof, &hash(&input["rootHash"])?).map_err(code)?;
    // The same proof is made here.
    same(tree::inclusion(&Grown::of(size)?, index, size)?, Some(proof))?;
    Ok(json!({}))
}

fn consistency(input: &Value) -> Outcome {
    let (old, new) = (number(&input["old"])?, number(&input["new"])?);
    let proof = items(input, "proof")?.iter().map(hash).collect::<Result<Vec<_>, _>>()?;
    let (old_root, new_root) = (hash(&input["oldRoot"])?, hash(&input["newRoot"])?);
    tree::verify_consistency(old, new, &proof, &old_root, &new_root).map_err(code)?;
    same(tree::consistency(&Grown::of(new)?, old, new)?.unwrap_or_default(), proof)?;
    Ok(json!({}))
}

fn tile_path(input: &Value) -> Outcome {
    let path = text(input, "path")?;
    let tile = Tile::parse(path).ok_or("path")?;
    same(tile.to_string().as_str(), path)?;
    Ok(json!({ "level": tile.level, "index": tile.index.to_string(), "width": tile.width }))
}

fn tile(input: &Value) -> Outcome {
    let count = number(&input["count"])?;
    let tile = Tile::parse(text(input, "path")?).ok_or_else(|| broken("no tile's path"))?;
    if !tile.exists(count) {
        return Err("missing".to_owned());
    }
    let grown = Grown::of(count)?;
    let start = tile.index * TILE_WIDTH;
    let content = match tile.level {
        Some(level) => {
            let subtrees = start..start + tile.width;
            let hashes = subtrees.map(|index| grown.subtree(level * TILE_HEIGHT, index));
            tiles::hashes(&hashes.collect::<Result<Vec<_>, _>>()?)
        }
        None => {
            let entries: Vec<_> = (start..start + tile.width).map(numbered).collect();
            tiles::bundle(entries.iter().map(|entry| &entry[..]))
        }
    };
    Ok(json!({ "bytes": hex(&content) }))
}
