//! People who sign in at an issuer of OpenID Connect: their ID token is exchanged for a token of this node.
//!
//! ```text
//! steelyard login ── asks the node ──> issuer, client, a nonce that the node made
//!       │        ── authorization code with PKCE, by the person's browser ──> issuer
//!       └──────── the ID token ──> the node: signature, issuer, audience, times, nonce, groups -> a token of some hours
//! ```
//!
//! The node keeps no secret of the issuer and asks it for nothing but its public keys. A nonce is good once and for some minutes,
//! so that an ID token that somebody found opens nothing here.

mod claims;
mod keys;
pub mod login;
mod nonce;

use hyper::Uri;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, decode_header};
use registry::Timestamp;

use self::keys::Keys;
use self::nonce::Nonces;
use crate::config::Oidc;
use crate::fetch_http::{FetchError, is_loopback};
use crate::tokens::Scope;

/// Longest ID token: one with a thousand groups.
pub const MAX_ID_TOKEN: usize = 64 * 1024;
/// The algorithms that are believed. No other is, whatever an issuer says; `none` and all with shared secrets least of all.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Why somebody can't sign in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OidcError {
    /// The issuer does not answer, or with something else.
    #[error("the issuer {issuer} can't be asked for its keys: {why}")]
    Issuer {
        /// Which.
        issuer: String,
        /// What is wrong.
        why: String,
    },
    /// Not a token at all.
    #[error("this is no ID token: {0}")]
    Malformed(String),
    /// Another algorithm.
    #[error("an ID token is signed by RS256, ES256 or EdDSA; this one is not")]
    Algorithm,
    /// No such key.
    #[error(
        "the issuer has no key `{0}` for this ID token; if it changed its keys just now, try again in a moment"
    )]
    NoKey(String),
    /// The signature or a claim is wrong.
    #[error("the ID token is refused: {0}")]
    Refused(String),
    /// The nonce is not one of ours, too old, or was shown before.
    #[error(
        "the ID token is not for this attempt to sign in: its nonce is unknown, used or too old; run `steelyard login` again"
    )]
    Nonce,
    /// In no group that may do anything.
    #[error("{name} is in none of the groups that this node's operator lets in")]
    NoGroup {
        /// Who.
        name: String,
    },
}

/// Somebody who was vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The issuer's identifier of the person, which never changes.
    pub subject: String,
    /// What people call that one.
    pub name: String,
    /// What the person's groups may do.
    pub scope: Scope,
}

/// Whom this node lets sign in.
#[derive(Debug)]
pub struct People {
    settings: Oidc,
    keys: Keys,
    nonces: Nonces,
}

impl People {
    /// By these settings, if an issuer is named.
    pub fn new(settings: &Oidc) -> Option<Self> {
        settings.enabled().then(|| Self {
            settings: settings.clone(),
            keys: Keys::new(&settings.issuer),
            nonces: Nonces::default(),
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Oidc {
        &self.settings
    }

    /// A nonce for one attempt. Nothing is kept of it.
    pub fn nonce(&self, now: Timestamp) -> Result<String, getrandom::Error> {
        self.nonces.make(now)
    }

    /// Who shows this ID token. Its nonce is used up when everything else is right.
    pub async fn recognise(&self, id_token: &str, now: Timestamp) -> Result<Person, OidcError> {
        if id_token.len() > MAX_ID_TOKEN {
            return Err(OidcError::Malformed(format!("it is over {MAX_ID_TOKEN} bytes")));
        }
        // An algorithm that the library does not know is no header to it.
        let header = decode_header(id_token).map_err(|error| match error.kind() {
            ErrorKind::Json(_) | ErrorKind::MissingAlgorithm | ErrorKind::InvalidAlgorithmName => {
                OidcError::Algorithm
            }
            _ => OidcError::Malformed(error.to_string()),
        })?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(OidcError::Algorithm);
        }
        let key = self.keys.key(header.alg, header.kid.as_deref()).await?;
        let claims = claims::verify(id_token, header.alg, &key, &self.settings, now)?;
        let person = claims.person(&self.settings)?;
        let nonce = claims.nonce.as_deref().ok_or(OidcError::Nonce)?;
        if self.nonces.take(nonce, now) { Ok(person) } else { Err(OidcError::Nonce) }
    }
}

/// Whether what is said there stays between the two: https, or this machine.
pub(crate) fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let plain = uri.scheme_str() == Some("http") && is_loopback(authority.host());
    !authority.as_str().contains('@') && (plain || uri.scheme_str() == Some("https"))
}

impl From<(&str, FetchError)> for OidcError {
    fn from((issuer, error): (&str, FetchError)) -> Self {
        Self::Issuer { issuer: issuer.to_owned(), why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_read_is_not_asked() {
        for good in [
            "https://id.alba.example/realms/x",
            "http://127.0.0.1:80",
            "http://localhost:1/x",
            "http://[::1]:2",
        ] {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "http://id.alba.example",
            "ftp://127.0.0.1",
            "id.alba.example",
            "/x",
            "https://a:b@id.example",
            "",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
