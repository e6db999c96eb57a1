//! Splitting elements of 2, 4 or 8 bytes into planes of bytes, and joining them again.
//!
//! Each element is taken as a little-endian word and rotated left by one bit, so that the sign leaves the exponent's
//! byte and becomes the lowest bit of the first plane, which is noise anyway. For BF16 and F32 the last plane is then
//! the exponent and nothing else.
//!
//! The loops are written so that the compiler turns them into vector instructions: all slices are cut to one length
//! before, so that no bound is checked within.

macro_rules! planes {
    ($split:ident, $join:ident, $word:ty, $width:literal, $($plane:ident $at:literal),+) => {
        /// Splits the whole words of `source` into planes, the least significant byte first.
        pub(super) fn $split(source: &[u8], planes: [&mut [u8]; $width]) {
            let words = source.as_chunks::<$width>().0;
            let [$($plane),+] = planes;
            let count = words.len()$(.min($plane.len()))+;
            let words = &words[..count];
            $(let $plane = &mut $plane[..count];)+
            for i in 0..count {
                let bytes = <$word>::from_le_bytes(words[i]).rotate_left(1).to_le_bytes();
                $($plane[i] = bytes[$at];)+
            }
        }

        /// The reverse: fills the whole words of `target` from planes.
        pub(super) fn $join(planes: [&[u8]; $width], target: &mut [u8]) {
            let words = target.as_chunks_mut::<$width>().0;
            let [$($plane),+] = planes;
            let count = words.len()$(.min($plane.len()))+;
            let words = &mut words[..count];
            $(let $plane = &$plane[..count];)+
            for i in 0..count {
                words[i] = <$word>::from_le_bytes([$($plane[i]),+]).rotate_right(1).to_le_bytes();
            }
        }
    };
}

planes!(split2, join2, u16, 2, a 0, b 1);
planes!(split4, join4, u32, 4, a 0, b 1, c 2, d 3);
planes!(split8, join8, u64, 8, a 0, b 1, c 2, d 3, e 4, f 5, g 6, h 7);

/// Cuts `bytes` into `N` parts of `len` bytes. The caller made it that long; where it is not, the parts are empty.
pub(super) fn parts_mut<const N: usize>(bytes: &mut [u8], len: usize) -> [&mut [u8]; N] {
    let mut rest = bytes.chunks_exact_mut(len.max(1));
    std::array::from_fn(|_| rest.next().unwrap_or_default())
}
