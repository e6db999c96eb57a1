//! Document 07: the wire codec.

use registry::Digest;
use registry::codec::{CodecError, Decoder, Encoding};
use serde_json::{Value, json};

use crate::vectors::{Outcome, Runner, bytes, number};

pub(crate) const KINDS: &[(&str, Runner)] = &[("encoded-chunk", encoded_chunk)];

fn encoded_chunk(input: &Value) -> Outcome {
    let code = |error: CodecError| error.code().to_owned();
    let encoding = Encoding::try_from(u8::try_from(number(&input["encoding"])).unwrap()).map_err(code)?;
    let mut chunk = vec![0; usize::try_from(number(&input["length"])).unwrap()];
    Decoder::new().decode(encoding, &bytes(input, "bytes"), &mut chunk).map_err(code)?;
    Ok(json!({ "blake3": Digest::of(&chunk).to_string() }))
}
