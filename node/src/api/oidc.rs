//! Signing in: what people's tools need to know, and the exchange of an ID token for a token of this node.

use axum::extract::State;
use axum::{Extension, Json};
use registry::Timestamp;

use super::Api;
use super::guard::Body;
use super::hub::Unwelcome;
use super::server::Client;
use super::stream::blocking;
use super::types::{SignInAt, SignInWith, TokenMade};
use crate::error::{Code, Problem};
use crate::oidc::{OidcError, People};

/// Seconds.
const HOUR: i64 = 3600;

type Answer<T> = Result<Json<T>, Problem>;

impl From<OidcError> for Problem {
    fn from(error: OidcError) -> Self {
        let code = match error {
            OidcError::Issuer { .. } => Code::Network,
            OidcError::Malformed(_) => Code::Usage,
            OidcError::Algorithm | OidcError::NoKey(_) | OidcError::Refused(_) | OidcError::Nonce => {
                Code::VerificationFailed
            }
            OidcError::NoGroup { .. } => Code::PolicyRefused,
        };
        Self::new(code, error)
    }
}

impl From<Unwelcome> for Problem {
    fn from(why: Unwelcome) -> Self {
        match why {
            Unwelcome::TooMany(seconds) => {
                Self::new(Code::Busy, format!("too many requests; try again in {seconds} s"))
            }
            Unwelcome::BadToken => {
                Self::new(Code::Forbidden, "this token is wrong, has ended or was revoked")
            }
        }
    }
}

fn people(api: &Api) -> Result<&People, Problem> {
    api.people().ok_or_else(|| {
        Problem::new(Code::NotFound, "nobody signs in at this node")
            .hint("its operator gives out tokens with `steelyard token create`, or names an issuer in `oidc.issuer`")
    })
}

pub(super) async fn issuer(State(api): State<Api>, client: Option<Extension<Client>>) -> Answer<SignInAt> {
    api.hub().recognise(client.map(|Extension(client)| client.address), None)?;
    let people = people(&api)?;
    let nonce = people.nonce(Timestamp::now()).map_err(|error| Problem::new(Code::Internal, error))?;
    let settings = people.settings();
    let (issuer, client_id) = (settings.issuer.clone(), settings.client_id.clone());
    Ok(Json(SignInAt { issuer, client_id, scopes: settings.scopes.clone(), nonce }))
}

pub(super) async fn exchange(
    State(api): State<Api>,
    client: Option<Extension<Client>>,
    Body(shown): Body<SignInWith>,
) -> Answer<TokenMade> {
    let address = client.map(|Extension(client)| client.address);
    api.hub().recognise(address, None)?;
    let people = people(&api)?;
    let now = Timestamp::now();
    let person = match people.recognise(&shown.id_token, now).await {
        Ok(person) => person,
        Err(error) => {
            if let (Some(address), false) = (address, matches!(error, OidcError::Issuer { .. })) {
                api.hub().guessed(address);
            }
            return Err(error.into());
        }
    };
    let expires = now.plus(i64::from(people.settings().hours) * HOUR);
    let name = person.name.clone();
    let (asked, scope) = (api.clone(), person.scope);
    let made = blocking(move || {
        let who = (person.name.as_str(), person.subject.as_str());
        let (token, entry) = asked.hub().tokens.sign_in(who, scope, expires, now)?;
        Ok(TokenMade { token, entry })
    });
    let made = made.await?;
    tracing::info!(name, scope = scope.as_str(), id = made.entry.id, "somebody signed in");
    Ok(Json(made))
}
