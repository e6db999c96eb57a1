//! Chunks that land in any order, wrong ones, and false maps.

use super::*;
use crate::tiny::Scratch;

fn content(len: usize) -> Vec<u8> {
    let mut noise = 1u32;
    let next = |_| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    (0..len).map(next).collect()
}

/// A file whose source has its length and nothing in it, and its map.
fn growing(scratch: &Scratch, bytes: &[u8], blob: Digest) -> (Growing, File, ChunkMap) {
    let mut chunks = Vec::new();
    // Chunks that fit no block.
    for part in bytes.chunks(700_001) {
        chunks.push(registry::chunk::Chunk { digest: Digest::of(part), len: part.len() as u32 });
    }
    let map = ChunkMap::new(blob, bytes.len() as u64, chunks).unwrap();
    let name = format!("source-{}", bytes.len());
    let source = scratch.file(&name, &vec![0; bytes.len()]);
    let encoded = scratch.file(&format!("{name}.map"), &map.encode());
    let opened = Opened {
        file: File::open(&source).unwrap(),
        map: Some(File::open(encoded).unwrap()),
        path: "model.gguf".to_owned(),
        blob,
        size: bytes.len() as u64,
        chunk_map: map.digest(),
    };
    let writer = File::options().write(true).open(&source).unwrap();
    (Growing::new(opened, memory(bytes.len() as u64).unwrap()).unwrap(), writer, map)
}

fn stream(file: Growing) -> (Stream, Arrivals) {
    let arrivals = Arrivals::default();
    (Stream::new(BTreeMap::from([(3, file)]), arrivals.clone(), Halt::default()), arrivals)
}

#[test]
fn what_lands_in_any_order_is_whole_and_read_as_it_comes() {
    for len in [0, 1, 1000, (1 << 20) - 1, 1 << 20, 5_000_000] {
        let (scratch, bytes) = (Scratch::new(), content(len));
        let (file, source, map) = growing(&scratch, &bytes, Digest::of(&bytes));
        let (stream, arrivals) = stream(file);
        assert_eq!((stream.wanted(), stream.size()), (vec![3], len as u64));
        let result = stream.run(&|_| {}, || {
            let mut order: Vec<u32> = (0..map.len() as u32).collect();
            order.reverse();
            for chunk in order {
                let range = map.range(chunk as usize).unwrap();
                let part = &bytes[range.start as usize..range.end as usize];
                source.write_all_at(part, range.start).unwrap();
                // Told twice, it is taken once.
                assert!(arrivals.landed(3, vec![(chunk, 1), (chunk, 1)]));
            }
            let mut read = Vec::new();
            stream.reader("model.gguf").unwrap().read_to_end(&mut read)?;
            Ok::<_, TestError>(read)
        });
        let (read, files) = result.unwrap();
        assert!(read == bytes, "{len}");
        // What happens to the source does not matter any more.
        source.write_all_at(&vec![7; len.min(100)], 0).unwrap();
        let mut copy = vec![0; len];
        files["model.gguf"].file().read_exact_at(&mut copy, 0).unwrap();
        assert!(copy == bytes, "{len}");
    }
}

#[derive(Debug, thiserror::Error)]
enum TestError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[test]
fn a_chunk_that_is_another_ends_it_with_its_place() {
    let (scratch, bytes) = (Scratch::new(), content(3_000_000));
    let (file, source, _) = growing(&scratch, &bytes, Digest::of(&bytes));
    let (stream, arrivals) = stream(file);
    let error = stream
        .run(&|_| {}, || {
            source.write_all_at(&bytes[..1_500_000], 0).unwrap();
            assert!(arrivals.landed(3, vec![(0, 3)]));
            // Nothing is read of what is wrong, and whoever waits for it is let go.
            let mut read = Vec::new();
            stream.reader("model.gguf").unwrap().read_to_end(&mut read)?;
            Ok::<_, TestError>(())
        })
        .unwrap_err();
    let TestError::Gate(GateError::Landed { chunk, offset, .. }) = error else { panic!("{error}") };
    assert_eq!((chunk, offset), (2, 1_400_002));
}

#[test]
fn a_map_that_is_not_of_the_blob_is_found_by_the_hash_of_the_whole() {
    let (scratch, bytes) = (Scratch::new(), content(3_000_000));
    let (file, source, map) = growing(&scratch, &bytes, Digest::of(b"something else"));
    let (stream, arrivals) = stream(file);
    source.write_all_at(&bytes, 0).unwrap();
    assert!(arrivals.landed(3, vec![(0, map.len() as u32)]));
    let error = stream.run(&|_| {}, || Ok::<_, TestError>(())).unwrap_err();
    assert!(matches!(error, TestError::Gate(GateError::HashMismatch { .. })), "{error}");
}

#[test]
fn a_copy_keeps_its_length() {
    let copy = memory(100).unwrap();
    assert!(copy.set_len(50).is_err() && copy.set_len(200).is_err());
    assert!(copy.write_all_at(&[1], 100).is_err());
    copy.write_all_at(&[1], 99).unwrap();
}
