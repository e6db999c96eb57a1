//! An issuer's public keys: found by its discovery document, kept for minutes, fetched again when a token names one that is not among them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as Waiting;

use super::{OidcError, is_safe};
use crate::fetch_http::Client;

/// Largest discovery document: real ones have some KiB.
const MAX_DISCOVERY: usize = 256 * 1024;
/// Largest set of keys, and most keys in it: issuers have two or three, with certificates some KiB each.
const MAX_SET: usize = 256 * 1024;
const MAX_KEYS: usize = 64;
/// An issuer answers within this, both documents together, or nobody signs in now.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys are believed so long: one that an issuer took back is good here no longer.
const FRESH: Duration = Duration::from_secs(600);
/// They are asked for again no sooner, whatever tokens are shown; nor after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// What an issuer says about itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    pub(super) authorization_endpoint: String,
    #[serde(default)]
    pub(super) token_endpoint: String,
}

/// Asks an issuer what it says about itself.
pub(super) async fn discover(client: &Client, issuer: &str) -> Result<Discovery, OidcError> {
    let wrong = |why: String| OidcError::Issuer { issuer: issuer.to_owned(), why };
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found: Discovery = serde_json::from_slice(&fetch(client, issuer, &url, MAX_DISCOVERY).await?)
        .map_err(|error| wrong(format!("its discovery document is not understood: {error}")))?;
    if found.issuer != issuer {
        let called: String = found.issuer.chars().take(200).collect();
        return Err(wrong(format!("it calls itself {called}; the setting must say the same")));
    }
    if !is_safe(&found.jwks_uri) {
        return Err(wrong("it keeps its keys where others could change them on the way".to_owned()));
    }
    Ok(found)
}

async fn fetch(client: &Client, issuer: &str, url: &str, limit: usize) -> Result<Vec<u8>, OidcError> {
    let failed = |error| OidcError::from((issuer, error));
    let answer = client.get(url, &[]).await.map_err(failed)?.good().await.map_err(failed)?;
    Ok(answer.bytes(limit).await.map_err(failed)?.to_vec())
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

async fn fetch_keys(issuer: &str) -> Result<Vec<Jwk>, OidcError> {
    let client = Client::new().map_err(|error| OidcError::from((issuer, error)))?;
    let jwks_uri = discover(&client, issuer).await?.jwks_uri;
    let wrong = |why: String| OidcError::Issuer { issuer: issuer.to_owned(), why };
    let set: Set = serde_json::from_slice(&fetch(&client, issuer, &jwks_uri, MAX_SET).await?)
        .map_err(|error| wrong(format!("its keys are not understood: {error}")))?;
    if set.keys.len() > MAX_KEYS {
        return Err(wrong(format!("it has {} keys; {MAX_KEYS} are the limit", set.keys.len())));
    }
    // Keys of kinds that are not known here are nobody's business here.
    Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
}

/// Whether a key may have signed by an algorithm: its kind fits, and what it says of itself.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256) => true,
        (AlgorithmParameters::EllipticCurve(it), Algorithm::ES256) => it.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(it), Algorithm::EdDSA) => it.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let named = key.common.key_algorithm.is_none_or(|named| format!("{named:?}") == format!("{algorithm:?}"));
    let signs = key.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    kind && named && signs
}

/// The one key that a token names; without a name, the only one that fits.
fn pick<'a>(keys: &'a [Jwk], algorithm: Algorithm, kid: Option<&str>) -> Option<&'a Jwk> {
    let mut found = keys
        .iter()
        .filter(|key| fits(key, algorithm))
        .filter(|key| kid.is_none() || key.common.key_id.as_deref() == kid);
    match (found.next(), found.next()) {
        (Some(key), None) => Some(key),
        _ => None,
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    known: Mutex<Option<(Instant, Vec<Jwk>)>>,
    /// The last failure. Held while the issuer is asked: those who wait for it get one answer, and whoever shows a key that is known
    /// waits for nobody.
    asking: Waiting<Option<(Instant, OidcError)>>,
}

impl Keys {
    pub(super) fn new(issuer: &str) -> Self {
        Self { issuer: issuer.to_owned(), known: Mutex::default(), asking: Waiting::default() }
    }

    /// The key that is known, and how old what is known is.
    fn look(&self, algorithm: Algorithm, kid: Option<&str>) -> (Option<Jwk>, Option<Duration>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, keys)) = known.as_ref() else { return (None, None) };
        let age = at.elapsed();
        let key = if age < FRESH { pick(keys, algorithm, kid).cloned() } else { None };
        (key, Some(age))
    }

    /// The key for a token.
    pub(super) async fn key(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<DecodingKey, OidcError> {
        let (mut key, _) = self.look(algorithm, kid);
        if key.is_none() {
            let mut failed = self.asking.lock().await;
            // Somebody may have asked meanwhile.
            let (found, age) = self.look(algorithm, kid);
            key = found;
            if key.is_none() && age.is_none_or(|age| age >= AGAIN) {
                self.renew(&mut failed).await?;
                key = self.look(algorithm, kid).0;
            }
        }
        let named: String = kid.unwrap_or("without a name").chars().take(80).collect();
        let key = key.ok_or(OidcError::NoKey(named))?;
        DecodingKey::from_jwk(&key).map_err(|error| OidcError::Issuer {
            issuer: self.issuer.clone(),
            why: format!("its key is not one: {error}"),
        })
    }

    async fn renew(&self, failed: &mut Option<(Instant, OidcError)>) -> Result<(), OidcError> {
        if let Some((at, error)) = failed
            && at.elapsed() < AGAIN
        {
            return Err(error.clone());
        }
        let fetched = match tokio::time::timeout(PATIENCE, fetch_keys(&self.issuer)).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let why = format!("nothing came within {} s", PATIENCE.as_secs());
                Err(OidcError::Issuer { issuer: self.issuer.clone(), why })
            }
        };
        match fetched {
            Ok(keys) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), keys));
                *failed = None;
                Ok(())
            }
            Err(error) => {
                tracing::warn!("{error}");
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn keys(all: Value) -> Vec<Jwk> {
        all.as_array().unwrap().iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).collect()
    }

    #[test]
    fn a_key_serves_for_what_it_is_made_for_alone() {
        let keys = keys(json!([
            { "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" },
            { "kty": "RSA", "kid": "e", "use": "enc", "n": "AQAB", "e": "AQAB" },
            { "kty": "RSA", "kid": "p", "alg": "PS256", "n": "AQAB", "e": "AQAB" },
            { "kty": "EC", "kid": "3", "crv": "P-384", "x": "AQAB", "y": "AQAB" },
            { "kty": "EC", "kid": "2", "crv": "P-256", "use": "sig", "alg": "ES256", "x": "AQAB", "y": "AQAB" },
            { "kty": "OKP", "kid": "o", "crv": "Ed25519", "x": "AQAB" },
            { "kty": "oct", "kid": "s", "k": "c2VjcmV0" },
            { "kty": "odd", "kid": "x" },
        ]));
        let of = |algorithm, kid| pick(&keys, algorithm, kid).and_then(|key| key.common.key_id.clone());
        assert_eq!(of(Algorithm::RS256, Some("r")).as_deref(), Some("r"));
        assert_eq!(of(Algorithm::RS256, None).as_deref(), Some("r"));
        assert_eq!(of(Algorithm::ES256, Some("2")).as_deref(), Some("2"));
        assert_eq!(of(Algorithm::EdDSA, None).as_deref(), Some("o"));
        for (algorithm, kid) in [
            (Algorithm::RS256, "e"),
            (Algorithm::RS256, "p"),
            (Algorithm::RS256, "2"),
            (Algorithm::ES256, "3"),
            (Algorithm::ES256, "r"),
            (Algorithm::HS256, "s"),
            (Algorithm::RS256, "s"),
            (Algorithm::EdDSA, "x"),
        ] {
            assert_eq!(of(algorithm, Some(kid)), None, "{algorithm:?} {kid}");
        }
    }
}
