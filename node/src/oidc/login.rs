//! The person's side of signing in: the authorization code flow with PKCE (RFC 7636) and a redirect to this machine (RFC 8252).
//!
//! The browser is the person's; nothing is opened by itself. What comes back to the port is taken for the answer only if it carries
//! the state of this attempt; whatever else some page sends there is turned away, and waited on.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use registry::digest::hash_file;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::keys::{Discovery, discover};
use super::{MAX_ID_TOKEN, OidcError, is_safe};
use crate::api::text::{encode, first, pairs};
use crate::api::types::{Problem, SignInAt, SignInWith, TokenMade};
use crate::fetch_http::{Client, FetchError};

/// Largest answer of a node, and of an issuer's token endpoint.
const MAX_ANSWER: usize = 2 * MAX_ID_TOKEN;
/// Largest head of a request to the redirect.
const MAX_HEAD: usize = 16 * 1024;
/// A browser sends its request within this.
const HEAD: Duration = Duration::from_secs(10);
/// Longest text of an issuer's refusal that is shown.
const MAX_WORDS: usize = 300;
/// Where the issuer sends the browser to.
const CALLBACK: &str = "/callback";

/// Why somebody could not sign in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A token would be seen by others.
    #[error(
        "{node} is plain HTTP to another machine, where anybody on the way reads the token; use its https address"
    )]
    Exposed {
        /// The node.
        node: String,
    },
    /// The node or the issuer can't be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The node refuses.
    #[error("{}", .0.detail)]
    Node(Box<Problem>),
    /// The issuer's description.
    #[error(transparent)]
    Issuer(#[from] OidcError),
    /// The issuer refuses.
    #[error("the issuer refuses: {0}")]
    Refused(String),
    /// Nobody came.
    #[error("nobody signed in within {0} s; run the command again")]
    Late(u64),
    /// No port, or no random numbers.
    #[error("this machine can't wait for the browser: {0}")]
    Here(String),
}

/// One attempt that waits for the browser.
#[derive(Debug)]
pub struct SignIn {
    /// The address for the person's browser.
    pub address: String,
    node: String,
    client: Client,
    at: SignInAt,
    found: Discovery,
    listener: TcpListener,
    redirect: String,
    state: String,
    verifier: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

fn random() -> Result<String, LoginError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| LoginError::Here(error.to_string()))?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

impl SignIn {
    /// Asks the node at `node` where its people sign in, and makes an address for that.
    pub async fn begin(node: &str) -> Result<Self, LoginError> {
        let node = node.trim_end_matches('/').to_owned();
        if !is_safe(&node) {
            return Err(LoginError::Exposed { node });
        }
        let client = Client::new()?;
        let answer = client.get(&format!("{node}/v1/oidc"), &[]).await?;
        let at: SignInAt = of_node(answer).await?;
        let found = discover(&client, &at.issuer).await?;
        let wrong = |why: &str| OidcError::Issuer { issuer: at.issuer.clone(), why: why.to_owned() };
        if !is_safe(&found.authorization_endpoint) || !is_safe(&found.token_endpoint) {
            return Err(wrong("it names no safe place to sign in at").into());
        }
        let here = |error: std::io::Error| LoginError::Here(error.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(here)?;
        let port = listener.local_addr().map_err(here)?.port();
        let redirect = format!("http://127.0.0.1:{port}{CALLBACK}");
        let (state, verifier) = (random()?, random()?);
        // Reading from memory does not fail.
        let hashed = hash_file(verifier.as_bytes()).map_err(|error| LoginError::Here(error.to_string()))?;
        let challenge = BASE64URL_NOPAD.encode(hashed.sha256.as_bytes());
        let scopes = at.scopes.join(" ");
        let query = form(&[
            ("response_type", "code"),
            ("client_id", at.client_id.as_str()),
            ("redirect_uri", redirect.as_str()),
            ("scope", scopes.as_str()),
            ("state", state.as_str()),
            ("nonce", at.nonce.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
        let mark = if found.authorization_endpoint.contains('?') { '&' } else { '?' };
        let address = format!("{}{mark}{query}", found.authorization_endpoint);
        Ok(Self { address, node, client, at, found, listener, redirect, state, verifier })
    }

    /// Waits for the browser, at most `limit`, and exchanges what it brings for the node's token.
    pub async fn finish(self, limit: Duration) -> Result<TokenMade, LoginError> {
        let code = tokio::time::timeout(limit, self.code())
            .await
            .map_err(|_| LoginError::Late(limit.as_secs()))??;
        let form = form(&[
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.redirect.as_str()),
            ("client_id", self.at.client_id.as_str()),
            ("code_verifier", self.verifier.as_str()),
        ]);
        let media = "application/x-www-form-urlencoded";
        let answer = self.client.post(&self.found.token_endpoint, media, form.into_bytes()).await?;
        let answer = answer.good().await?;
        let malformed = |url: &str, error: serde_json::Error| FetchError::Malformed {
            url: url.to_owned(),
            // Without the text itself, which holds tokens.
            why: format!("it holds no ID token ({:?})", error.classify()),
        };
        let text = answer.bytes(MAX_ANSWER).await?;
        let tokens: Tokens =
            serde_json::from_slice(&text).map_err(|error| malformed(&self.found.token_endpoint, error))?;
        let shown = serde_json::to_vec(&SignInWith { id_token: tokens.id_token })
            .map_err(|error| malformed(&self.node, error))?;
        of_node(self.client.post(&format!("{}/v1/oidc/token", self.node), "application/json", shown).await?)
            .await
    }

    async fn code(&self) -> Result<String, LoginError> {
        loop {
            let here = |error: std::io::Error| LoginError::Here(error.to_string());
            let (mut stream, _) = self.listener.accept().await.map_err(here)?;
            let Ok(Some(asked)) = tokio::time::timeout(HEAD, target(&mut stream)).await else { continue };
            match self.judge(&asked) {
                None => say(&mut stream, "404 Not Found", "This is not where anybody signs in.").await,
                Some(Ok(code)) => {
                    say(&mut stream, "200 OK", "You are signed in, and may close this page.").await;
                    return Ok(code);
                }
                Some(Err(error)) => {
                    say(&mut stream, "400 Bad Request", "Signing in failed; the terminal says why.").await;
                    return Err(error);
                }
            }
        }
    }

    /// What a request to the redirect brings; nothing where it is not of this attempt.
    fn judge(&self, target: &str) -> Option<Result<String, LoginError>> {
        let query = pairs(target.strip_prefix(CALLBACK)?.strip_prefix('?')?);
        let value = |name| first(&query, name);
        // Of the issuer's own name where it tells it (RFC 9207): another one's answer is not ours.
        if value("state") != Some(self.state.as_str())
            || value("iss").is_some_and(|iss| iss != self.at.issuer)
        {
            return None;
        }
        if let Some(error) = value("error") {
            let words = value("error_description").unwrap_or_default();
            let text = format!("{error} {words}");
            let text = text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect::<String>();
            return Some(Err(LoginError::Refused(text.trim().to_owned())));
        }
        value("code").filter(|code| !code.is_empty()).map(|code| Ok(code.to_owned()))
    }
}

/// A node's answer, or the problem that it tells.
async fn of_node<T: serde::de::DeserializeOwned>(answer: crate::fetch_http::Answer) -> Result<T, LoginError> {
    let (good, url) = (answer.status.is_success(), answer.url().to_owned());
    let status = answer.status.as_u16();
    let text = answer.bytes(MAX_ANSWER).await?;
    if good {
        return serde_json::from_slice(&text)
            .map_err(|_| FetchError::Malformed { url, why: "it is no node's answer".to_owned() }.into());
    }
    match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => Err(LoginError::Node(Box::new(problem))),
        Err(_) => Err(FetchError::Status { url, status, words: String::new() }.into()),
    }
}

/// The target of a request `GET … HTTP/1.1`, read to the end of its head.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8(head).ok()?;
    let mut words = text.lines().next()?.split(' ');
    (words.next() == Some("GET")).then(|| words.next().map(str::to_owned)).flatten()
}

async fn say(stream: &mut TcpStream, status: &str, words: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{words}\n",
        words.len() + 1
    );
    // The browser may be gone; what it brought counts.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
