//! Tokens of those who use the hub interface: made by the operator, shown once, kept as hashes.
//!
//! ```text
//! hf_ and 40 letters and digits    200 random bits, in the shape that the hub's clients know
//! HOME/tokens.json, mode 0600      BLAKE3 of each, its scopes, when it ends
//! ```
//!
//! A token is random in full, so a plain hash is enough: there is nothing to guess.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// How every token begins: what the hub's clients look for.
pub const PREFIX: &str = "hf_";
/// Random bytes of a token; 40 characters in base 32.
const RANDOM: usize = 25;
/// Longest text that is looked up.
const MAX_TEXT: usize = 128;
/// Most tokens of a node: people, machines and builds of one operator.
pub const MAX_TOKENS: usize = 1024;
/// Longest name of a token, in characters.
pub const MAX_NAME: usize = 64;
/// Longest life of a token, in days: who forgets to revoke one is safe some day.
pub const MAX_DAYS: u32 = 3660;
/// Most sessions of one person that signed in; the oldest gives way.
const MAX_SESSIONS: usize = 16;
/// Longest identifier of a person at an issuer, in bytes: what OpenID Connect allows.
pub const MAX_SUBJECT: usize = 255;
/// Largest file of tokens: [`MAX_TOKENS`] of them with room to spare.
const MAX_FILE: u64 = 1024 * 1024;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Reading what this node's nation may have. Every token may.
    Read,
    /// Also pushing into the staging area of this node's nation.
    Stage,
    /// Also looking after what others staged.
    Admin,
}

impl Scope {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Stage => "stage",
            Self::Admin => "admin",
        }
    }
}

/// A token, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    hash: Digest,
    name: String,
    scope: Scope,
    created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    /// Of a session: who signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

impl Kept {
    fn ended(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Kept>,
}

/// A token as people see it: never itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// By which it is revoked.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it has ended.
    pub expired: bool,
    /// Of a session: who signed in, by the issuer's identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it was used last, since the node started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
}

/// Why a token can't be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("the tokens in {path} can't be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name.
    #[error("a token's name is one line of 1 to {MAX_NAME} characters")]
    Name,
    /// A life.
    #[error("a token lives 1 to {MAX_DAYS} days")]
    Days,
    /// No place.
    #[error("{MAX_TOKENS} tokens are the limit; revoke one with `steelyard token revoke`")]
    TooMany,
    /// A token of that name is there.
    #[error("a token called `{0}` is there already; revoke it first or choose another name")]
    Exists(String),
    /// No such token.
    #[error("there is no token `{0}`; `steelyard token list` shows them")]
    Unknown(String),
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

#[derive(Debug)]
struct Known {
    kept: Kept,
    /// Seconds since 1970; 0 for never.
    used: AtomicI64,
}

/// A token that was shown and is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// By which it is revoked.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
}

/// All tokens of a node.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    known: Mutex<BTreeMap<Digest, Arc<Known>>>,
}

impl Tokens {
    /// Reads the file at `path`, which need not be there. One that can't be read is told of, and no token is good.
    pub fn load(path: PathBuf) -> Self {
        let tokens = read(&path).unwrap_or_else(|error| {
            tracing::error!("no token is good: {error}");
            Vec::new()
        });
        let known = |kept: Kept| (kept.hash, Arc::new(Known { kept, used: AtomicI64::new(0) }));
        Self { path, known: Mutex::new(tokens.into_iter().map(known).collect()) }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Digest, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a token; durable on return. Answers it, for the only time, with its entry. Blocks.
    pub fn create(
        &self,
        name: &str,
        scope: Scope,
        days: Option<u32>,
        now: Timestamp,
    ) -> Result<(String, TokenEntry), TokenError> {
        let fits = (1..=MAX_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !fits || name.trim() != name {
            return Err(TokenError::Name);
        }
        if days.is_some_and(|days| days == 0 || days > MAX_DAYS) {
            return Err(TokenError::Days);
        }
        let (text, hash) = fresh()?;
        let expires = days.map(|days| now.plus(i64::from(days) * registry::timestamp::DAY));
        let kept = Kept { hash, name: name.to_owned(), scope, created: now, expires, subject: None };
        let mut known = self.known();
        if known.values().any(|known| known.kept.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if known.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        self.write(known.values().map(|known| known.kept.clone()).chain([kept.clone()]))?;
        let made = Arc::new(Known { kept, used: AtomicI64::new(0) });
        let entry = entry(&made, now);
        known.insert(hash, made);
        Ok((text, entry))
    }

    /// Makes a token for somebody who signed in: `name` with a number, until `expires`; durable on return. Sessions that have
    /// ended go, and the oldest of a person who has too many. Blocks.
    pub fn sign_in(
        &self,
        (name, subject): (&str, &str),
        scope: Scope,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(String, TokenEntry), TokenError> {
        let (text, hash) = fresh()?;
        let mut known = self.known();
        let mut left: BTreeMap<Digest, Arc<Known>> = known
            .iter()
            .filter(|(_, one)| one.kept.subject.is_none() || !one.kept.ended(now))
            .map(|(hash, one)| (*hash, Arc::clone(one)))
            .collect();
        let mut mine: Vec<(Timestamp, Digest)> = left
            .iter()
            .filter(|(_, one)| one.kept.subject.as_deref() == Some(subject))
            .map(|(hash, one)| (one.kept.created, *hash))
            .collect();
        mine.sort_unstable();
        for (_, oldest) in mine.iter().take((mine.len() + 1).saturating_sub(MAX_SESSIONS)) {
            left.remove(oldest);
        }
        if left.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let name = (1..=MAX_TOKENS + 1)
            .map(|number| format!("{name} #{number}"))
            .find(|name| !left.values().any(|one| one.kept.name == *name))
            .ok_or(TokenError::TooMany)?;
        let kept = Kept {
            hash,
            name,
            scope,
            created: now,
            expires: Some(expires),
            subject: Some(subject.to_owned()),
        };
        let made = Arc::new(Known { kept, used: AtomicI64::new(0) });
        left.insert(hash, Arc::clone(&made));
        self.write(left.values().map(|one| one.kept.clone()))?;
        *known = left;
        Ok((text, entry(&made, now)))
    }

    /// Takes a token back, by its identifier or its name; durable on return. Blocks.
    pub fn revoke(&self, which: &str, now: Timestamp) -> Result<TokenEntry, TokenError> {
        let mut known = self.known();
        let found = known.values().find(|known| known.kept.name == which || id(&known.kept.hash) == which);
        let found =
            found.cloned().ok_or_else(|| TokenError::Unknown(which.chars().take(MAX_NAME).collect()))?;
        let hash = found.kept.hash;
        self.write(known.values().filter(|known| known.kept.hash != hash).map(|known| known.kept.clone()))?;
        known.remove(&hash);
        Ok(entry(&found, now))
    }

    /// Every token, the newest first.
    pub fn list(&self, now: Timestamp) -> Vec<TokenEntry> {
        let mut all: Vec<TokenEntry> = self.known().values().map(|known| entry(known, now)).collect();
        all.sort_by(|a, b| (b.created, &a.name).cmp(&(a.created, &b.name)));
        all
    }

    /// Who shows `text`, when it is a token that is good at `now`.
    pub fn bearer(&self, text: &str, now: Timestamp) -> Option<Bearer> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let known = self.known().get(&Digest::of(text.as_bytes())).cloned()?;
        if known.kept.ended(now) {
            return None;
        }
        known.used.store(now.unix(), Ordering::Relaxed);
        let Kept { hash, name, scope, .. } = &known.kept;
        Some(Bearer { id: id(hash), name: name.clone(), scope: *scope })
    }

    /// What the token with this identifier is for, when it is good at `now`.
    pub fn scope_of(&self, id: &str, now: Timestamp) -> Option<Scope> {
        let known = self.known();
        let kept = known.values().map(|known| &known.kept).find(|kept| self::id(&kept.hash) == id)?;
        (!kept.ended(now)).then_some(kept.scope)
    }

    fn write(&self, tokens: impl Iterator<Item = Kept>) -> Result<(), TokenError> {
        let file = File { tokens: tokens.collect() };
        let failed = |source| TokenError::Io { path: self.path.clone(), source };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
        // A file made by `tempfile` is readable by its owner alone.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        new.write_all(&text).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
        new.persist(&self.path).map_err(|error| failed(error.error))?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

fn read(path: &Path) -> Result<Vec<Kept>, TokenError> {
    let failed = |source| TokenError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let file: File = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    Ok(file.tokens)
}

/// A new token and its hash.
fn fresh() -> Result<(String, Digest), TokenError> {
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    let text = format!("{PREFIX}{}", data_encoding::BASE32_NOPAD.encode(&bytes));
    let hash = Digest::of(text.as_bytes());
    Ok((text, hash))
}

fn id(hash: &Digest) -> String {
    hash.to_hex().chars().take(12).collect()
}

fn entry(known: &Known, now: Timestamp) -> TokenEntry {
    let Kept { hash, name, scope, created, expires, subject } = &known.kept;
    let used = known.used.load(Ordering::Relaxed);
    TokenEntry {
        id: id(hash),
        name: name.clone(),
        scope: *scope,
        created: *created,
        expires: *expires,
        expired: known.kept.ended(now),
        subject: subject.clone(),
        used: (used > 0).then(|| Timestamp::from_unix(used)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_kept_as_a_hash_ends_and_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let tokens = Tokens::load(path.clone());
        let now = Timestamp::from_unix(1_000_000);
        let (text, made) = tokens.create("laptop", Scope::Read, Some(1), now).unwrap();
        let (other, _) = tokens.create("builds", Scope::Stage, None, now).unwrap();
        assert!(text.starts_with("hf_") && text.len() >= 37);
        assert!(text[3..].chars().all(|c| c.is_ascii_alphanumeric()));
        let kept = fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(&text) && !kept.contains(&text[3..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(tokens.create("laptop", Scope::Read, None, now), Err(TokenError::Exists(_))));

        let again = Tokens::load(path);
        assert_eq!(again.bearer(&text, now).unwrap().name, "laptop");
        assert_eq!(again.bearer(&other, now).unwrap().scope, Scope::Stage);
        assert_eq!(again.bearer(&text, now.plus(86_400)), None);
        assert_eq!(again.bearer(&text.to_lowercase(), now), None);
        assert_eq!(again.bearer(&"x".repeat(1 << 20), now), None);
        assert_eq!(again.revoke(&made.id, now).unwrap().name, "laptop");
        assert_eq!(again.bearer(&text, now), None);
        assert!(matches!(again.revoke("laptop", now), Err(TokenError::Unknown(_))));
        assert_eq!(again.list(now).len(), 1);
    }

    #[test]
    fn sessions_end_make_room_and_are_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::load(folder.path().join("tokens.json"));
        let now = Timestamp::from_unix(1_000_000);
        let sign_in =
            |who, at: i64| tokens.sign_in((who, who), Scope::Read, now.plus(at + 100), now.plus(at)).unwrap();
        tokens.create("ada #2", Scope::Read, Some(1), now).unwrap();
        let (first, entry) = sign_in("ada", 0);
        assert_eq!((entry.name.as_str(), entry.subject.as_deref()), ("ada #1", Some("ada")));
        assert_eq!(sign_in("ada", 1).1.name, "ada #3");
        let (other, _) = sign_in("bob", 1);
        assert!(
            tokens.bearer(&first, now.plus(99)).is_some() && tokens.bearer(&first, now.plus(100)).is_none()
        );
        for at in 2..20 {
            sign_in("ada", at);
        }
        assert_eq!(tokens.bearer(&first, now.plus(20)), None, "the oldest of many");
        assert!(tokens.bearer(&other, now.plus(20)).is_some());
        assert_eq!(tokens.list(now).len(), 1 + MAX_SESSIONS + 1);
        tokens.revoke("bob #1", now).unwrap();
        assert_eq!(tokens.bearer(&other, now.plus(20)), None);
        // Much later: what ended is gone, what the operator made stays to be seen.
        sign_in("bob", 1_000_000);
        assert_eq!(tokens.list(now).len(), 2);
    }

    #[test]
    fn a_damaged_file_makes_no_token_good_and_names_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        fs::write(&path, "{\"tokens\": [{}]}").unwrap();
        let tokens = Tokens::load(path);
        let now = Timestamp::from_unix(0);
        assert!(tokens.list(now).is_empty());
        for name in ["", " a", "a\nb", &"n".repeat(MAX_NAME + 1)] {
            assert!(matches!(tokens.create(name, Scope::Read, None, now), Err(TokenError::Name)), "{name:?}");
        }
        assert!(matches!(tokens.create("a", Scope::Read, Some(0), now), Err(TokenError::Days)));
    }
}
