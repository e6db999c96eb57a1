//! Who has which chunks: whole pictures and what changed since.

use super::{MAX_BITMAP, WireError, end, take};

/// Runs of chunks in one frame. More is cheaper as a bitmap.
pub const MAX_RUNS: usize = 1024;
/// Longest body of such a frame: the longest bitmap and what stands before it.
pub(super) const MAX_NEWS: usize = HEAD + 1 + MAX_BITMAP;
/// The file and whether the frame replaces what was told before.
const HEAD: usize = 5;
/// Stands for every file of the release.
const ALL_FILES: u32 = u32::MAX;
const WHAT: &str = "availability";

/// Which chunks of a file a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Those whose bit is set; the lowest bit of the first byte is chunk 0.
    Some(Vec<u8>),
    /// Runs of chunks: the first of each, and how many.
    Runs(Vec<(u32, u32)>),
}

impl Have {
    /// Checks that it can speak of a file of `chunks` chunks.
    pub fn check(&self, chunks: usize) -> Result<(), WireError> {
        match self {
            Self::Nothing | Self::Everything => Ok(()),
            Self::Some(bits) if bits.len() != chunks.div_ceil(8) => {
                Err(WireError::Length { what: WHAT, len: bits.len() as u64 })
            }
            Self::Some(bits) => match bits.last() {
                Some(last) if !chunks.is_multiple_of(8) && last >> (chunks % 8) != 0 => {
                    Err(WireError::Value { what: WHAT, rule: "bits beyond the last chunk are 0" })
                }
                _ => Ok(()),
            },
            Self::Runs(runs) => {
                let within = |&(first, count): &(u32, u32)| {
                    count > 0 && u64::from(first) + u64::from(count) <= chunks as u64
                };
                match runs.iter().all(within) {
                    true => Ok(()),
                    false => Err(WireError::Value { what: WHAT, rule: "a run lies within its file" }),
                }
            }
        }
    }

    /// Whether chunk `index` is there.
    pub fn has(&self, index: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some(bits) => bits.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1),
            Self::Runs(runs) => runs.iter().any(|&(first, count)| index >= first && index - first < count),
        }
    }

    fn encode(&self, body: &mut Vec<u8>) {
        match self {
            Self::Nothing => body.push(0),
            Self::Everything => body.push(1),
            Self::Some(bits) => {
                body.push(2);
                body.extend_from_slice(bits);
            }
            Self::Runs(runs) => {
                body.push(3);
                for number in runs.iter().flat_map(|&(first, count)| [first, count]) {
                    body.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }

    fn decode(mut input: &[u8]) -> Result<Self, WireError> {
        let have = match take::<1>(&mut input, WHAT)? {
            [0] => Self::Nothing,
            [1] => Self::Everything,
            [2] if input.len() > MAX_BITMAP => {
                let (len, limit) = (input.len() as u64, MAX_BITMAP as u64);
                return Err(WireError::TooLarge { what: WHAT, len, limit });
            }
            [2] => Self::Some(std::mem::take(&mut input).to_vec()),
            [3] => {
                let count = input.len() / 8;
                if count > MAX_RUNS {
                    let (len, limit) = (count as u64, MAX_RUNS as u64);
                    return Err(WireError::TooLarge { what: "list of runs", len, limit });
                }
                let mut runs = Vec::with_capacity(count);
                while !input.is_empty() {
                    let first = u32::from_le_bytes(take(&mut input, WHAT)?);
                    runs.push((first, u32::from_le_bytes(take(&mut input, WHAT)?)));
                }
                Self::Runs(runs)
            }
            _ => return Err(WireError::Value { what: WHAT, rule: "availability is 0, 1, 2 or 3" }),
        };
        end(input, WHAT)?;
        Ok(have)
    }
}

/// What a server tells whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The file's place in the release, or `None` for every file.
    pub file: Option<u32>,
    /// Whether it takes the place of what was told before; else it adds to it.
    pub replaces: bool,
    /// Which chunks.
    pub have: Have,
}

impl News {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.file.unwrap_or(ALL_FILES).to_le_bytes().to_vec();
        body.push(u8::from(self.replaces));
        self.have.encode(&mut body);
        body
    }

    /// Reads the body of its frame.
    pub fn decode(mut input: &[u8]) -> Result<Self, WireError> {
        let file = match u32::from_le_bytes(take(&mut input, WHAT)?) {
            ALL_FILES => None,
            file => Some(file),
        };
        let replaces = match take::<1>(&mut input, WHAT)? {
            [flag @ 0..=1] => flag == 1,
            _ => return Err(WireError::Value { what: WHAT, rule: "`replaces` is 0 or 1" }),
        };
        let have = Have::decode(input)?;
        if file.is_none() && !matches!(have, Have::Nothing | Have::Everything) {
            return Err(WireError::Value {
                what: WHAT,
                rule: "of all files at once it is nothing or everything",
            });
        }
        Ok(Self { file, replaces, have })
    }
}
