//! Permissions that travel through a client: where to put a file, and who speaks with the Xet routes. The clients show no
//! token there, so that what they show instead says what it is for, until when and by whose token, sealed by this process.

use axum::extract::Request;
use registry::Timestamp;

use super::super::super::Api;
use super::super::super::server::Client;
use super::super::rate::Who;
use super::super::refusal::Refusal;
use crate::tokens::Scope;

/// Separates the parts of what is sealed: no identifier and no number has it.
const DOT: char = '.';

/// Makes seals and knows its own.
pub(super) struct Seals([u8; 32]);

impl std::fmt::Debug for Seals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seals")
    }
}

impl Seals {
    /// A key of this process: what was sealed before a restart is asked for again.
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        // Without random numbers nothing that was sealed is ever believed.
        let fine = getrandom::fill(&mut key).is_ok();
        if !fine {
            tracing::error!("the system gives no random numbers: nothing can be pushed");
        }
        Self(key)
    }

    fn seal(&self, what: &str, by: &str, until: i64) -> blake3::Hash {
        blake3::keyed_hash(&self.0, format!("{what}\n{by}\n{until}").as_bytes())
    }

    /// The permission for `what` by the token `by`, for so many seconds.
    pub(super) fn make(&self, what: &str, by: &str, seconds: i64, now: Timestamp) -> (String, i64) {
        let until = now.plus(seconds).unix();
        (format!("{by}{DOT}{until}{DOT}{}", self.seal(what, by, until)), until)
    }

    /// By whom, when `shown` permits `what` now.
    fn check<'a>(&self, what: &str, shown: &'a str, now: Timestamp) -> Option<&'a str> {
        let (rest, seal) = shown.rsplit_once(DOT)?;
        let (by, until) = rest.rsplit_once(DOT)?;
        let until: i64 = until.parse().ok()?;
        let seal = blake3::Hash::from_hex(seal).ok()?;
        // Compared in constant time.
        let real = self.0 != [0; 32] && self.seal(what, by, until) == seal;
        (real && now.unix() < until).then_some(by)
    }
}

/// Counts a request against its address, where a client shows no token that it could be counted against.
pub(super) fn count(api: &Api, request: &Request, cost: f64) -> Result<(), Refusal> {
    let Some(client) = request.extensions().get::<Client>() else { return Ok(()) };
    let rates = &api.hub().rates;
    rates.take(Who::at(client.address), cost, std::time::Instant::now()).map_err(Refusal::TooMany)
}

/// Whether `shown` permits `what`, and the token behind it is still good.
pub(super) fn permitted(api: &Api, what: &str, shown: &str) -> Result<(), Refusal> {
    let now = Timestamp::now();
    let by = api.hub().push.seals.check(what, shown, now);
    let scope = by.and_then(|by| api.hub().tokens.scope_of(by, now));
    match scope {
        Some(Scope::Stage | Scope::Admin) => Ok(()),
        _ => Err(Refusal::BadToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_for_one_thing_and_ends() {
        let (seals, now) = (Seals::new(), Timestamp::from_unix(1000));
        let (shown, until) = seals.make("put x", "abc", 60, now);
        assert_eq!((seals.check("put x", &shown, now), until), (Some("abc"), 1060));
        assert_eq!(seals.check("put y", &shown, now), None);
        assert_eq!(seals.check("put x", &shown, Timestamp::from_unix(1060)), None);
        assert_eq!(seals.check("put x", &shown.replace("1060", "9060"), now), None);
        assert_eq!(seals.check("put x", &shown.replace("abc", "abd"), now), None);
        assert_eq!(Seals::new().check("put x", &shown, now), None);
        for wrong in ["", ".", "..", "a.b.c", "abc.1060.", &"x".repeat(100)] {
            assert_eq!(seals.check("put x", wrong, now), None, "{wrong}");
        }
    }
}
