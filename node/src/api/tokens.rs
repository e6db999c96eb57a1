//! Tokens of the hub interface, over the socket alone.

use axum::Json;
use axum::extract::State;
use registry::Timestamp;

use super::Api;
use super::guard::{Body, Path};
use super::stream::blocking;
use super::types::{TokenEntry, TokenMade, TokenRequest};
use crate::error::{Code, Problem};
use crate::tokens::TokenError;

type Answer<T> = Result<Json<T>, Problem>;

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Io { .. } => Code::Disk,
            TokenError::Name | TokenError::Days => Code::Usage,
            TokenError::TooMany | TokenError::Exists(_) => Code::Conflict,
            TokenError::Unknown(_) => Code::NotFound,
            TokenError::Random(_) => Code::Internal,
        };
        Self::new(code, error)
    }
}

pub(super) async fn list(State(api): State<Api>) -> Json<Vec<TokenEntry>> {
    Json(api.hub().tokens.list(Timestamp::now()))
}

pub(super) async fn create(State(api): State<Api>, Body(request): Body<TokenRequest>) -> Answer<TokenMade> {
    let made = blocking(move || {
        let TokenRequest { name, scope, days } = request;
        let (token, entry) = api.hub().tokens.create(&name, scope, days, Timestamp::now())?;
        Ok(TokenMade { token, entry })
    });
    Ok(Json(made.await?))
}

pub(super) async fn revoke(State(api): State<Api>, Path(which): Path<String>) -> Answer<TokenEntry> {
    Ok(Json(blocking(move || Ok(api.hub().tokens.revoke(&which, Timestamp::now())?)).await?))
}
