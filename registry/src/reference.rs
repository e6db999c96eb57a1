//! Names: `nation`, `nation/name`, `nation/name:channel`, `nation/name@version`, `b3:…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// Longest nation name, in bytes. It stands in paths, topics and log lines.
pub const MAX_NATION: usize = 32;
/// Longest model name, in bytes (the hub's own limit for a repository name).
pub const MAX_NAME: usize = 96;
/// Longest channel or version, in bytes.
pub const MAX_TAG: usize = 64;
/// The channel meant when a reference names none.
pub const DEFAULT_CHANNEL: &str = "stable";

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct ReferenceError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

fn check(
    text: &str,
    what: &'static str,
    max: usize,
    rule: &'static str,
    inner: &str,
) -> Result<(), ReferenceError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= max
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(c))
        && !text.contains("..");
    if fits { Ok(()) } else { Err(ReferenceError { text: crate::shorten(text), what, rule }) }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $inner:literal, $lower:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule for this kind of name.
            pub fn new(text: &str) -> Result<Self, ReferenceError> {
                check(text, $what, $max, $rule, $inner)?;
                if $lower && text.chars().any(|c| c.is_ascii_uppercase()) {
                    return Err(ReferenceError { text: crate::shorten(text), what: $what, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ReferenceError;
            fn from_str(text: &str) -> Result<Self, ReferenceError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// A nation: a sovereign member with its own root of trust.
    Nation, "nation", MAX_NATION, "-", true,
    "a nation is 1 to 32 lowercase letters, digits and inner hyphens"
}
name_type! {
    /// A model's name within its nation.
    Name, "model name", MAX_NAME, "-_.", false,
    "a model name is 1 to 96 letters, digits and inner `-`, `_`, `.` without `..`"
}
name_type! {
    /// A channel, such as `stable`.
    ChannelName, "channel", MAX_TAG, "-_.", false,
    "a channel is 1 to 64 letters, digits and inner `-`, `_`, `.` without `..`"
}
name_type! {
    /// A version, such as `1.2.0`. Versions are compared for equality only.
    Version, "version", MAX_TAG, "-_.+", false,
    "a version is 1 to 64 letters, digits and inner `-`, `_`, `.`, `+` without `..`"
}

/// A model: `nation/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model {
    /// The nation that publishes it.
    pub nation: Nation,
    /// Its name there.
    pub name: Name,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.nation, self.name)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Model {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (nation, name) = text.split_once('/').ok_or_else(|| ReferenceError {
            text: crate::shorten(text),
            what: "model",
            rule: "a model is `nation/name`",
        })?;
        Ok(Self { nation: Nation::new(nation)?, name: Name::new(name)? })
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a person types to mean one release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `nation/name:channel`; `nation/name` means the channel `stable`.
    Channel(Model, ChannelName),
    /// `nation/name@version`.
    Version(Model, Version),
    /// `b3:…`, the release's own digest.
    Digest(Digest),
}

impl Reference {
    /// The model named, unless the reference is a digest.
    pub fn model(&self) -> Option<&Model> {
        match self {
            Self::Channel(model, _) | Self::Version(model, _) => Some(model),
            Self::Digest(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(model, channel) => write!(f, "{model}:{channel}"),
            Self::Version(model, version) => write!(f, "{model}@{version}"),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.starts_with(crate::digest::PREFIX) {
            return text.parse().map(Self::Digest).map_err(|_| ReferenceError {
                text: crate::shorten(text),
                what: "release digest",
                rule: "a digest is `b3:` and 64 lowercase hexadecimal digits",
            });
        }
        if let Some((model, version)) = text.split_once('@') {
            return Ok(Self::Version(model.parse()?, Version::new(version)?));
        }
        let (model, channel) = text.split_once(':').unwrap_or((text, DEFAULT_CHANNEL));
        Ok(Self::Channel(model.parse()?, ChannelName::new(channel)?))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_round_trip() {
        for text in ["alba/smollm2:beta", "alba/SmolLM2-135M@1.0.0+q4", &Digest::of(b"x").to_string()] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        assert_eq!("alba/m".parse::<Reference>().unwrap().to_string(), "alba/m:stable");
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("alba/{}", "a".repeat(MAX_NAME + 1));
        for text in [
            "",
            "alba",
            "alba/",
            "/m",
            "Alba/m",
            "alba/..",
            "alba/a..b",
            "alba/a/b",
            "alba/m:",
            "alba/m@",
            "alba/-m",
            "alba/m\n",
            "b3:xyz",
            "al ba/m",
            "alba/é",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
