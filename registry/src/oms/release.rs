//! What of a release lies in its folder, and what its own bundle lists.

use super::{FILE_NAME, Manifest, OmsError, SigningKey};
use crate::attachment::Kind;
use crate::digest::Sha256;
use crate::statement::File;

/// Whether a file of a release is in its folder: records of an import are about the release, and no bundle covers them.
pub fn in_folder(file: &File) -> bool {
    Kind::of(&file.media_type) != Some(Kind::Import)
}

/// The paths of a release's folder, sorted.
pub fn folder_paths(files: &[File]) -> Vec<&str> {
    let mut paths: Vec<_> =
        files.iter().filter(|file| in_folder(file)).map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

/// What the publisher's bundle lists: the folder but for the bundle itself, sorted by path.
pub fn listed(files: &[File]) -> Vec<(String, Sha256)> {
    let files = files.iter().filter(|file| in_folder(file) && file.path != FILE_NAME);
    let mut files: Vec<_> = files.map(|file| (file.path.clone(), file.sha256)).collect();
    files.sort();
    files
}

/// A bundle over the files of a release called `name`, which is to lie among them at [`FILE_NAME`].
pub fn sign_release(name: &str, files: &[File], key: &SigningKey) -> Result<Vec<u8>, OmsError> {
    let manifest = Manifest::new(name.to_owned(), listed(files), vec![FILE_NAME.to_owned()])?;
    super::sign(&manifest, key)
}
