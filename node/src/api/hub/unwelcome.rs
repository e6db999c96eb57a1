//! Who shows a token, at every interface that takes one: `Authorization: Bearer TOKEN`, as the hub's clients send it, or `Basic`
//! with the token for a password and any name, as container tools do.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::HeaderValue;
use data_encoding::BASE64;
use registry::Timestamp;

use super::Hub;
use super::rate::{WRONG_TOKEN, Who};
use crate::tokens::Bearer;

/// Why nobody is answered who asks so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unwelcome {
    /// Too many requests; again in so many seconds.
    TooMany(u64),
    /// What was shown is no token that is good.
    BadToken,
}

impl Hub {
    /// Counts a request from `address`, where it is known, and says whose token `shown` is. A wrong one costs more, so that
    /// guessing is slow.
    pub(in super::super) fn recognise(
        &self,
        address: Option<IpAddr>,
        shown: Option<&HeaderValue>,
    ) -> Result<Option<Bearer>, Unwelcome> {
        let now = Instant::now();
        let count = |who, cost| self.rates.take(who, cost, now).map_err(Unwelcome::TooMany);
        if let Some(address) = address {
            count(Who::at(address), 1.0)?;
        }
        let Some(shown) = shown else { return Ok(None) };
        let bearer = token(shown).and_then(|token| self.tokens.bearer(&token, Timestamp::now()));
        let Some(bearer) = bearer else {
            if let Some(address) = address {
                count(Who::at(address), WRONG_TOKEN)?;
            }
            return Err(Unwelcome::BadToken);
        };
        count(Who::Token(bearer.id.clone()), 1.0)?;
        Ok(Some(bearer))
    }

    /// Counts a request that guessed.
    pub(in super::super) fn guessed(&self, address: IpAddr) {
        // The answer to this one is the refusal anyway.
        let _ = self.rates.take(Who::at(address), WRONG_TOKEN, Instant::now());
    }
}

fn token(shown: &HeaderValue) -> Option<String> {
    let (scheme, rest) = shown.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest.as_bytes()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_both_kinds_of_clients_send_them() {
        let of = |text: &'static str| token(&HeaderValue::from_static(text));
        assert_eq!(of("Bearer hf_x").as_deref(), Some("hf_x"));
        assert_eq!(of("bearer  hf_x ").as_deref(), Some("hf_x"));
        // `steelyard:hf_x` and `:a:b`.
        assert_eq!(of("Basic c3RlZWx5YXJkOmhmX3g=").as_deref(), Some("hf_x"));
        assert_eq!(of("basic OmE6Yg==").as_deref(), Some("a:b"));
        for wrong in ["", "hf_x", "Digest hf_x", "Basic hf_x", "Basic aGZfeA==", "Basic /w=="] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
