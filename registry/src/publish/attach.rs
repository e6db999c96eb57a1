//! Taking in an attachment.

use std::io::Write;

use super::PublishError;
use crate::attachment::{self, Kind};
use crate::path;
use crate::statement::File;
use crate::store::Store;

/// Takes in an attachment's content and says what a release's file of it is. It must be what its kind says: what is
/// published with a media type is read by others by it. Its blob is held for a day.
pub fn attach(store: &Store, kind: Kind, path: &str, content: &[u8]) -> Result<File, PublishError> {
    let wrong = |source| PublishError::Attachment { path: crate::shorten(path), source };
    attachment::describe(kind, content, None).map_err(wrong)?;
    path::check(path).map_err(|source| PublishError::Path { path: path.into(), source })?;
    let io = |source| PublishError::Io { path: path.into(), source };
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().map_err(io)?;
    file.write_all(content).and_then(|()| file.flush()).map_err(io)?;
    let taken = store.ingest(file.path(), &mut |_| {})?;
    Ok(File {
        path: path.to_owned(),
        blake3: taken.digests.blake3,
        sha256: taken.digests.sha256,
        size: taken.digests.size,
        media_type: kind.media_type().to_owned(),
        chunk_map: taken.map_digest,
    })
}
