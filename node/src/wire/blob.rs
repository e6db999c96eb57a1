//! Frames of `/steelyard/blob/1`.

use std::ops::Range;

use registry::Digest;
use registry::chunk::ChunkMap;

use super::have::News;
use super::{HEADER, MAX_RANGE, MAX_RANGE_CHUNKS, WireError, end, frame, header, take};

const OPEN: u8 = 0x01;
const MAP: u8 = 0x02;
const WATCH: u8 = 0x03;
const CHUNKS: u8 = 0x04;
const CANCEL: u8 = 0x05;
const ENCODED_CHUNKS: u8 = 0x06;
const OPENED: u8 = 0x81;
const MAP_DATA: u8 = 0x82;
const NEWS: u8 = 0x83;
const DATA: u8 = 0x84;
const ENCODED: u8 = 0x85;
const REFUSED: u8 = 0xff;
/// Longest encoded chunk, in bytes: an encoding that does not make a chunk shorter is not used.
const MAX_ENCODED: u32 = registry::chunk::MAX_CHUNK;

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
    /// What is there, now and as it grows. It is the last request on its stream.
    Watch,
    /// Consecutive chunks of a file.
    Chunks {
        /// The file's place in the release.
        file: u32,
        /// The first chunk.
        first: u32,
        /// How many: 1 to [`MAX_RANGE_CHUNKS`].
        count: u32,
        /// Whether they may come encoded.
        encoded: bool,
    },
    /// An earlier request for these very chunks need not be answered any more if it was not begun. It has no answer of
    /// its own.
    Cancel {
        /// The file's place in the release.
        file: u32,
        /// The first chunk.
        first: u32,
        /// How many.
        count: u32,
    },
}

impl Request {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open { release } => frame(OPEN, release.as_bytes()),
            Self::Map { file } => frame(MAP, &file.to_le_bytes()),
            Self::Watch => frame(WATCH, &[]),
            Self::Chunks { file, first, count, encoded: false } => numbers(CHUNKS, [*file, *first, *count]),
            Self::Chunks { file, first, count, encoded: true } => {
                numbers(ENCODED_CHUNKS, [*file, *first, *count])
            }
            Self::Cancel { file, first, count } => numbers(CANCEL, [*file, *first, *count]),
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
            WATCH => Self::Watch,
            CHUNKS | ENCODED_CHUNKS => Self::Chunks {
                file: number()?,
                first: number()?,
                count: number()?,
                encoded: kind == ENCODED_CHUNKS,
            },
            CANCEL => Self::Cancel { file: number()?, first: number()?, count: number()? },
            other => return Err(WireError::Type(other)),
        };
        end(input, WHAT)?;
        if let Self::Chunks { first, count, .. } | Self::Cancel { first, count, .. } = request
            && (count == 0 || count > MAX_RANGE_CHUNKS || first.checked_add(count).is_none())
        {
            return Err(WireError::Value { what: WHAT, rule: "a range has 1 to 256 chunks" });
        }
        Ok(request)
    }
}

fn numbers(kind: u8, fields: [u32; 3]) -> Vec<u8> {
    let mut body = Vec::with_capacity(12);
    for field in fields {
        body.extend_from_slice(&field.to_le_bytes());
    }
    frame(kind, &body)
}

/// In which order requests may come on one stream.
#[derive(Debug, Default)]
pub struct Order {
    opened: bool,
    watching: bool,
}

impl Order {
    /// Checks the next request: an open first, and never again; nothing after a watch.
    pub fn check(&mut self, request: &Request) -> Result<(), WireError> {
        const WHAT: &str = "request";
        if self.watching {
            return Err(WireError::Value { what: WHAT, rule: "nothing follows a watch on its stream" });
        }
        self.watching = matches!(request, Request::Watch);
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
    /// The request was taken back before it was begun.
    Cancelled = 6,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 6] =
        [Self::NotFound, Self::Recalled, Self::Busy, Self::Missing, Self::NotAllowed, Self::Cancelled];
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
    /// To [`Request::Watch`], again and again.
    News(News),
    /// To [`Request::Chunks`]: so many bytes follow, the chunks one after the other.
    Data {
        /// Their length together.
        len: u32,
    },
    /// To [`Request::Chunks`] that may come encoded: one chunk in so many bytes, which follow. There is one such answer for
    /// each chunk, in their order.
    Encoded {
        /// How: an encoding of `specs/07`.
        encoding: u8,
        /// How many bytes follow.
        len: u32,
    },
    /// Refused.
    Refused(Refusal),
}

impl Answer {
    /// The frame; of [`Answer::Map`], [`Answer::Data`] and [`Answer::Encoded`] without the content, which is streamed after it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opened { complete } => frame(OPENED, &[u8::from(*complete)]),
            Self::Map { len } => header(MAP_DATA, *len).to_vec(),
            Self::News(news) => frame(NEWS, &news.encode()),
            Self::Data { len } => header(DATA, *len).to_vec(),
            Self::Encoded { encoding, len } => {
                let mut head = header(ENCODED, len.saturating_add(1)).to_vec();
                head.push(*encoding);
                head
            }
            Self::Refused(refusal) => frame(REFUSED, &[*refusal as u8]),
        }
    }

    /// How many bytes of body belong to the answer itself, for a header that was read. The body of a map and of chunks
    /// is content: the reader takes it piece by piece.
    pub fn body_len(kind: u8, len: u32) -> Result<usize, WireError> {
        const WHAT: &str = "answer";
        let limit = match kind {
            MAP_DATA | DATA => return Ok(0),
            // Of an encoded chunk only the first byte says how; the rest is content.
            ENCODED => {
                return match len {
                    0 | 1 => Err(WireError::Length { what: WHAT, len: len.into() }),
                    len if len > MAX_ENCODED + 1 => Err(WireError::TooLarge {
                        what: "encoded chunk",
                        len: len.into(),
                        limit: (MAX_ENCODED + 1).into(),
                    }),
                    _ => Ok(1),
                };
            }
            OPENED | REFUSED => 1,
            NEWS => super::have::MAX_NEWS,
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
                Self::Refused(refusal.ok_or(WireError::Value { what: WHAT, rule: "a refusal is 1 to 6" })?)
            }
            ENCODED => {
                let [encoding] = take(&mut input, WHAT)?;
                Self::Encoded { encoding, len: len.saturating_sub(1) }
            }
            NEWS => Self::News(News::decode(std::mem::take(&mut input))?),
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
