//! From a folder to a draft.

use std::fs;
use std::os::unix::fs::symlink;

use registry::publish::{self, PublishError};
use registry::statement::*;
use registry::store::StoreError;

use crate::help::*;

fn refused(path: &std::path::Path) -> PublishError {
    let (_dir, store) = house("alba", &[]);
    let error = publish::draft(&store, path, &mut |_| {}).unwrap_err();
    assert_eq!(store.usage().unwrap().blobs, 0, "a refusal keeps nothing: {error}");
    assert_eq!(listing(&store.home().join("tmp")).len(), 0);
    error
}

#[test]
fn a_folder_becomes_a_draft_and_a_release() {
    let (_dir, store) = house("alba", &[]);
    let folder = folder(1);
    fs::create_dir(folder.path().join("onnx")).unwrap();
    fs::write(folder.path().join("onnx/notes.txt"), "hello").unwrap();
    fs::write(folder.path().join(".DS_Store"), "x").unwrap();
    symlink("config.json", folder.path().join("copy.json")).unwrap();
    let mut last = None;
    let draft = publish::draft(&store, folder.path(), &mut |progress| last = Some(progress)).unwrap();
    let paths: Vec<&str> = draft.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["README.md", "config.json", "copy.json", "model.safetensors", "onnx/notes.txt"]);
    let last = last.unwrap();
    assert_eq!((last.file, last.files, last.bytes_done, last.bytes_total), (5, 5, draft.size, draft.size));
    assert_eq!(draft.format, "safetensors");
    assert_eq!(draft.licence.as_deref(), Some("apache-2.0"));
    assert_eq!(draft.model_card.as_deref(), Some("README.md"));
    assert!(draft.unsafe_files.is_empty());
    assert_eq!(draft.skipped.len(), 1);
    assert_eq!(draft.files[0].media_type, "text/markdown");
    let text = serde_json::to_string(&draft).unwrap();
    assert_eq!(serde_json::from_str::<publish::Draft>(&text).unwrap(), draft);

    for file in &draft.files {
        let bytes = fs::read(folder.path().join(&file.path)).unwrap();
        assert_eq!(fs::read(store.blob_path(&file.blake3)).unwrap(), bytes);
        assert_eq!(registry::digest::hash_file(&bytes[..]).unwrap().sha256, file.sha256);
        let map = store.chunk_map(&file.chunk_map).unwrap().unwrap();
        assert_eq!((map.blob(), map.size()), (file.blake3, file.size));
        for (index, (_, chunk)) in map.iter().enumerate() {
            let bytes = store.read_chunk(&file.blake3, &map, index).unwrap().unwrap();
            assert_eq!(registry::Digest::of(&bytes), chunk.digest);
        }
    }
    let release = Statement::Release(release_of(&draft, "alba/m", "1"));
    let accepted = publish::accept(&store, &sign(release.clone()), NOW).unwrap();
    assert!(accepted.new && !publish::accept(&store, &sign(release), NOW).unwrap().new);
    assert_eq!(store.pins().unwrap()[0].reason, publish::PUBLISHED);
}

#[test]
fn a_single_file_is_a_release_too_and_drafting_twice_is_once() {
    let (_dir, store) = house("alba", &[]);
    let folder = folder(1);
    let path = folder.path().join("model.safetensors");
    let one = draft(&store, &path);
    assert_eq!(one.files.len(), 1);
    assert_eq!(one.files[0].path, "model.safetensors");
    let before = listing(&store.home().join("blobs"));
    assert_eq!(draft(&store, &path), one);
    assert_eq!(listing(&store.home().join("blobs")), before);
}

#[test]
fn files_that_run_code_are_named() {
    let (_dir, store) = house("alba", &[]);
    let folder = folder(1);
    fs::write(folder.path().join("modeling.py"), "import os\n").unwrap();
    fs::write(folder.path().join("extra.json"), b"\x80\x04\x95pickle").unwrap();
    let draft = draft(&store, folder.path());
    let names: Vec<&str> = draft.unsafe_files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["extra.json", "modeling.py"]);
}

#[test]
fn links_out_of_the_folder_are_refused() {
    let folder = folder(1);
    symlink("/etc/hostname", folder.path().join("z.txt")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, PublishError::Link { what: "out of the folder", .. }), "{error}");
    fs::remove_file(folder.path().join("z.txt")).unwrap();
    symlink("nowhere", folder.path().join("z.txt")).unwrap();
    assert!(matches!(refused(folder.path()), PublishError::Link { what: "that leads nowhere", .. }));
    fs::remove_file(folder.path().join("z.txt")).unwrap();
    fs::create_dir(folder.path().join("inner")).unwrap();
    symlink("..", folder.path().join("inner/loop")).unwrap();
    assert!(matches!(refused(folder.path()), PublishError::Link { .. }));
}

#[test]
fn pipes_odd_names_and_empty_folders_are_refused() {
    let folder = folder(1);
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(matches!(refused(folder.path()), PublishError::Special { .. }));
        fs::remove_file(folder.path().join("pipe")).unwrap();
    }
    fs::write(folder.path().join("a:b.txt"), "x").unwrap();
    assert!(matches!(refused(folder.path()), PublishError::Path { .. }));
    fs::remove_file(folder.path().join("a:b.txt")).unwrap();
    fs::write(folder.path().join("CONFIG.json"), "{}").unwrap();
    assert!(matches!(refused(folder.path()), PublishError::Path { .. }));
    let deep = tempfile::tempdir().unwrap();
    let inner = deep.path().join(["d"; 30].join("/"));
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("f.txt"), "x").unwrap();
    assert!(matches!(refused(deep.path()), PublishError::Path { .. }));
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join(".hidden"), "x").unwrap();
    let error = refused(empty.path());
    assert!(matches!(&error, PublishError::Empty { skipped, .. } if skipped.len() == 1), "{error}");
    assert!(matches!(refused(&empty.path().join("missing")), PublishError::Io { .. }));
}

#[test]
fn weights_whose_header_lies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, PublishError::Store(StoreError::Format { .. })), "{error}");
    let mut cut = safetensors(1, 2, 1000);
    cut.truncate(cut.len() - 1);
    fs::write(folder.path().join("model.safetensors"), cut).unwrap();
    assert!(matches!(refused(folder.path()), PublishError::Store(StoreError::Format { .. })));
}

#[test]
fn a_channel_stays_with_its_model() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let stray = Statement::Channel(channel("alba/other", 1, release));
    let error = publish::accept(&store, &sign(stray), NOW).unwrap_err();
    assert!(matches!(error, PublishError::OtherModel { .. }), "{error}");
}

#[test]
fn a_release_with_a_map_of_another_file_is_refused() {
    let (_dir, store) = house("alba", &[]);
    let folder = folder(1);
    let mut release = release_of(&draft(&store, folder.path()), "alba/m", "1");
    release.files[0].chunk_map = release.files[1].chunk_map;
    let error = publish::accept(&store, &sign(Statement::Release(release)), NOW).unwrap_err();
    assert!(matches!(error, PublishError::WrongMap { .. }), "{error}");
    assert_eq!(store.last_seq(), 0);
}
