//! Frames of `/steelyard/sync/1`: one request, one page of statements, on each stream as often as wanted.

use super::{MAX_PAGE, WireError, end, frame, take};

/// Type of a request for a page.
pub(crate) const FEED: u8 = 0x11;
/// Type of a page's head.
pub(crate) const PAGE: u8 = 0x91;
/// Type of a statement within a page.
pub(crate) const ENTRY: u8 = 0x92;

/// Asks for statements that arrived after a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedRequest {
    /// The last number known; 0 for everything.
    pub after: u64,
    /// Most statements wanted: 1 to [`MAX_PAGE`].
    pub limit: u16,
}

impl FeedRequest {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.after.to_le_bytes().to_vec();
        body.extend_from_slice(&self.limit.to_le_bytes());
        frame(FEED, &body)
    }

    /// Reads a frame's body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "feed request";
        if kind != FEED {
            return Err(WireError::Type(kind));
        }
        let mut input = body;
        let after = u64::from_le_bytes(take(&mut input, WHAT)?);
        let limit = u16::from_le_bytes(take(&mut input, WHAT)?);
        end(input, WHAT)?;
        if limit == 0 || limit > MAX_PAGE {
            return Err(WireError::Value { what: WHAT, rule: "a page has 1 to 256 statements" });
        }
        Ok(Self { after, limit })
    }
}

/// The head of a page; `count` frames follow, each with one signed statement as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPage {
    /// Names the answerer's feed: random, made when its store was made. Another one means that numbers begin anew.
    pub epoch: [u8; 16],
    /// The number to ask after next time; statements that the asker may not have are passed over.
    pub next: u64,
    /// Whether there is more at once.
    pub more: bool,
    /// Statements that follow.
    pub count: u16,
}

impl FeedPage {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.epoch.to_vec();
        body.extend_from_slice(&self.next.to_le_bytes());
        body.push(u8::from(self.more));
        body.extend_from_slice(&self.count.to_le_bytes());
        frame(PAGE, &body)
    }

    /// Reads a frame's body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "feed page";
        if kind != PAGE {
            return Err(WireError::Type(kind));
        }
        let mut input = body;
        let epoch = take(&mut input, WHAT)?;
        let next = u64::from_le_bytes(take(&mut input, WHAT)?);
        let more = match take::<1>(&mut input, WHAT)? {
            [flag @ 0..=1] => flag == 1,
            _ => return Err(WireError::Value { what: WHAT, rule: "`more` is 0 or 1" }),
        };
        let count = u16::from_le_bytes(take(&mut input, WHAT)?);
        end(input, WHAT)?;
        if count > MAX_PAGE {
            return Err(WireError::Value { what: WHAT, rule: "a page has at most 256 statements" });
        }
        Ok(Self { epoch, next, more, count })
    }
}
