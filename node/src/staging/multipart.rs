//! Large content in parts, each of which is kept when it was acknowledged.
//!
//! The parts lie side by side in one file of the full length; a note beside it says which are there. When all are, the file is
//! hashed and moved: nothing is copied.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use registry::digest::{DigestHasher, Sha256, hash_file};

use super::error::{Result, StagingError, io};
use super::objects::{FINISHED, each_block, remove};
use super::{Area, Taken, make_folder, sync_folder, write_json};

/// Content larger than this goes in parts, if the client can.
const FROM: u64 = 64 * 1024 * 1024;
/// Least bytes of a part. With [`MAX_PARTS`], the parts of larger content grow with it.
const PART: u64 = 32 * 1024 * 1024;
/// Most parts: the address of each stands in one answer.
const MAX_PARTS: u64 = 1000;

/// How content is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Bytes of all.
    pub(crate) size: u64,
    /// Bytes of each but the last.
    pub(crate) part: u64,
}

impl Parts {
    /// How content of `size` bytes is cut; nothing where it goes whole.
    pub(crate) fn of(size: u64) -> Option<Self> {
        (size > FROM).then(|| Self { size, part: PART.max(size.div_ceil(MAX_PARTS)) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.size.div_ceil(self.part)
    }

    /// Where part `number` begins and how long it is; the first is 1.
    pub(crate) fn range(&self, number: u64) -> Option<(u64, u64)> {
        let at = number.checked_sub(1)?.checked_mul(self.part)?;
        (at < self.size).then(|| (at, self.part.min(self.size - at)))
    }
}

impl Area {
    fn parts_folder(&self, oid: &Sha256, size: u64) -> PathBuf {
        self.home.join("multipart").join(format!("{oid}-{size}"))
    }

    fn take_parts(&self, oid: &Sha256) -> Result<Taken<'_>> {
        self.take(format!("parts {oid}")).ok_or(StagingError::Busy)
    }

    /// Opens the file of all parts, set aside at its full length.
    fn parts_file(&self, folder: &Path, parts: &Parts) -> Result<File> {
        let data = folder.join("data");
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(&data) {
            return Ok(file);
        }
        let room = self.space.promise(parts.size)?;
        make_folder(folder)?;
        let failed = || io("could not make room for", &data);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&data).map_err(failed())?;
        file.set_len(parts.size).map_err(failed())?;
        file.sync_all().map_err(failed())?;
        sync_folder(folder)?;
        room.keep(parts.size, 0);
        Ok(file)
    }

    /// Takes part `number` of `oid` from `from`; answers its entity tag. Durable on return.
    pub(crate) fn take_part(
        &self,
        oid: &Sha256,
        parts: &Parts,
        number: u64,
        from: &mut impl Read,
    ) -> Result<String> {
        self.open()?;
        let (start, len) = parts.range(number).ok_or_else(|| {
            StagingError::Wrong(format!("there are {} parts, no part {number}", parts.count()))
        })?;
        let _taken = self.take_parts(oid)?;
        let folder = self.parts_folder(oid, parts.size);
        let file = self.parts_file(&folder, parts)?;
        let note = folder.join(number.to_string());
        // What is written over is not there any more.
        match fs::remove_file(&note) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("could not write", &note)(error));
            }
            _ => {}
        }
        let (mut hasher, mut done) = (DigestHasher::default(), 0u64);
        each_block(from, |bytes| {
            if done + bytes.len() as u64 > len {
                return Err(StagingError::TooLarge(format!("part {number} has {len} bytes, and more came")));
            }
            hasher.update(bytes);
            file.write_all_at(bytes, start + done).map_err(io("could not write", &folder))?;
            done += bytes.len() as u64;
            Ok(())
        })?;
        if done != len {
            return Err(StagingError::Wrong(format!("part {number} has {len} bytes, and {done} came")));
        }
        file.sync_data().map_err(io("could not write", &folder))?;
        let etag = hasher.finish().to_hex();
        write_json(&note, &etag)?;
        Ok(etag)
    }

    /// Puts the parts together when all are here, each with the tag that its uploader was given.
    pub(crate) fn join_parts(&self, oid: &Sha256, parts: &Parts, tags: &[(u64, String)]) -> Result<()> {
        self.open()?;
        let _taken = self.take_parts(oid)?;
        if self.size_of(oid) == Some(parts.size) {
            // Asked twice.
            return Ok(());
        }
        let folder = self.parts_folder(oid, parts.size);
        if tags.len() as u64 != parts.count() {
            return Err(StagingError::Wrong(format!("{} of {} parts are named", tags.len(), parts.count())));
        }
        for (at, (number, tag)) in tags.iter().enumerate() {
            let kept: Option<String> = super::read_json(&folder.join(number.to_string()), 1024)?;
            if *number != at as u64 + 1 || kept.as_deref() != Some(tag.trim_matches('"')) {
                return Err(StagingError::Wrong(format!(
                    "part {number} is not here as it was sent; send it again"
                )));
            }
        }
        let data = folder.join("data");
        let file = File::open(&data).map_err(io("could not open", &data))?;
        let found = hash_file(&file).map_err(io("could not read", &data))?;
        if found.sha256 != *oid {
            self.drop_parts(&folder)?;
            return Err(StagingError::Wrong(format!(
                "the parts together have the SHA-256 {}, and {oid} was announced; upload it again",
                found.sha256
            )));
        }
        let path = self.object_path(oid);
        let shelf = path.parent().unwrap_or(&self.home).to_owned();
        make_folder(&shelf)?;
        let failed = || io("could not keep", &path);
        let mode = PermissionsExt::from_mode(FINISHED);
        file.set_permissions(mode).and_then(|()| file.sync_all()).map_err(failed())?;
        fs::rename(&data, &path).map_err(failed())?;
        sync_folder(&shelf)?;
        sync_folder(&self.home.join("objects"))?;
        // What is left are the notes.
        self.drop_parts(&folder)
    }

    /// Removes an upload in parts.
    pub(super) fn drop_parts(&self, folder: &Path) -> Result<()> {
        remove(&folder.join("data"), &self.space)?;
        fs::remove_dir_all(folder).map_err(io("could not remove", folder))
    }
}
