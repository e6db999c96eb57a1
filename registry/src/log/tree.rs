//! The Merkle tree of RFC 6962 with SHA-256: roots of any earlier size, inclusion and consistency proofs, and their
//! verification (RFC 9162, 2.1.3 and 2.1.4).
//!
//! Only hashes of whole subtrees are kept: that of level L and number N covers the leaves N·2^L up to (N+1)·2^L. All else
//! is made of at most two of them for each level.

use sha2::{Digest as _, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Most hashes of a proof: a tree of 2^63 leaves has paths of 63, and a consistency proof one more.
pub const MAX_PROOF: usize = 64;

/// Why a proof does not prove what is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf lies outside the tree.
    #[error("entry {index} is not in a tree of {size} entries")]
    Outside {
        /// The leaf's number.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The later tree is smaller.
    #[error("a tree of {new} entries can't continue one of {old}")]
    Backwards {
        /// Entries of the earlier tree.
        old: u64,
        /// Entries of the later tree.
        new: u64,
    },
    /// Too few or too many hashes.
    #[error("the proof has {found} hashes, another number than its path")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root hash: what it claims is not in the log as it was signed")]
    Root,
}

/// The hash of an entry: SHA-256 of a zero byte and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// The hash of two subtrees: SHA-256 of a one byte and both hashes.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without entries: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where the hashes of whole subtrees are kept.
pub trait Subtrees {
    /// What can go wrong when one is read.
    type Error;
    /// The hash of the subtree of this level and number, which is whole.
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The hash over the leaves `start` up to `end`, where `start` is a multiple of a power of two of at least their number.
fn range<S: Subtrees>(tree: &S, start: u64, end: u64) -> Result<Hash, S::Error> {
    let n = end - start;
    if n.is_power_of_two() {
        let level = n.trailing_zeros() as u8;
        return tree.subtree(level, start >> level);
    }
    let middle = start + split(n);
    Ok(node_hash(&range(tree, start, middle)?, &range(tree, middle, end)?))
}

/// The root of the first `size` entries.
pub fn root<S: Subtrees>(tree: &S, size: u64) -> Result<Hash, S::Error> {
    if size == 0 { Ok(empty_root()) } else { range(tree, 0, size) }
}

/// The proof that entry `index` is among the first `size`; nothing when it isn't.
pub fn inclusion<S: Subtrees>(tree: &S, index: u64, size: u64) -> Result<Option<Vec<Hash>>, S::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// The proof that the first `new` entries continue the first `old`; nothing when `old` is 0 or larger than `new`, of
/// which there is no proof. Equal sizes have an empty one.
pub fn consistency<S: Subtrees>(tree: &S, old: u64, new: u64) -> Result<Option<Vec<Hash>>, S::Error> {
    if old == 0 || old > new {
        return Ok(None);
    }
    let (mut start, mut end) = (0, new);
    let mut path = Vec::new();
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(range(tree, middle, end)?);
            end = middle;
        } else {
            path.push(range(tree, start, middle)?);
            start = middle;
        }
    }
    // The subtree that ends where the old tree ends; the old root itself is known to whoever asks.
    if start > 0 {
        path.push(range(tree, start, end)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Checks that an entry with this leaf hash has number `index` in the tree of `size` entries with this root.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Outside { index, size });
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length { found: proof.len() });
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length { found: proof.len() });
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `new` entries with root `new_root` begins with the tree of `old` entries with `old_root`.
/// Everything continues the empty tree, without a proof.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    let length = ProofError::Length { found: proof.len() };
    if old > new {
        return Err(ProofError::Backwards { old, new });
    }
    if old == 0 || old == new {
        if !proof.is_empty() {
            return Err(length);
        }
        let same = if old == 0 { *old_root == empty_root() } else { old_root == new_root };
        return if same { Ok(()) } else { Err(ProofError::Root) };
    }
    let mut hashes = proof.iter();
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // An old tree that is one whole subtree is its own first hash, and the proof leaves it out.
    let first = if old.is_power_of_two() { *old_root } else { *hashes.next().ok_or(length)? };
    let (mut left, mut right) = (first, first);
    for sibling in hashes {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            left = node_hash(sibling, &left);
            right = node_hash(sibling, &right);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            right = node_hash(&right, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    if left == *old_root && right == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// The hashes of subtrees that become whole when entry `index` is added: levels 0 upwards, the leaf's own first.
pub fn completed<S: Subtrees>(tree: &S, index: u64, leaf: Hash) -> Result<Vec<Hash>, S::Error> {
    let mut hashes = vec![leaf];
    let (mut hash, mut at) = (leaf, index);
    let mut level = 0;
    while at & 1 == 1 {
        hash = node_hash(&tree.subtree(level, at - 1)?, &hash);
        hashes.push(hash);
        at >>= 1;
        level += 1;
    }
    Ok(hashes)
}
