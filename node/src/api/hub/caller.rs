//! Who asks: an address, perhaps a token. Everything of this interface takes a [`Caller`] first.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::super::server::{Client, Outlet};
use super::super::{Access, Api};
use super::refusal::Refusal;
use super::text;
use crate::tokens::Bearer;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The token that was shown, if one was.
    pub(super) bearer: Option<Bearer>,
    /// How files are sent to them by the kernel, where that is possible.
    pub(super) outlet: Option<Outlet>,
    /// `http://host:port` by which they know this node.
    pub(super) origin: String,
    /// The query, in pairs.
    pub(super) query: Vec<(String, String)>,
}

impl Caller {
    /// Why a model is not there, in the way that fits who asks.
    pub(super) fn no_model(&self, why: impl Into<String>) -> Refusal {
        Refusal::NoModel { why: why.into(), anonymous: self.bearer.is_none() }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        text::first(&self.query, name)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        text::flag(&self.query, name)
    }
}

fn origin(parts: &Parts) -> String {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // Only the same client is sent there, so that it may say what it likes.
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    let host = parts.uri.authority().map(|authority| authority.as_str()).or_else(|| text("host"));
    format!("{scheme}://{}", host.unwrap_or("localhost"))
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let client = parts.extensions.get::<Client>();
        let query = text::pairs(parts.uri.query().unwrap_or_default());
        let outlet = client.map(|client| client.outlet.clone());
        let mut caller = Self { bearer: None, outlet, origin: origin(parts), query };
        let (address, shown) =
            (client.map(|client| client.address), parts.headers.get(header::AUTHORIZATION));
        caller.bearer = api.hub().recognise(address, shown)?;
        // Whoever opens the socket is the operator.
        let anonymous = api.node().config().hub.anonymous;
        if caller.bearer.is_none() && !anonymous && api.access() == Access::Public {
            return Err(Refusal::NeedsToken);
        }
        Ok(caller)
    }
}
