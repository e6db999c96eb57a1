//! Against the reference implementation: a header that is accepted here is accepted there, with the same tensors.
//! Run it on the corpus of `safetensors`.
#![no_main]

use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(layout) = registry::format::safetensors::read(Cursor::new(data), data.len() as u64) else {
        return;
    };
    let reference =
        safetensors::SafeTensors::deserialize(data).expect("the reference implementation refuses this");
    assert_eq!(reference.len(), layout.tensors.len());
    for tensor in &layout.tensors {
        let theirs = reference.tensor(&tensor.name).expect("the reference implementation lacks a tensor");
        let shape: Vec<u64> = theirs.shape().iter().map(|&n| n as u64).collect();
        assert_eq!(shape, tensor.shape);
        assert_eq!(theirs.data(), &data[tensor.start as usize..tensor.end as usize]);
    }
});
