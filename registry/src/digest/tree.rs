//! The BLAKE3 hash of a blob whose bytes come in any order.
//!
//! BLAKE3 is a binary tree over leaves of 1 KiB (section 2.1 of its paper). Every full subtree that is aligned to its own length
//! is a node of the whole tree, wherever the rest is. So bytes are hashed when they come, while they are in the processor's
//! cache, and neighbours are merged; in the end only the root is computed. What was not seen so is read once more.
//!
//! This is the one user of `blake3::hazmat` here: chaining values never leave this module.

use std::collections::BTreeMap;
use std::ops::Range;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::Digest;

/// Bytes of a leaf.
const LEAF: u64 = 1024;
/// Smallest subtree that is hashed apart, but for the blob's last: wide enough for the widest SIMD, which takes 16 leaves.
pub const GROUP: u64 = 16 * LEAF;
/// Most subtrees kept, about 10 MiB: what comes in order merges at once, and even a blob of which every other chunk is here has
/// few. Beyond that nothing is remembered, and more is read at the end.
const MAX_NODES: usize = 1 << 17;

/// A subtree that was hashed.
#[derive(Debug, Clone, Copy)]
pub struct Subtree {
    /// Its first leaf.
    first: u64,
    /// It has 2^level leaves, or as many as are left of the blob.
    level: u32,
    value: ChainingValue,
}

/// The subtrees of one blob that are known.
#[derive(Debug)]
pub struct Subtrees {
    size: u64,
    /// By first leaf. No two overlap.
    nodes: BTreeMap<u64, (u32, ChainingValue)>,
}

impl Subtrees {
    /// Of a blob of `size` bytes, of which nothing is known.
    pub fn new(size: u64) -> Self {
        Self { size, nodes: BTreeMap::new() }
    }

    fn leaves(&self) -> u64 {
        leaves(self.size)
    }

    /// Takes subtrees of this blob in, in any order, and merges what can be merged; as long as there is room for more.
    pub fn add(&mut self, subtrees: impl IntoIterator<Item = Subtree>) {
        for subtree in subtrees {
            if self.nodes.len() < MAX_NODES {
                self.insert(subtree);
            }
        }
    }

    /// Takes in the subtrees of what [`Self::missing`] named. They follow what is known from the front, so they merge.
    pub fn fill(&mut self, subtrees: impl IntoIterator<Item = Subtree>) {
        subtrees.into_iter().for_each(|subtree| self.insert(subtree));
    }

    /// Whether a known subtree holds this leaf.
    fn covers(&self, leaf: u64) -> bool {
        let before = self.nodes.range(..=leaf).next_back();
        before.is_some_and(|(first, (level, _))| leaf < first + (1 << level))
    }

    fn insert(&mut self, Subtree { mut first, mut level, mut value }: Subtree) {
        if self.covers(first) {
            return;
        }
        self.remove_within(first..first + (1 << level));
        let (leaves, top) = (self.leaves(), top(self.leaves()));
        while level < top {
            let width = 1 << level;
            let is_left = first & width == 0;
            // A left child without a right one is its parent.
            if !is_left || first + width < leaves {
                let sibling = first ^ width;
                match self.nodes.get(&sibling) {
                    Some((other, sister)) if *other == level => {
                        let (left, right) = if is_left { (&value, sister) } else { (sister, &value) };
                        value = merge_subtrees_non_root(left, right, Mode::Hash);
                        self.nodes.remove(&sibling);
                        first &= !width;
                    }
                    _ => break,
                }
            }
            level += 1;
        }
        self.nodes.insert(first, (level, value));
    }

    fn remove_within(&mut self, leaves: Range<u64>) {
        while let Some((&first, _)) = self.nodes.range(leaves.clone()).next() {
            self.nodes.remove(&first);
        }
    }

    /// Forgets whatever holds one of these bytes.
    pub fn forget(&mut self, bytes: Range<u64>) {
        let (start, end) = (bytes.start / LEAF, bytes.end.div_ceil(LEAF));
        if let Some((&first, &(level, _))) = self.nodes.range(..start).next_back()
            && first + (1 << level) > start
        {
            self.nodes.remove(&first);
        }
        self.remove_within(start..end);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// The first bytes, at most `most`, of which nothing is known; nothing when the root can be computed. They begin and end so
    /// that [`hash`] knows all of them.
    pub fn missing(&self, most: u64) -> Option<Range<u64>> {
        let mut leaf = 0;
        for (first, (level, _)) in &self.nodes {
            if leaf < *first {
                break;
            }
            leaf = first + (1 << level);
        }
        let start = leaf * LEAF;
        if start >= self.size {
            return None;
        }
        let known = self.nodes.range(leaf..).next().map_or(self.size, |(first, _)| first * LEAF);
        let most = most.max(GROUP) / GROUP * GROUP;
        Some(start..known.min(start.saturating_add(most)))
    }

    /// The blob's digest, once nothing is missing. A blob of a single leaf has no subtrees and is hashed as it is.
    pub fn root(&self) -> Option<Digest> {
        let mut nodes = self.nodes.iter();
        let (Some((0, (_, left))), Some((middle, (_, right))), None) =
            (nodes.next(), nodes.next(), nodes.next())
        else {
            return None;
        };
        let whole = self.missing(GROUP).is_none() && *middle == 1 << top(self.leaves());
        whole.then(|| Digest(*merge_subtrees_root(left, right, Mode::Hash).as_bytes()))
    }
}

fn leaves(size: u64) -> u64 {
    size.div_ceil(LEAF).max(1)
}

/// The level of the root's children.
fn top(leaves: u64) -> u32 {
    leaves.next_power_of_two().ilog2().saturating_sub(1)
}

/// The subtrees of a blob of `size` bytes that lie wholly within `bytes`, which begin at `offset` of it: whole [`GROUP`]s, and
/// at the blob's end what is left. Hash what lies at the edges when its neighbours are here.
pub fn hash(size: u64, offset: u64, bytes: &[u8]) -> Vec<Subtree> {
    let end = offset + bytes.len() as u64;
    let leaves = leaves(size);
    let mut subtrees = Vec::new();
    let mut at = offset.next_multiple_of(GROUP);
    // A blob of one leaf is its own root.
    while leaves > 1 && at < end {
        let first = at / LEAF;
        let aligned = if first == 0 { u32::MAX } else { first.trailing_zeros() };
        let mut level = aligned.min(top(leaves));
        let stop = |level: u32| at.saturating_add(LEAF << level).min(size);
        if (at + 1).next_multiple_of(GROUP).min(size) > end {
            break;
        }
        while level > 0 && stop(level) > end {
            level -= 1;
        }
        let Some(part) = bytes.get((at - offset) as usize..(stop(level) - offset) as usize) else { break };
        let value = blake3::Hasher::new().set_input_offset(at).update(part).finalize_non_root();
        subtrees.push(Subtree { first, level, value });
        at = stop(level);
    }
    subtrees
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Hashes what is missing, as [`Subtrees::fill`] wants it.
    fn complete(tree: &mut Subtrees, content: &[u8]) -> u64 {
        let mut read = 0;
        while let Some(range) = tree.missing(64 * 1024) {
            let part = &content[range.start as usize..range.end as usize];
            let subtrees = hash(content.len() as u64, range.start, part);
            assert!(!subtrees.is_empty(), "no progress at {range:?} of {}", content.len());
            tree.fill(subtrees);
            read += range.end - range.start;
        }
        read
    }

    #[test]
    fn any_length_cut_anywhere_in_any_order() {
        let mut random = noise(1 << 16, 7).into_iter().cycle();
        let lengths =
            (1025..1100).step_by(37).chain([2048, 4097, 9 * 1024, 16_384, 16_385, 17_000, 32_768, 40_000]);
        for len in lengths.chain((1..24).map(|i| i * 61_357)) {
            let content = noise(len, len as u64);
            for _ in 0..4 {
                let mut cuts = vec![0, len];
                (0..random.next().unwrap() % 9).for_each(|_| {
                    let at = u32::from_le_bytes([0; 4].map(|_: u8| random.next().unwrap()));
                    cuts.push(at as usize % len);
                });
                cuts.sort_unstable();
                let mut parts: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
                parts.sort_by_key(|_| random.next().unwrap());
                let mut tree = Subtrees::new(len as u64);
                for (start, end) in parts {
                    tree.add(hash(len as u64, start as u64, &content[start..end]));
                    // Twice is once.
                    tree.add(hash(len as u64, start as u64, &content[start..end]));
                }
                complete(&mut tree, &content);
                assert_eq!(tree.root(), Some(Digest::of(&content)), "{len} bytes cut at {cuts:?}");
            }
        }
    }

    #[test]
    fn in_order_little_is_kept_and_only_edges_are_read_again() {
        let content = noise(8 << 20, 1);
        let (size, chunk) = (content.len() as u64, 1_000_003);
        let mut tree = Subtrees::new(size);
        for (i, part) in content.chunks(chunk).enumerate() {
            tree.add(hash(size, (i * chunk) as u64, part));
        }
        assert!(complete(&mut tree, &content) <= 8 * GROUP);
        assert_eq!(tree.nodes.len(), 2);
        assert_eq!(tree.root(), Some(Digest::of(&content)));
    }

    #[test]
    fn what_is_forgotten_is_missing_and_wrong_bytes_are_another_digest() {
        let content = noise(1 << 20, 2);
        let mut tree = Subtrees::new(1 << 20);
        tree.add(hash(1 << 20, 0, &content));
        assert_eq!((tree.missing(1), tree.root()), (None, Some(Digest::of(&content))));
        tree.forget(700_000..700_001);
        assert_eq!(tree.root(), None);
        let mut wrong = content.clone();
        wrong[700_000] ^= 1;
        complete(&mut tree, &wrong);
        assert_eq!(tree.root(), Some(Digest::of(&wrong)));
        tree.clear();
        assert_eq!(complete(&mut tree, &content), 1 << 20);
        assert_eq!(tree.root(), Some(Digest::of(&content)));
    }

    #[test]
    fn a_blob_of_one_leaf_has_no_tree() {
        for len in [0, 1, 1024] {
            assert!(hash(len, 0, &noise(len as usize, 3)).is_empty());
            assert_eq!(Subtrees::new(len).root(), None);
        }
    }
}
