//! Document 07: the wire codec.

use crate::Digest;
use crate::codec::{CodecError, Decoder, Encoding};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, number};

pub(super) const KINDS: &[(&str, Runner)] = &[("encoded-chunk", encoded_chunk)];

fn encoded_chunk(input: &Value) -> Outcome {
    let code = |error: CodecError| error.code().to_owned();
    let encoding =
        Encoding::try_from(u8::try_from(number(&input["encoding"])?).map_err(broken)?).map_err(code)?;
    let length = super::size(&input["length"])?;
    if length > super::MAX_BYTES {
        return Err(broken("too many bytes"));
    }
    let mut chunk = vec![0; length];
    Decoder::new().decode(encoding, &bytes(input, "bytes")?, &mut chunk).map_err(code)?;
    Ok(json!({ "blake3": Digest::of(&chunk).to_string() }))
}
