//! A second look at the end of RocksDB's write-ahead log.
//!
//! RocksDB takes a record that reaches beyond the end of the file for one that a crash cut short, and forgets it. But a
//! damaged length looks the same, and then every record behind it is forgotten too, though each was acknowledged. The
//! difference can be seen: behind a record that was cut short there is nothing. This looks for whole records there.
//!
//! The format is that of RocksDB's `log_format.h`: blocks of 32 KiB; in them records of a masked CRC-32C (4 bytes, over
//! what follows the length), a length (2 bytes, little-endian), a type (1 byte) and the content; none spans two blocks.
//! In all blocks but the last RocksDB itself refuses a wrong length, and everywhere a wrong checksum.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Result, StoreError, io};

const BLOCK: u64 = 32 * 1024;
const HEADER: usize = 7;
/// The types of records that hold data: whole, first, middle, last.
const DATA: std::ops::RangeInclusive<u8> = 1..=4;

/// Refuses an index of whose log acknowledged records would be forgotten.
pub(super) fn check(index: &Path) -> Result<()> {
    for entry in fs::read_dir(index).map_err(io("could not list", index))? {
        let path = entry.map_err(io("could not list", index))?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let read = || -> std::io::Result<Vec<u8>> {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            let start = size.saturating_sub(1) / BLOCK * BLOCK;
            let mut block = vec![0; (size - start) as usize];
            file.read_exact_at(&mut block, start)?;
            Ok(block)
        };
        let block = read().map_err(io("could not read", &path))?;
        if let Some(at) = forgotten(&block) {
            return Err(StoreError::Corrupt(format!(
                "{} is damaged at byte {at} of its last block, before records that were acknowledged",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Where in a log's last block RocksDB would stop reading although a whole record follows.
fn forgotten(block: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (header, length) = header(block, at)?;
        let end = at + HEADER + length;
        let zeros = header.iter().all(|byte| *byte == 0);
        if !zeros && end <= block.len() {
            at = end;
            continue;
        }
        // The record as long as what is left: were its length alone wrong, its checksum would be right.
        let whole = DATA.contains(&header[6]) && is_record(block, at, block.len() - at - HEADER);
        let behind = (at + 1..block.len()).any(|at| match self::header(block, at) {
            Some((header, length)) => DATA.contains(&header[6]) && is_record(block, at, length),
            None => false,
        });
        return (whole || behind).then_some(at);
    }
}

/// A record's header, and the length that it names.
fn header(block: &[u8], at: usize) -> Option<([u8; HEADER], usize)> {
    let header: [u8; HEADER] = *block.get(at..)?.first_chunk()?;
    Some((header, usize::from(u16::from_le_bytes([header[4], header[5]]))))
}

/// Whether a record of `length` bytes, with the right checksum, begins at `at`.
fn is_record(block: &[u8], at: usize, length: usize) -> bool {
    let (Some(sum), Some(content)) =
        (block.get(at..).and_then(|rest| rest.first_chunk()), block.get(at + 6..at + HEADER + length))
    else {
        return false;
    };
    let masked = u32::from_le_bytes(*sum);
    crc32c(content) == masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// CRC-32C (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &[u8]) -> Vec<u8> {
        let body = [&[1], content].concat();
        let masked = crc32c(&body).rotate_right(15).wrapping_add(0xa282_ead8);
        let length = (content.len() as u16).to_le_bytes();
        [&masked.to_le_bytes()[..], &length, &body].concat()
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn cut_short_is_told_from_damaged() {
        let log = [record(b"one"), record(b"two two"), record(b"three three three")].concat();
        let second = record(b"one").len();
        let third = second + record(b"two two").len();
        for keep in 0..=log.len() {
            assert_eq!(forgotten(&log[..keep]), None, "cut at {keep}");
        }
        for (at, found) in [(0, 0), (second, second), (third, third)] {
            let mut damaged = log.clone();
            damaged[at + 5] ^= 0xff;
            assert_eq!(forgotten(&damaged), Some(found), "length at {at}");
        }
        let mut wiped = log.clone();
        wiped[second..second + HEADER].fill(0);
        assert_eq!(forgotten(&wiped), Some(second));
        let zeros = [&log[..], &[0; 100]].concat();
        assert_eq!(forgotten(&zeros), None);
    }
}
