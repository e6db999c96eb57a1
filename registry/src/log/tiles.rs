//! Paths and contents of [C2SP tlog-tiles](https://c2sp.org/tlog-tiles).
//!
//! A tile of level L and number N holds the hashes of the subtrees of level 8·L from number 256·N on, at most 256; a
//! partial one has fewer and says how many in its path. An entry bundle holds the entries themselves.

use std::fmt;

use super::tree::Hash;

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Levels of subtrees in a tile.
pub const TILE_HEIGHT: u8 = 8;
/// Highest level of a tile: 63 bits hold no more.
const MAX_LEVEL: u8 = 7;
/// Longest path that is read, in bytes: a level, seven groups of digits and a width.
const MAX_PATH: usize = 64;

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The level; `None` for the entries.
    pub level: Option<u8>,
    /// The number.
    pub index: u64,
    /// How many hashes or entries, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// Reads a path behind the log's prefix, such as `tile/0/x001/067.p/5` or `tile/entries/003`.
    pub fn parse(path: &str) -> Option<Self> {
        if path.len() > MAX_PATH {
            return None;
        }
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level = match level {
            "entries" => None,
            digits => {
                Some(digits.parse::<u8>().ok().filter(|level| *level <= MAX_LEVEL && digits.len() == 1)?)
            }
        };
        let (number, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((number, width)) => {
                let short = !width.starts_with('0') && width.bytes().all(|byte| byte.is_ascii_digit());
                let width = width.parse().ok().filter(|w| short && (1..TILE_WIDTH).contains(w))?;
                (number, width)
            }
        };
        let mut index = 0u64;
        let mut groups = number.split('/').peekable();
        let mut first = true;
        while let Some(group) = groups.next() {
            let last = groups.peek().is_none();
            let digits = if last { group } else { group.strip_prefix('x')? };
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // A number has one path: none begins with a group of zeros but 000 itself.
            if first && !last && digits == "000" {
                return None;
            }
            first = false;
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        // Beyond that no log has entries.
        (index < 1 << 55).then_some(Self { level, index, width })
    }

    /// Whether a log of `size` entries has this tile.
    pub fn exists(&self, size: u64) -> bool {
        let level = self.level.unwrap_or(0);
        let hashes = size >> (u32::from(TILE_HEIGHT) * u32::from(level)).min(63);
        self.index
            .checked_mul(TILE_WIDTH)
            .and_then(|start| start.checked_add(self.width))
            .is_some_and(|end| end <= hashes)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}/")?,
            None => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// A tile's content: its hashes one after the other.
pub fn hashes(tile: &[Hash]) -> Vec<u8> {
    tile.concat()
}

/// An entry bundle's content: each entry behind its length in two bytes, the higher first.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        // Entries here have 33 bytes.
        out.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        out.extend_from_slice(entry);
    }
    out
}
