//! What of an answer a receipt is about.

/// How the event of a streamed answer begins that carries the receipt.
pub const EVENT: &str = "data: {\"steelyard_receipt\":";

/// The bytes that a response's digest is of: all of them, or, of a stream with a receipt in it, those before the event that
/// carries it. That event is the last but one; an answer can't contain one itself, because its text is JSON in which quotes
/// are escaped.
pub fn answered(body: &[u8]) -> &[u8] {
    let event = EVENT.as_bytes();
    let begins_line = |at: usize| at == 0 || body.get(at - 1) == Some(&b'\n');
    let at = (0..body.len()).rev().find(|at| begins_line(*at) && body[*at..].starts_with(event));
    at.and_then(|at| body.get(..at)).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_before_its_receipt_and_anything_else_is_whole() {
        assert_eq!(answered(b"{\"id\":1}"), b"{\"id\":1}");
        assert_eq!(answered(b""), b"");
        let stream = b"data: {\"a\":1}\n\ndata: {\"steelyard_receipt\":{}}\n\ndata: [DONE]\n\n";
        assert_eq!(answered(stream), b"data: {\"a\":1}\n\n");
        let quoted = b"data: {\"a\":\"data: {\\\"steelyard_receipt\\\":\"}\n\n";
        assert_eq!(answered(quoted), quoted);
        assert_eq!(answered(b"xdata: {\"steelyard_receipt\":"), b"xdata: {\"steelyard_receipt\":");
    }
}
