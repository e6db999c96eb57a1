//! Frames of `/steelyard/blob/1`.

use std::ops::Range;

use registry::Digest;
use registry::chunk::ChunkMap;

use super::{HEADER, MAX_RANGE, MAX_RANGE_CHUNKS, WireError, end, frame, header, take};

const OPEN: u8 = 0x01;
const MAP: u8 = 0x02;
const HAVE: u8 = 0x03;
const CHUNKS: u8 = 0x04;
const OPENED: u8 = 0x81;
const MAP_DATA: u8 = 0x82;
const HAVE_IS: u8 = 0x83;
const DATA: u8 = 0x84;
const REFUSED: u8 = 0xff;

/// What a client asks. The first request on a stream is [`Request::Open`], and it comes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Everything after is about this release.
    Open {
        /// The release's digest.
        release: Digest,
    },
    /// The chunk map of a file.
    Map {
        /// The file's place in the release.
        file: u32,
    },
    /// Which chunks of a file are there.
    Have {
        /// The file's place in the release.
        file: u32,
    },
    /// Consecutive chunks of a file.
    Chunks {
        /// The file's place in the release.
        file: u32,
        /// The first chunk.
        first: u32,
        /// How many: 1 to [`MAX_RANGE_CHUNKS`].
        count: u32,
    },
}

impl Request {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open { release } => frame(OPEN, release.as_bytes()),
            Self::Map { file } => frame(MAP, &file.to_le_bytes()),
            Self::Have { file } => frame(HAVE, &file.to_le_bytes()),
            Self::Chunks { file, first, count } => {
                let mut body = Vec::with_capacity(12);
                for field in [file, first, count] {
                    body.extend_from_slice(&field.to_le_bytes());
                }
                frame(CHUNKS, &body)
            }
        }
    }

    /// Reads a frame's body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "request";
        let mut input = body;
        let mut number = || Ok::<_, WireError>(u32::from_le_bytes(take(&mut input, WHAT)?));
        let request = match kind {
            OPEN => {
                let mut rest = body;
                let release = Digest::from_bytes(take(&mut rest, WHAT)?);
                end(rest, WHAT)?;
                return Ok(Self::Open { release });
            }
            MAP => Self::Map { file: number()? },
            HAVE => Self::Have { file: number()? },
            CHUNKS => Self::Chunks { file: number()?, first: number()?, count: number()? },
            other => return Err(WireError::Type(other)),
        };
        end(input, WHAT)?;
        if let Self::Chunks { first, count, .. } = request
            && (count == 0 || count > MAX_RANGE_CHUNKS || first.checked_add(count).is_none())
        {
            return Err(WireError::Value { what: WHAT, rule: "a range has 1 to 256 chunks" });
        }
        Ok(request)
    }
}

/// In which order requests may come on one stream.
#[derive(Debug, Default)]
pub struct Order {
    opened: bool,
}

impl Order {
    /// Checks the next request: an open first, and never again.
    pub fn check(&mut self, request: &Request) -> Result<(), WireError> {
        const WHAT: &str = "request";
        match (request, self.opened) {
            (Request::Open { .. }, false) => self.opened = true,
            (Request::Open { .. }, true) => {
                return Err(WireError::Value { what: WHAT, rule: "a stream opens one release, once" });
            }
            (_, true) => {}
            (_, false) => {
                return Err(WireError::Value { what: WHAT, rule: "the first one opens a release" });
            }
        }
        Ok(())
    }
}

/// The bytes of a blob that a request for chunks means, if `map` has such chunks and they are not too many.
pub fn range(map: &ChunkMap, first: u32, count: u32) -> Result<Range<u64>, WireError> {
    const RULE: &str = "the file has no such chunks";
    let absent = WireError::Value { what: "request", rule: RULE };
    let last = first.checked_add(count).and_then(|end| end.checked_sub(1)).filter(|_| count > 0);
    let Some((start, end)) =
        last.and_then(|last| Some((map.range(first as usize)?, map.range(last as usize)?)))
    else {
        return Err(absent);
    };
    let len = end.end - start.start;
    if count > 1 && len > MAX_RANGE {
        return Err(WireError::TooLarge { what: "range of chunks", len, limit: MAX_RANGE });
    }
    Ok(start.start..end.end)
}

/// Why a request is refused. The stream stays usable, except after a refused [`Request::Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Unknown here, or not releasable to the nation that asks: which of the two is not told.
    NotFound = 1,
    /// Recalled.
    Recalled = 2,
    /// Too much is served already; ask later or elsewhere.
    Busy = 3,
    /// Not here, or no longer here; elsewhere perhaps.
    Missing = 4,
    /// The certificate of the one who asks does not allow fetching.
    NotAllowed = 5,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 5] = [Self::NotFound, Self::Recalled, Self::Busy, Self::Missing, Self::NotAllowed];
}

/// Which chunks of a file a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Those whose bit is set; the lowest bit of the first byte is chunk 0.
    Some(Vec<u8>),
}

impl Have {
    /// Checks that it can speak of a file of `chunks` chunks.
    pub fn check(&self, chunks: usize) -> Result<(), WireError> {
        let Self::Some(bits) = self else { return Ok(()) };
        if bits.len() != chunks.div_ceil(8) {
            return Err(WireError::Length { what: "availability", len: bits.len() as u64 });
        }
        match bits.last() {
            Some(last) if !chunks.is_multiple_of(8) && last >> (chunks % 8) != 0 => {
                Err(WireError::Value { what: "availability", rule: "bits beyond the last chunk are 0" })
            }
            _ => Ok(()),
        }
    }

    /// Whether chunk `index` is there.
    pub fn has(&self, index: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some(bits) => bits.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1),
        }
    }
}

/// What a server answers, in the order of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Open`]: the release may be asked for.
    Opened {
        /// Whether every blob of the release is there: availability need not be asked for.
        complete: bool,
    },
    /// To [`Request::Map`]: so many bytes of encoded chunk map follow.
    Map {
        /// The map's length.
        len: u32,
    },
    /// To [`Request::Have`].
    Have(Have),
    /// To [`Request::Chunks`]: so many bytes follow, the chunks one after the other.
    Data {
        /// Their length together.
        len: u32,
    },
    /// Refused.
    Refused(Refusal),
}

impl Answer {
    /// The frame; of [`Answer::Map`] and [`Answer::Data`] only the header, the bytes being streamed after it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opened { complete } => frame(OPENED, &[u8::from(*complete)]),
            Self::Map { len } => header(MAP_DATA, *len).to_vec(),
            Self::Have(Have::Nothing) => frame(HAVE_IS, &[0]),
            Self::Have(Have::Everything) => frame(HAVE_IS, &[1]),
            Self::Have(Have::Some(bits)) => {
                let mut body = Vec::with_capacity(1 + bits.len());
                body.push(2);
                body.extend_from_slice(bits);
                frame(HAVE_IS, &body)
            }
            Self::Data { len } => header(DATA, *len).to_vec(),
            Self::Refused(refusal) => frame(REFUSED, &[*refusal as u8]),
        }
    }

    /// How many bytes of body belong to the answer itself, for a header that was read. The body of a map and of chunks
    /// is content: the reader takes it piece by piece.
    pub fn body_len(kind: u8, len: u32) -> Result<usize, WireError> {
        const WHAT: &str = "answer";
        let limit = match kind {
            MAP_DATA | DATA => return Ok(0),
            OPENED | REFUSED => 1,
            HAVE_IS => 1 + super::MAX_BITMAP,
            other => return Err(WireError::Type(other)),
        };
        match len as usize {
            0 => Err(WireError::Length { what: WHAT, len: 0 }),
            len if len > limit => {
                Err(WireError::TooLarge { what: WHAT, len: len as u64, limit: limit as u64 })
            }
            len => Ok(len),
        }
    }

    /// Reads an answer from its header and the body that [`Self::body_len`] asked for.
    pub fn decode(kind: u8, len: u32, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "answer";
        let mut input = body;
        let answer = match kind {
            MAP_DATA => Self::Map { len },
            DATA => Self::Data { len },
            OPENED => match take::<1>(&mut input, WHAT)? {
                [flag @ 0..=1] => Self::Opened { complete: flag == 1 },
                _ => return Err(WireError::Value { what: WHAT, rule: "`complete` is 0 or 1" }),
            },
            REFUSED => {
                let [code] = take(&mut input, WHAT)?;
                let refusal = Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == code);
                Self::Refused(refusal.ok_or(WireError::Value { what: WHAT, rule: "a refusal is 1 to 5" })?)
            }
            HAVE_IS => match take::<1>(&mut input, WHAT)? {
                [0] => Self::Have(Have::Nothing),
                [1] => Self::Have(Have::Everything),
                [2] => Self::Have(Have::Some(std::mem::take(&mut input).to_vec())),
                _ => return Err(WireError::Value { what: WHAT, rule: "availability is 0, 1 or 2" }),
            },
            other => return Err(WireError::Type(other)),
        };
        end(input, WHAT)?;
        Ok(answer)
    }

    /// Reads a whole frame, content excluded: what the test vectors hold.
    pub fn decode_frame(bytes: &[u8]) -> Result<Self, WireError> {
        let (head, rest) =
            bytes.split_first_chunk::<HEADER>().ok_or(WireError::Truncated { what: "frame header" })?;
        let [kind, len @ ..] = *head;
        let len = u32::from_le_bytes(len);
        let need = Self::body_len(kind, len)?;
        match rest.len() {
            have if have < need => Err(WireError::Truncated { what: "answer" }),
            have if have > need => Err(WireError::Length { what: "answer", len: have as u64 }),
            _ => Self::decode(kind, len, rest),
        }
    }
}
