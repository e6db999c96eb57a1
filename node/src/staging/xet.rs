//! What the Xet client uploads: xorbs, which hold chunks, and shards, which say of which chunks files are made.
//!
//! Each chunk of a xorb is unpacked and hashed while it comes, and the xorb must have the name that its chunks give it. A shard's
//! files are put together at once, hashed for Xet's own name and for SHA-256, and kept like every other content: a commit finds
//! them as if they had come whole. Xorbs stay for as long as the area's age limit, since clients remember what they sent and don't
//! send it again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use registry::digest::Sha256;
use registry::statement::MAX_FILE_SIZE;
use xet_core_structures::CoreError;
use xet_core_structures::merklehash::{MerkleHash, compute_data_hash, file_hash, xorb_hash};
use xet_core_structures::metadata_shard::MDBShardFileHeader;
use xet_core_structures::metadata_shard::file_structs::MDBFileInfoView;
use xet_core_structures::metadata_shard::streaming_shard::process_shard_file_info_section;
use xet_core_structures::xorb_object::{XORB_CHUNK_HEADER_LENGTH, XorbChunkHeader, parse_chunk_header};

use super::Area;
use super::error::{Result, StagingError, io as failed};

/// Largest xorb as it is sent: 64 MiB of content by its format, the heads of its chunks and its footer.
pub(crate) const MAX_XORB: u64 = 72 * 1024 * 1024;
/// Most content of a xorb, unpacked.
const MAX_XORB_CONTENT: u64 = 64 * 1024 * 1024;
/// Most chunks of a xorb, by its format.
const MAX_XORB_CHUNKS: usize = 8 * 1024;
/// Largest shard: the client cuts them at 64 MiB.
pub(crate) const MAX_SHARD: u64 = 72 * 1024 * 1024;
/// Most files of a shard: those of the largest release.
const MAX_SHARD_FILES: usize = registry::statement::MAX_FILES;
/// Xorbs whose chunks are remembered while a shard is put together: 64 KiB each at most.
const MAX_OPEN: usize = 64;
/// Longest chunk as it is sent, by the format.
const MAX_PACKED: u32 = 256 * 1024;

fn wrong(why: impl std::fmt::Display) -> StagingError {
    StagingError::Wrong(why.to_string())
}

fn reading(error: io::Error) -> StagingError {
    match error.kind() {
        io::ErrorKind::InvalidData => wrong(error),
        _ => StagingError::Cut,
    }
}

/// Takes no more than it was made for: what unpacks to more than it announced is stopped there.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a chunk unpacks to more than it announces",
            ));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unpack(header: &XorbChunkHeader, packed: &[u8]) -> Result<Vec<u8>> {
    let most = header.get_uncompressed_length() as usize;
    let mut capped = Capped { bytes: Vec::with_capacity(most), most };
    let scheme = header.get_compression_scheme().map_err(wrong)?;
    scheme.decompress_from_reader(&mut Cursor::new(packed), &mut capped).map_err(wrong)?;
    if capped.bytes.len() == most {
        Ok(capped.bytes)
    } else {
        Err(wrong("a chunk unpacks to less than it announces"))
    }
}

/// The next chunk's head; nothing at the end of the chunks.
fn head(from: &mut impl Read) -> Result<Option<([u8; XORB_CHUNK_HEADER_LENGTH], XorbChunkHeader)>> {
    let mut head = [0; XORB_CHUNK_HEADER_LENGTH];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest).map_err(reading)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(wrong("the xorb ends within a chunk's head")),
            read => filled += read,
        }
    }
    match parse_chunk_header(head) {
        Ok(header) if header.get_compressed_length() <= MAX_PACKED => Ok(Some((head, header))),
        Ok(_) => Err(wrong("a chunk is too long")),
        // The footer begins: it says what the chunks say too.
        Err(CoreError::ChunkHeaderParse) => Ok(None),
        Err(error) => Err(wrong(error)),
    }
}

/// A xorb that is here, and where its chunks begin.
struct Xorb {
    file: File,
    starts: Vec<u64>,
}

/// Xorbs that a shard's files are made from.
#[derive(Default)]
struct Xorbs(HashMap<[u8; 32], Arc<Xorb>>);

impl Area {
    fn xorb_path(&self, hash: &MerkleHash) -> PathBuf {
        let hex = hash.hex();
        self.home.join("xorbs").join(hex.get(..2).unwrap_or_default()).join(hex)
    }

    /// Takes a xorb called `hash`, of at most `announced` bytes; answers whether it is new. Durable on return.
    pub(crate) fn take_xorb(&self, hash: &MerkleHash, announced: u64, from: &mut impl Read) -> Result<bool> {
        self.open()?;
        let path = self.xorb_path(hash);
        if let Ok(file) = File::open(&path) {
            // Somebody counts on it again.
            let _ = file.set_modified(std::time::SystemTime::now());
            io::copy(&mut from.take(MAX_XORB), &mut io::sink()).map_err(reading)?;
            return Ok(false);
        }
        let mut incoming = self.incoming(announced.min(MAX_XORB))?;
        let (mut chunks, mut content, mut packed) = (Vec::new(), 0u64, Vec::new());
        while let Some((head, header)) = head(from)? {
            packed.resize(header.get_compressed_length() as usize, 0);
            from.read_exact(&mut packed).map_err(reading)?;
            let chunk = unpack(&header, &packed)?;
            content += chunk.len() as u64;
            chunks.push((compute_data_hash(&chunk), chunk.len() as u64));
            if chunks.len() > MAX_XORB_CHUNKS || content > MAX_XORB_CONTENT {
                return Err(StagingError::TooLarge(format!(
                    "a xorb has at most {MAX_XORB_CHUNKS} chunks of {MAX_XORB_CONTENT} bytes together"
                )));
            }
            incoming.take(&head)?;
            incoming.take(&packed)?;
        }
        io::copy(&mut from.take(MAX_XORB), &mut io::sink()).map_err(reading)?;
        let found = xorb_hash(&chunks);
        if chunks.is_empty() || found != *hash {
            return Err(wrong(format!(
                "the xorb's chunks give it the name {}, and {} was announced",
                found.hex(),
                hash.hex()
            )));
        }
        incoming.install(&path)?;
        Ok(true)
    }

    /// Puts together the files of a shard; answers how many are new. Durable on return.
    pub(crate) fn take_shard(&self, shard: &[u8]) -> Result<usize> {
        self.open()?;
        let mut from = Cursor::new(shard);
        MDBShardFileHeader::deserialize(&mut from).map_err(wrong)?;
        let mut views: Vec<MDBFileInfoView> = Vec::new();
        let left = (shard.len() as u64).saturating_sub(from.position());
        process_shard_file_info_section(
            &mut from,
            |view| {
                if views.len() >= MAX_SHARD_FILES {
                    return Err(CoreError::InvalidShard(format!("more than {MAX_SHARD_FILES} files")));
                }
                views.push(view);
                Ok(())
            },
            Some(left),
        )
        .map_err(wrong)?;
        let (mut xorbs, mut new) = (Xorbs::default(), 0);
        for view in &views {
            new += usize::from(self.take_file(view, &mut xorbs)?);
        }
        Ok(new)
    }

    fn take_file(&self, view: &MDBFileInfoView, xorbs: &mut Xorbs) -> Result<bool> {
        let announced = match view.metadata_ext() {
            Some(ext) => Some(Sha256::from_hex(&ext.sha256.hex()).map_err(wrong)?),
            None => None,
        };
        let sizes = (0..view.num_entries()).map(|at| u64::from(view.entry(at).unpacked_segment_bytes));
        let size: u64 = sizes.sum();
        if size > MAX_FILE_SIZE {
            return Err(StagingError::TooLarge(format!(
                "a file has at most {MAX_FILE_SIZE} bytes, not {size}"
            )));
        }
        if announced.is_some_and(|oid| self.size_of(&oid) == Some(size)) {
            return Ok(false);
        }
        let mut incoming = self.incoming(size)?;
        let mut chunks = Vec::new();
        for at in 0..view.num_entries() {
            let entry = view.entry(at);
            let xorb = self.open_xorb(&entry.xorb_hash, xorbs)?;
            let before = incoming.size();
            for index in entry.chunk_index_start..entry.chunk_index_end {
                let chunk = xorb.chunk(index)?;
                chunks.push((compute_data_hash(&chunk), chunk.len() as u64));
                incoming.take(&chunk)?;
            }
            if incoming.size() - before != u64::from(entry.unpacked_segment_bytes) {
                return Err(wrong("a part of a file has another length than the shard says"));
            }
        }
        let found = file_hash(&chunks);
        if found != view.file_hash() {
            return Err(wrong(format!(
                "a file's chunks give it the name {}, and the shard says {}",
                found.hex(),
                view.file_hash().hex()
            )));
        }
        self.finish(incoming, announced.as_ref(), Some(size))?;
        Ok(true)
    }

    fn open_xorb(&self, hash: &MerkleHash, xorbs: &mut Xorbs) -> Result<Arc<Xorb>> {
        let key: [u8; 32] = hash.as_bytes().try_into().map_err(wrong)?;
        if let Some(xorb) = xorbs.0.get(&key) {
            return Ok(Arc::clone(xorb));
        }
        let path = self.xorb_path(hash);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(wrong(format!(
                    "the xorb {} is not here: it was never uploaded, or lay here for too long. Remove the client's notes of what it \
                     uploaded (`~/.cache/huggingface/xet`) and push again",
                    hash.hex()
                )));
            }
            Err(error) => return Err(failed("could not open", &path)(error)),
        };
        // Somebody counts on it again.
        let _ = file.set_modified(std::time::SystemTime::now());
        let (mut starts, mut at) = (Vec::new(), 0u64);
        while let Some((_, header)) = head(&mut file)? {
            starts.push(at);
            at += XORB_CHUNK_HEADER_LENGTH as u64 + u64::from(header.get_compressed_length());
            file.seek(SeekFrom::Start(at)).map_err(failed("could not read", &path))?;
            if starts.len() > MAX_XORB_CHUNKS {
                break;
            }
        }
        let xorb = Arc::new(Xorb { file, starts });
        if xorbs.0.len() >= MAX_OPEN {
            xorbs.0.clear();
        }
        xorbs.0.insert(key, Arc::clone(&xorb));
        Ok(xorb)
    }
}

impl Xorb {
    fn chunk(&self, index: u32) -> Result<Vec<u8>> {
        let start = self.starts.get(index as usize);
        let start = *start.ok_or_else(|| wrong(format!("a xorb has no chunk {index}")))?;
        let read = |bytes: &mut [u8], at| {
            self.file.read_exact_at(bytes, at).map_err(|source| StagingError::Io {
                what: "could not read",
                path: "a xorb".into(),
                source,
            })
        };
        let mut head = [0; XORB_CHUNK_HEADER_LENGTH];
        read(&mut head, start)?;
        let header = parse_chunk_header(head).map_err(wrong)?;
        let mut packed = vec![0; header.get_compressed_length() as usize];
        read(&mut packed, start + XORB_CHUNK_HEADER_LENGTH as u64)?;
        unpack(&header, &packed)
    }
}
