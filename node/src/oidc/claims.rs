//! What an ID token says, and whether it says it to this node.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use registry::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{OidcError, Person};
use crate::config::Oidc;
use crate::tokens::MAX_SUBJECT;

/// Clocks may differ by so many seconds.
const LEEWAY: u64 = 60;
/// Most groups of one person that are looked at.
const MAX_GROUPS: usize = 4096;
/// Longest name of a person that is kept, in characters.
const MAX_NAME: usize = 40;

/// The claims that are looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: String,
    aud: Audience,
    iat: f64,
    pub(super) nonce: Option<String>,
    azp: Option<String>,
    preferred_username: Option<String>,
    email: Option<String>,
    name: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    Several(Vec<String>),
    /// One, which [`Validation`] looks at.
    One(IgnoredAny),
}

/// Checks signature, issuer, audience and times, as OpenID Connect Core 1.0 section 3.1.3.7 says.
pub(super) fn verify(
    id_token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
    settings: &Oidc,
    now: Timestamp,
) -> Result<Claims, OidcError> {
    let mut wanted = Validation::new(algorithm);
    wanted.leeway = LEEWAY;
    wanted.validate_nbf = true;
    wanted.set_issuer(&[&settings.issuer]);
    wanted.set_audience(&[settings.audience()]);
    wanted.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims =
        decode::<Claims>(id_token, key, &wanted).map_err(|error| OidcError::Refused(words(&error)))?.claims;
    let refused = |why: &str| Err(OidcError::Refused(why.to_owned()));
    // Of several audiences the others could use it too, unless it says whom it was made for.
    let several = matches!(&claims.aud, Audience::Several(all) if all.len() > 1);
    if claims.azp.as_ref().map_or(several, |azp| *azp != settings.client_id) {
        return refused("it was made for another client");
    }
    if claims.iat > (now.unix() + LEEWAY as i64) as f64 {
        return refused("it was made at a time that is yet to come");
    }
    if claims.sub.is_empty() || claims.sub.len() > MAX_SUBJECT || claims.sub.chars().any(char::is_control) {
        return refused("it names nobody");
    }
    Ok(claims)
}

fn words(error: &jsonwebtoken::errors::Error) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not good yet".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::InvalidIssuer => "it is of another issuer".to_owned(),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

impl Claims {
    /// Who it is, if one of that person's groups may do something here.
    pub(super) fn person(&self, settings: &Oidc) -> Result<Person, OidcError> {
        let names = [&self.preferred_username, &self.email, &self.name];
        let name = names.into_iter().flatten().find_map(|name| plain(name)).or_else(|| plain(&self.sub));
        let name = name.unwrap_or_else(|| "somebody".to_owned());
        let scope = self.groups(&settings.groups_claim).filter_map(|group| settings.groups.get(group)).max();
        match scope {
            Some(scope) => Ok(Person { subject: self.sub.clone(), name, scope: *scope }),
            None => Err(OidcError::NoGroup { name }),
        }
    }

    /// The person's groups: a list of names, or one.
    fn groups(&self, claim: &str) -> impl Iterator<Item = &str> {
        let whole = self.others.get(claim);
        let found = whole.or_else(|| {
            let mut path = claim.split('.');
            let first = self.others.get(path.next()?)?;
            path.try_fold(first, |at, key| at.get(key))
        });
        let several = found.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        several.chain(found.and_then(Value::as_str)).take(MAX_GROUPS)
    }
}

/// One short line of a name, or nothing.
fn plain(name: &str) -> Option<String> {
    let line: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::tokens::Scope;

    fn person(claim: &str, more: Value) -> Result<Person, OidcError> {
        let mut claims = json!({ "sub": "7f", "aud": "steelyard", "iat": 1, "preferred_username": " ada\n" });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claims: Claims = serde_json::from_value(claims).unwrap();
        let groups = [("readers".to_owned(), Scope::Read), ("makers".to_owned(), Scope::Stage)];
        claims.person(&Oidc { groups: groups.into(), groups_claim: claim.to_owned(), ..Oidc::default() })
    }

    #[test]
    fn the_most_of_a_persons_groups_counts() {
        let scope = |claim, more| person(claim, more).map(|it| it.scope).ok();
        assert_eq!(scope("groups", json!({ "groups": ["x", "readers", "makers"] })), Some(Scope::Stage));
        assert_eq!(scope("groups", json!({ "groups": "readers" })), Some(Scope::Read));
        assert_eq!(scope("realm.roles", json!({ "realm": { "roles": ["readers"] } })), Some(Scope::Read));
        assert_eq!(
            scope("https://a.example/g", json!({ "https://a.example/g": ["readers"] })),
            Some(Scope::Read)
        );
        for more in [
            json!({}),
            json!({ "groups": ["Readers"] }),
            json!({ "groups": 7 }),
            json!({ "groups": [["readers"]] }),
        ] {
            assert_eq!(scope("groups", more), None);
        }
        let ada = person("groups", json!({ "groups": ["readers"] })).unwrap();
        assert_eq!((ada.name.as_str(), ada.subject.as_str()), ("ada", "7f"));
    }
}
