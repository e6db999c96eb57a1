//! API keys of the workers' interface, as a file of hashes (`serve-keys.json`, mode 0600).
//!
//! A key is 32 random bytes and is shown once, to whoever makes it; kept is its BLAKE3, from which nobody gets it back.
//! Commands change the file in one step; a running node looks at it every second and tells its workers, so that a revoked
//! key opens nothing from the next request on.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use registry::serving::{Access, ServeKey};
use registry::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What every key begins with, so that people and scanners recognise one.
const PREFIX: &str = "sk-steelyard-";
/// Random bytes of a key: nobody guesses 256 bits.
const RANDOM: usize = 32;
/// Most keys: each worker compares a request's with all of them, and gets all in one line.
pub const MAX_KEYS: usize = 4096;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// Largest file: the most keys with the longest names.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// How often a running node looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// Which workers answer requests without an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// Those that only this machine reaches.
    #[default]
    Loopback,
    /// All.
    Always,
    /// None.
    Never,
}

impl crate::config::Worker {
    /// Who may ask a worker that listens on `address`.
    pub fn access(&self, address: SocketAddr, keys: Vec<ServeKey>) -> Access {
        let anonymous = match self.anonymous {
            Anonymous::Loopback => address.ip().is_loopback(),
            Anonymous::Always => true,
            Anonymous::Never => false,
        };
        Access { anonymous, keys }
    }
}

/// Why the keys can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServeKeyError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:03o}); `chmod 600` it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what this program writes.
    #[error("{} is no file of API keys: {why}. Restore it, or remove it and make new keys", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another command is at it, or was interrupted.
    #[error("another command changes the keys just now; if none does, remove {}", path.display())]
    Busy {
        /// The file that says so.
        path: PathBuf,
    },
    /// There are as many as may be.
    #[error("there are {MAX_KEYS} keys already; revoke some")]
    TooMany,
    /// The name can't be used.
    #[error("a key's name has 1 to {MAX_NAME} bytes, and no other key has it: `{0}` can't be used")]
    Name(String),
    /// No such key.
    #[error("there is no key `{0}`; `steelyard serve-key list` shows them")]
    Unknown(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What a worker knows of it.
    #[serde(flatten)]
    pub key: ServeKey,
    /// When it was made.
    pub created: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// The number given last; none is given twice.
    last: u32,
    keys: Vec<Entry>,
}

/// The file.
#[derive(Debug, Clone)]
pub struct ServeKeys {
    path: PathBuf,
}

impl ServeKeys {
    /// The keys in the file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// All keys.
    pub fn list(&self) -> Result<Vec<Entry>, ServeKeyError> {
        Ok(self.read()?.keys)
    }

    /// Makes a key; gives it, and how it is kept. This is the only time that it is seen.
    pub fn add(&self, name: &str) -> Result<(String, Entry), ServeKeyError> {
        self.change(|content| {
            let taken = content.keys.iter().any(|entry| entry.key.name == name);
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) || taken {
                return Err(ServeKeyError::Name(name.chars().take(MAX_NAME).collect()));
            }
            if content.keys.len() >= MAX_KEYS {
                return Err(ServeKeyError::TooMany);
            }
            let mut random = [0; RANDOM];
            getrandom::fill(&mut random).map_err(|error| ServeKeyError::Random(error.to_string()))?;
            let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random));
            content.last += 1;
            let key =
                ServeKey { id: content.last, name: name.to_owned(), hash: Digest::of(token.as_bytes()) };
            let entry = Entry { key, created: Timestamp::now() };
            content.keys.push(entry.clone());
            Ok((token, entry))
        })
    }

    /// Removes the key of this name.
    pub fn revoke(&self, name: &str) -> Result<Entry, ServeKeyError> {
        self.change(|content| {
            let at = content.keys.iter().position(|entry| entry.key.name == name);
            let at = at.ok_or_else(|| ServeKeyError::Unknown(name.chars().take(MAX_NAME).collect()))?;
            Ok(content.keys.remove(at))
        })
    }

    /// The keys as they change. A file that can't be read opens nothing: no key counts until it can.
    pub fn watch(&self) -> watch::Receiver<Vec<ServeKey>> {
        let read = |keys: &Self| match keys.read() {
            Ok(content) => content.keys.into_iter().map(|entry| entry.key).collect(),
            Err(error) => {
                tracing::error!(%error, "no API key counts");
                Vec::new()
            }
        };
        let (told, watched) = watch::channel(read(self));
        let keys = self.clone();
        tokio::spawn(async move {
            let mut seen = keys.stamp();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = told.closed() => return,
                }
                let now = keys.stamp();
                if now != seen {
                    seen = now;
                    told.send_replace(read(&keys));
                }
            }
        });
        watched
    }

    /// Tells whether the file is another than before.
    fn stamp(&self) -> Option<(u64, i64, i64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(&self.path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    }

    fn read(&self) -> Result<Content, ServeKeyError> {
        let io = |source| ServeKeyError::Io { path: self.path.clone(), source };
        let malformed = |why: String| ServeKeyError::Malformed { path: self.path.clone(), why };
        let found = match fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
            Err(error) => return Err(io(error)),
        };
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ServeKeyError::Exposed { path: self.path.clone(), mode });
        }
        if found.len() > MAX_FILE {
            return Err(malformed(format!("it has more than {MAX_FILE} bytes")));
        }
        let content: Content = serde_json::from_slice(&fs::read(&self.path).map_err(io)?)
            .map_err(|error| malformed(error.to_string()))?;
        if content.keys.len() > MAX_KEYS {
            Err(malformed(format!("more than {MAX_KEYS} keys")))
        } else {
            Ok(content)
        }
    }

    /// Changes the file in one step: the new one lies beside it, and while it does no other command changes anything.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Content) -> Result<T, ServeKeyError>,
    ) -> Result<T, ServeKeyError> {
        let io = |source| ServeKeyError::Io { path: self.path.clone(), source };
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = self.path.with_file_name(name);
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ServeKeyError::Busy { path: beside });
            }
            Err(error) => return Err(io(error)),
        };
        let written = self.read().and_then(|mut content| {
            let done = change(&mut content)?;
            let text = serde_json::to_vec_pretty(&content).map_err(|error| io(io::Error::other(error)))?;
            file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
            fs::rename(&beside, &self.path).map_err(io)?;
            sync_folder(&self.path).map_err(io)?;
            Ok(done)
        });
        if written.is_err() {
            // Nothing was changed; what lies beside is of no use.
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_shown_once_and_kept_as_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let keys = ServeKeys::new(folder.path().join("serve-keys.json"));
        assert!(keys.list().unwrap().is_empty());
        let (token, entry) = keys.add("chat app").unwrap();
        let (other, second) = keys.add("other").unwrap();
        assert!(token.starts_with(PREFIX) && token.len() > 50 && token != other);
        let text = fs::read_to_string(folder.path().join("serve-keys.json")).unwrap();
        assert!(!text.contains(&token) && text.contains(&entry.key.hash.to_string()));
        assert_eq!(entry.key.hash, Digest::of(token.as_bytes()));
        assert!(matches!(keys.add("other"), Err(ServeKeyError::Name(_))));
        assert!(matches!(keys.add(""), Err(ServeKeyError::Name(_))));
        assert_eq!(keys.revoke("chat app").unwrap().key.id, entry.key.id);
        assert!(matches!(keys.revoke("chat app"), Err(ServeKeyError::Unknown(_))));
        let (_, third) = keys.add("chat app").unwrap();
        assert!(third.key.id > second.key.id, "no number is given twice");
        let mode = fs::metadata(folder.path().join("serve-keys.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_broken_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve-keys.json");
        let keys = ServeKeys::new(&path);
        keys.add("a").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(keys.add("b"), Err(ServeKeyError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{}").unwrap();
        assert!(matches!(keys.list(), Err(ServeKeyError::Malformed { .. })));
        assert!(!folder.path().join("serve-keys.json.new").exists());
        fs::write(folder.path().join("serve-keys.json.new"), "").unwrap();
        assert!(matches!(keys.add("b"), Err(ServeKeyError::Busy { .. })));
    }
}
