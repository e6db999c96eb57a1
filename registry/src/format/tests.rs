#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use super::samples::{Gguf, Random, safetensors as file, safetensors_of};
use super::*;

fn st(bytes: &[u8]) -> Result<Layout, FormatError> {
    safetensors::read(Cursor::new(bytes), bytes.len() as u64)
}

fn gg(bytes: &[u8]) -> Result<(Layout, gguf::Metadata), FormatError> {
    gguf::read(Cursor::new(bytes), bytes.len() as u64)
}

#[test]
fn safetensors_are_laid_out_in_file_order() {
    let bytes = file(
        r#"{"b":{"dtype":"F32","shape":[2,1],"data_offsets":[2,10]},"__metadata__":{"k":"v\"{"},
            "a":{"data_offsets":[0,2],"shape":[],"dtype":"BF16"},"e":{"dtype":"F32","shape":[0,9],"data_offsets":[2,2]}} "#,
        10,
    );
    let layout = st(&bytes).unwrap();
    assert_eq!(layout.format, Format::Safetensors);
    assert_eq!(layout.header, bytes.len() as u64 - 10);
    let names: Vec<_> = layout.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "e", "b"]);
    let b = layout.tensors.last().unwrap();
    assert_eq!((b.dtype, &b.shape[..], b.len(), b.elements()), ("F32", &[2, 1][..], 8, 2));
    assert!(layout.tensors[1].is_empty());
    assert_eq!((layout.end(), layout.parameters()), (bytes.len() as u64, 3));
    assert!(st(&file("{}", 0)).unwrap().tensors.is_empty());
    assert!(st(&file(r#"{"__metadata__":null}"#, 0)).is_ok());
    assert!(st(&file(r#"{"a":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]}}"#, 3)).is_ok(), "packed");
}

/// One tensor `a` with these fields, in a file with `data` bytes of data.
fn one(fields: &str, data: usize) -> Vec<u8> {
    file(&format!("{{\"a\":{{{fields}}}}}"), data)
}

#[test]
fn safetensors_with_a_defect_are_refused_by_its_name() {
    let long = format!(r#"{{"{}":{{"dtype":"U8","shape":[],"data_offsets":[0,1]}}}}"#, "n".repeat(513));
    let key = format!(r#"{{"__metadata__":{{"{}":""}}}}"#, "k".repeat(1025));
    let u8s = |at: &str| format!(r#"{{"dtype":"U8","shape":[4],"data_offsets":{at}}}"#);
    let two = |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, u8s(a), u8s(b));
    let cases: &[(&str, &str, Vec<u8>)] = &[
        ("shorter than the length", "truncated", vec![1, 0, 0]),
        ("header beyond the file", "truncated", file("{}", 0)[..9].to_vec()),
        ("length over the limit", "limit", [&100_000_001u64.to_le_bytes()[..], b"{}"].concat()),
        ("length of all ones", "limit", vec![0xff; 64]),
        ("no header", "malformed", file("", 0)),
        ("a list instead of an object", "magic", file("[]", 0)),
        ("a space before the object", "magic", file(" {}", 0)),
        ("the object is not closed", "malformed", file("{", 0)),
        ("text behind the object", "malformed", file("{}x", 0)),
        ("a second object", "malformed", file("{}{}", 0)),
        ("NUL padding", "malformed", file("{}\0\0", 0)),
        ("not UTF-8", "malformed", [&5u64.to_le_bytes()[..], b"{\"\xff\":"].concat()),
        ("a name twice", "duplicate", file(&format!(r#"{{"a":{0},"a":{0}}}"#, u8s("[0,4]")), 4)),
        (
            "a name twice, once escaped",
            "duplicate",
            file(&format!(r#"{{"a":{0},"\u0061":{0}}}"#, u8s("[0,4]")), 4),
        ),
        (
            "a field twice",
            "duplicate",
            one(r#""dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]"#, 1),
        ),
        ("metadata twice", "duplicate", file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0)),
        ("a metadata key twice", "duplicate", file(r#"{"__metadata__":{"a":"","a":""}}"#, 0)),
        ("metadata of a number", "malformed", file(r#"{"__metadata__":{"a":1}}"#, 0)),
        ("metadata nests", "malformed", file(r#"{"__metadata__":{"a":{}}}"#, 0)),
        ("a metadata key too long", "limit", file(&key, 0)),
        ("an unknown field", "malformed", one(r#""dtype":"U8","shape":[],"data_offsets":[0,1],"x":1"#, 1)),
        ("no element type", "malformed", one(r#""shape":[],"data_offsets":[0,1]"#, 1)),
        ("no shape", "malformed", one(r#""dtype":"U8","data_offsets":[0,1]"#, 1)),
        ("no offsets", "malformed", one(r#""dtype":"U8","shape":[]"#, 1)),
        ("one offset", "malformed", one(r#""dtype":"U8","shape":[],"data_offsets":[0]"#, 1)),
        ("three offsets", "limit", one(r#""dtype":"U8","shape":[],"data_offsets":[0,1,2]"#, 1)),
        (
            "a fraction in the shape",
            "malformed",
            one(r#""dtype":"U8","shape":[1.0],"data_offsets":[0,1]"#, 1),
        ),
        ("a negative dimension", "malformed", one(r#""dtype":"U8","shape":[-1],"data_offsets":[0,1]"#, 1)),
        ("a list in the shape", "malformed", one(r#""dtype":"U8","shape":[[1]],"data_offsets":[0,1]"#, 1)),
        (
            "a dimension above u64",
            "malformed",
            one(r#""dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]"#, 1),
        ),
        (
            "a number of 1000 digits",
            "limit",
            one(&format!(r#""dtype":"U8","shape":[{}]"#, "1".repeat(1000)), 1),
        ),
        (
            "17 dimensions",
            "limit",
            one(&format!(r#""dtype":"U8","shape":[1{}],"data_offsets":[0,1]"#, ",1".repeat(16)), 1),
        ),
        ("an unknown element type", "dtype", one(r#""dtype":"Q4_K","shape":[],"data_offsets":[0,1]"#, 1)),
        (
            "a shape that overflows",
            "shape",
            one(r#""dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]"#, 0),
        ),
        ("half a byte", "shape", one(r#""dtype":"F4","shape":[3],"data_offsets":[0,1]"#, 1)),
        ("offsets that go backwards", "shape", one(r#""dtype":"U8","shape":[1],"data_offsets":[1,0]"#, 1)),
        (
            "offsets that overflow",
            "shape",
            one(r#""dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]"#, 1),
        ),
        (
            "a size that is not the shape's",
            "size",
            one(r#""dtype":"U8","shape":[2],"data_offsets":[0,1]"#, 1),
        ),
        ("a tensor beyond the file", "truncated", one(r#""dtype":"U8","shape":[2],"data_offsets":[0,2]"#, 1)),
        ("two tensors in one place", "overlap", file(&two("[0,4]", "[0,4]"), 4)),
        ("two tensors overlap", "overlap", file(&two("[0,4]", "[3,7]"), 7)),
        ("a gap before the first tensor", "gap", file(&two("[1,5]", "[5,9]"), 9)),
        ("a gap between tensors", "gap", file(&two("[0,4]", "[5,9]"), 9)),
        ("bytes behind the last tensor", "gap", file(&two("[0,4]", "[4,8]"), 9)),
        ("bytes without a tensor", "gap", file("{}", 1)),
        ("a name too long", "limit", file(&long, 1)),
    ];
    for (defect, code, bytes) in cases {
        let error = st(bytes).expect_err(defect);
        assert_eq!(error.code(), *code, "{defect}: {error}");
    }
}

#[test]
fn safetensors_with_too_many_tensors_are_refused() {
    let mut json = String::from("{");
    for i in 0..=MAX_TENSORS {
        use std::fmt::Write as _;
        let comma = if i == 0 { "" } else { "," };
        write!(json, r#"{comma}"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#).unwrap();
    }
    json.push('}');
    assert_eq!(st(&file(&json, 0)).unwrap_err().code(), "limit");
}

#[test]
fn gguf_is_laid_out_in_file_order_with_what_people_want_to_see() {
    for version in [2, 3] {
        let bytes = Gguf::new(version, 2, 10)
            .entry("general.name", "Tiny\u{1b}[2J")
            .text("llama.context_length")
            .u32(10)
            .u64(2048)
            .entry("general.architecture", "llama")
            .entry("general.license", &"l".repeat(1000))
            .number("general.file_type", 15)
            .number("general.alignment", 64)
            .entry("tokenizer.chat_template", "{{ messages }}")
            .text("tokenizer.ggml.tokens")
            .u32(9)
            .u32(8)
            .u64(2)
            .text("a")
            .text("")
            .text("tokenizer.ggml.scores")
            .u32(9)
            .u32(6)
            .u64(2)
            .raw(&[0; 8])
            .text("other.flag")
            .u32(7)
            .raw(&[1])
            .tensor("output", &[256, 3], 12, 64)
            .tensor("norm", &[5], 0, 0)
            .data(64, 64 + 3 * 144)
            .0;
        let (layout, metadata) = gg(&bytes).unwrap();
        assert_eq!(metadata.version, version);
        assert_eq!(metadata.architecture.as_deref(), Some("llama"));
        assert_eq!(metadata.name.as_deref(), Some("Tiny [2J"), "no control characters");
        assert_eq!(metadata.license.as_ref().map(String::len), Some(256), "cut off");
        assert_eq!((metadata.file_type, metadata.context_length), (Some(15), Some(2048)));
        assert_eq!((metadata.alignment, metadata.chat_template, metadata.entries), (64, true, 10));
        let shapes: Vec<_> =
            layout.tensors.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.clone(), t.len())).collect();
        assert_eq!(shapes, [("norm", "F32", vec![5], 20), ("output", "Q4_K", vec![3, 256], 432)]);
        assert_eq!(layout.header % 64, 0);
        assert_eq!(layout.end(), bytes.len() as u64);
        // The last tensor may be padded as well.
        assert!(gg(&Gguf(bytes).data(64, 0).0).is_ok());
    }
    let vocabulary = Gguf::new(3, 0, 1).entry("general.name", "v").0;
    assert_eq!(gg(&vocabulary).unwrap().0.header, vocabulary.len() as u64);
}

#[test]
fn gguf_with_a_defect_is_refused_by_its_name() {
    let start = || Gguf::new(3, 0, 1);
    let one = || Gguf::new(3, 1, 0);
    let two = || Gguf::new(3, 2, 0);
    let key = || start().text("k");
    let cases: Vec<(&str, &str, Gguf)> = vec![
        ("empty", "truncated", Gguf(vec![])),
        ("another magic", "magic", Gguf(b"GGJT\x03\0\0\0".to_vec())),
        ("version 1", "version", Gguf::new(1, 0, 0)),
        ("version 0", "version", Gguf::new(0, 0, 0)),
        ("version 4", "version", Gguf::new(4, 0, 0)),
        ("big-endian", "big-endian", Gguf::new(3 << 24, 0, 0)),
        ("too many tensors", "limit", Gguf::new(3, MAX_TENSORS + 1, 0)),
        ("a negative number of tensors", "limit", Gguf::new(3, u64::MAX, 0)),
        ("too many entries", "limit", Gguf::new(3, 0, gguf::MAX_ENTRIES + 1)),
        ("entries are missing", "truncated", start()),
        ("tensors are missing", "truncated", one()),
        ("a key too long", "limit", start().text(&"k".repeat(1025))),
        ("a key of endless length", "limit", start().u64(u64::MAX)),
        ("a key that is not UTF-8", "malformed", start().u64(1).raw(&[0xff]).u32(4).u32(0)),
        ("a key twice", "duplicate", Gguf::new(3, 0, 2).number("k", 1).number("k", 1)),
        ("an unknown value type", "value-type", key().u32(13)),
        ("an array of an unknown type", "value-type", key().u32(9).u32(13).u64(1).u64(1)),
        ("an array of arrays", "value-type", key().u32(9).u32(9).u64(1).u32(0).u64(0)),
        ("an array of endless length", "limit", key().u32(9).u32(0).u64(u64::MAX)),
        ("an array beyond the file", "truncated", key().u32(9).u32(12).u64(1 << 20)),
        ("texts beyond the file", "truncated", key().u32(9).u32(8).u64(1 << 20).text("a")),
        ("a text beyond the file", "truncated", key().u32(8).u64(100)),
        ("a text of endless length", "truncated", key().u32(8).u64(u64::MAX)),
        ("a shown text of endless length", "truncated", start().text("general.name").u32(8).u64(u64::MAX)),
        ("a value beyond the file", "truncated", key().u32(10).u32(1)),
        ("alignment 0", "alignment", start().number("general.alignment", 0)),
        ("alignment 48", "alignment", start().number("general.alignment", 48)),
        ("alignment 4", "alignment", start().number("general.alignment", 4)),
        ("alignment 1 MiB", "alignment", start().number("general.alignment", 1 << 20)),
        ("alignment as text", "value-type", start().entry("general.alignment", "32")),
        ("a name too long", "limit", one().tensor(&"n".repeat(513), &[1], 0, 0)),
        ("five dimensions", "limit", one().tensor("t", &[1; 5], 0, 0)),
        ("endless dimensions", "limit", one().text("t").u32(u32::MAX)),
        ("a removed element type", "dtype", one().tensor("t", &[32], 4, 0).data(32, 32)),
        ("an unknown element type", "dtype", one().tensor("t", &[32], 9999, 0).data(32, 32)),
        ("a row that is no whole block", "shape", one().tensor("t", &[33], 2, 0).data(32, 32)),
        ("a shape that overflows", "shape", one().tensor("t", &[1 << 32, 1 << 32], 0, 0)),
        ("a size that overflows", "shape", one().tensor("t", &[1 << 62], 0, 0)),
        ("an offset that overflows", "shape", one().tensor("t", &[8], 0, u64::MAX - 31)),
        ("an offset off the alignment", "malformed", one().tensor("t", &[8], 0, 8).data(32, 40)),
        ("a tensor beyond the file", "truncated", one().tensor("t", &[8], 0, 0).data(32, 31)),
        ("the padding before the data is missing", "truncated", one().tensor("t", &[8], 0, 0)),
        ("a name twice", "duplicate", two().tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32).data(32, 64)),
        (
            "two tensors in one place",
            "overlap",
            two().tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 0).data(32, 32),
        ),
        (
            "two tensors overlap",
            "overlap",
            two().tensor("a", &[16], 0, 0).tensor("b", &[8], 0, 32).data(32, 64),
        ),
        ("a gap before the first tensor", "gap", one().tensor("t", &[8], 0, 32).data(32, 64)),
        ("a gap between tensors", "gap", two().tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 64).data(32, 96)),
        ("bytes behind the last tensor", "gap", one().tensor("t", &[8], 0, 0).data(32, 33)),
    ];
    for (defect, code, bytes) in cases {
        let error = gg(&bytes.0).expect_err(defect);
        assert_eq!(error.code(), code, "{defect}: {error}");
    }
}

#[test]
fn every_prefix_and_many_mutations_end_in_an_answer() {
    let st_file = safetensors_of(&[("a", &[1; 40]), ("b", &[2; 9])], 3);
    let gg_file = Gguf::new(3, 1, 2)
        .entry("general.name", "x")
        .text("l")
        .u32(9)
        .u32(8)
        .u64(1)
        .text("t")
        .tensor("t", &[8], 0, 0)
        .data(32, 32)
        .0;
    for n in 0..st_file.len() {
        assert!(st(&st_file[..n]).is_err());
    }
    for n in 0..gg_file.len() {
        assert!(gg(&gg_file[..n]).is_err());
    }
    let mut random = Random(1);
    for _ in 0..20_000 {
        let mut changed = [st_file.clone(), gg_file.clone()];
        for bytes in &mut changed {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
        }
        for layout in st(&changed[0]).into_iter().chain(gg(&changed[1]).map(|(layout, _)| layout)) {
            let size = changed[usize::from(layout.format == Format::Gguf)].len() as u64;
            assert!(
                layout.tensors.iter().all(|t| t.start <= t.end && t.end <= size && t.start >= layout.header)
            );
            assert!(layout.tensors.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}

#[test]
fn names_and_contents_tell_what_may_run_code() {
    use Kind::*;
    let st_file = safetensors_of(&[("a", &[1; 40])], 0);
    let zip = [&b"PK\x03\x04\x00\x00"[..], b"archive/data.pkl"].concat();
    let objects = b"\x93NUMPY\x01\0\x3c\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }     ";
    let fields = b"\x93NUMPY\x02\0\x25\0\0\0{'descr': [('a', '<f4'), ('b', 'O8')],}...";
    let numbers = b"\x93NUMPY\x01\0\x3c\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }    ";
    let endless = b"\x93NUMPY\x01\0\xff\xff{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }  ";
    let cases: &[(&str, &[u8], Kind)] = &[
        ("model.safetensors", &st_file, Safetensors),
        ("m/model.SafeTensors", &st_file, Safetensors),
        ("model.sft", &st_file, Safetensors),
        ("weights", &st_file, Safetensors),
        ("config.json", &st_file, Unknown),
        ("pytorch_model.bin", &st_file, Pickle),
        ("model.safetensors", b"\x80\x02}q\x00.", Pickle),
        ("model.safetensors", &zip, Pickle),
        ("model.safetensors", b"", Unknown),
        ("model.safetensors", b"GGUF\x03\0\0\0", Unknown),
        ("model.gguf", b"GGUF\x03\0\0\0", Gguf),
        ("model.gguf", b"\x80\x04\x95", Pickle),
        ("config.json", b" {\"a\": 1}", Json),
        ("config.json", b"\x80\x04\x95", Pickle),
        ("config.json", b"\x7fELF\x02", Executable),
        ("config.json", b"hello", Unknown),
        ("config.json", b"<html>", Markup),
        ("config.json", b"", Unknown),
        ("README.md", "# Modèle".as_bytes(), Text),
        ("README.md", b"\0\0", Unknown),
        ("README.md", b"  <!DOCTYPE HTML>", Markup),
        ("LICENSE", b"Apache", Text),
        ("LICENSE-MIT", b"MIT", Text),
        ("tokenizer.model.v3", b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0", SentencePiece),
        ("USE_POLICY.md", b"Be good", Text),
        (".gitattributes", b"*.bin lfs", Text),
        ("config.yaml", b"a: 1", Text),
        ("config.yaml", b"a: !!python/object/apply:os.system", Script),
        ("run.txt", b"#!/bin/sh", Script),
        ("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0", SentencePiece),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n", Text),
        ("tokenizer.model", b"\x80\x03}", Pickle),
        ("logo.png", b"\x89PNG\r\n", Image),
        ("logo.png", b"\xff\xd8\xff\xe0", Image),
        ("logo.png", b"MZ\x90", Executable),
        ("logo.svg", b"<svg/>", Markup),
        ("a.npy", numbers, Numpy),
        ("a.npy", objects, NumpyObjects),
        ("a.npy", fields, NumpyObjects),
        ("a.npy", endless, Unknown),
        ("a.npy", b"\x93NUMPY", Unknown),
        ("a.npz", b"PK\x03\x04rest", Archive),
        ("a.h5", b"\x89HDF\r\n", Hdf5),
        ("weights", b"\x89HDF\r\n", Hdf5),
        ("modeling.py", b"import os", Script),
        ("lib.so", b"", Executable),
        ("saved_model.pb", b"\x08\x01", Graph),
        ("model.onnx", b"\x08\x07", Unknown),
        ("weights", b"(dp0\nS'a'\n", Unknown),
    ];
    for (name, head, kind) in cases {
        assert_eq!(detect(name, head), *kind, "{name} {:?}", head.escape_ascii().to_string());
        assert_eq!(kind.objection().is_none(), kind.safety() == Safety::Safe);
    }
}

#[test]
fn a_renamed_file_is_caught_by_inspection() {
    let look = |name: &str, bytes: &[u8]| inspect(name, Cursor::new(bytes), bytes.len() as u64);
    assert_eq!(look("m.safetensors", b"\x80\x04\x95").unwrap().kind, Kind::Pickle);
    assert_eq!(look("m.safetensors", b"some text that is no header").unwrap_err().code(), "limit");
    assert_eq!(look("m.gguf", b"some text").unwrap_err().code(), "magic");
    assert_eq!(look("m.gguf", b"").unwrap_err().code(), "truncated");
    let bytes = safetensors_of(&[("a", &[1; 40])], 0);
    assert_eq!(look("m.safetensors", &bytes).unwrap().layout.unwrap().tensors.len(), 1);
    assert_eq!(look("m.safetensors", &bytes[..60]).unwrap_err().code(), "truncated");
}
