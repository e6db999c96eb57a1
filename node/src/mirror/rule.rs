//! The settings of mirroring: rules as a person writes them.

use std::fmt;
use std::str::FromStr;

use registry::{ChannelName, Model, Nation};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most rules: each is read by a person, and looked at for each release.
pub const MAX_RULES: usize = 64;
/// Most entries in any list of a rule.
pub const MAX_LIST: usize = 256;
/// Longest pattern, in bytes: a nation, a slash and a name, with room for wildcards.
pub const MAX_GLOB: usize = 160;
/// Longest name of a rule, in characters.
pub const MAX_RULE_NAME: usize = 64;

/// One rule: which releases this node keeps without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// What people call it; empty for `rule 1`, `rule 2`, … by its place.
    pub name: String,
    /// Whose models; empty for every nation that is pinned here.
    pub nations: Vec<Nation>,
    /// Which models; empty for all.
    pub models: Vec<Glob>,
    /// The releases that these channels point to; empty for every release.
    pub channels: Vec<ChannelName>,
    /// Whether to follow lineage from those.
    pub lineage: Lineage,
    /// Largest release that it fetches.
    pub max_release: Size,
    /// Bytes of all that it keeps together.
    pub budget: Size,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            name: String::new(),
            nations: Vec::new(),
            models: Vec::new(),
            channels: ChannelName::new(registry::reference::DEFAULT_CHANNEL).into_iter().collect(),
            lineage: Lineage::None,
            max_release: Size::UNLIMITED,
            budget: Size::UNLIMITED,
        }
    }
}

impl Rule {
    /// Whether a model is one of its own, channels aside.
    pub fn names(&self, model: &Model) -> bool {
        (self.nations.is_empty() || self.nations.contains(&model.nation))
            && (self.models.is_empty() || self.models.iter().any(|glob| glob.matches(model)))
    }

    /// Its name, or its place among the rules.
    pub fn title(&self, place: usize) -> String {
        if self.name.is_empty() { format!("rule {}", place + 1) } else { self.name.clone() }
    }

    /// What it wants, for people: `alba/*, borea/* on stable, with their bases`.
    pub fn what(&self) -> String {
        let list = |items: Vec<String>, none: &str| {
            if items.is_empty() { none.to_owned() } else { items.join(", ") }
        };
        let models = list(self.models.iter().map(ToString::to_string).collect(), "every model");
        let nations = list(self.nations.iter().map(ToString::to_string).collect(), "");
        let of = if nations.is_empty() { String::new() } else { format!(" of {nations}") };
        let on = match &self.channels[..] {
            [] => ", every release".to_owned(),
            channels => format!(" on {}", list(channels.iter().map(ToString::to_string).collect(), "")),
        };
        let lineage = match self.lineage {
            Lineage::None => "",
            Lineage::Bases => ", with what they derive from",
            Lineage::Derived => ", with what derives from them",
            Lineage::Both => ", with their lineage both ways",
        };
        format!("{models}{of}{on}{lineage}")
    }
}

/// Which relatives of a release a rule wants too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lineage {
    /// None.
    #[default]
    None,
    /// What it derives from, over any number of generations.
    Bases,
    /// What derives from it, over any number of generations.
    Derived,
    /// Both.
    Both,
}

impl Lineage {
    /// Whether bases are wanted.
    pub const fn bases(self) -> bool {
        matches!(self, Self::Bases | Self::Both)
    }

    /// Whether what derives from it is wanted.
    pub const fn derived(self) -> bool {
        matches!(self, Self::Derived | Self::Both)
    }
}

/// All that the rules share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirroring {
    /// Bytes of all that the rules keep together.
    pub budget: Size,
    /// Most releases fetched at once.
    pub pulls: u32,
}

impl Default for Mirroring {
    fn default() -> Self {
        Self { budget: Size::UNLIMITED, pulls: 2 }
    }
}

/// A model's name with wildcards: `*` for any run of characters, `?` for one, neither across the slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Whether it matches.
    pub fn matches(&self, model: &Model) -> bool {
        let Some((nation, name)) = self.0.split_once('/') else { return false };
        wild(nation.as_bytes(), model.nation.as_str().as_bytes())
            && wild(name.as_bytes(), model.name.as_str().as_bytes())
    }
}

/// Compares by going back to the last star only, so that the work is at most pattern times text.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(MAX_GLOB).flat_map(char::escape_debug).collect();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*?/".contains(&byte);
        let whole = text
            .split_once('/')
            .is_some_and(|(nation, name)| !nation.is_empty() && !name.is_empty() && !name.contains('/'));
        if text.len() > MAX_GLOB || !whole || !text.bytes().all(allowed) {
            return Err(format!(
                "`{shown}` is not a pattern such as `alba/*`: a nation, a slash and a model's name, with * and ?"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A number of bytes as a person writes it: `500 GiB`, `2 TB`, `1048576` or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// What one of each unit is in bytes.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl Size {
    /// No limit.
    pub const UNLIMITED: Self = Self(u64::MAX);

    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The bytes; `None` without a limit.
    pub fn limit(self) -> Option<u64> {
        (self != Self::UNLIMITED).then_some(self.0)
    }

    /// Whether so many bytes fit.
    pub const fn fits(self, bytes: u64) -> bool {
        bytes <= self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("`{shown}` is not a size such as `500 GiB`, `2 TB` or `unlimited`")
        };
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)))
            .unwrap_or((text, 1));
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNLIMITED {
            return f.write_str("unlimited");
        }
        let fits = |bytes: &u64| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        let largest = UNITS.iter().filter(|(_, bytes)| fits(bytes)).max_by_key(|(_, bytes)| *bytes);
        let (unit, bytes) = largest.copied().unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / bytes)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_match_within_each_half() {
        let matches =
            |glob: &str, model: &str| glob.parse::<Glob>().unwrap().matches(&model.parse().unwrap());
        assert!(matches("alba/*", "alba/anything-1.5"));
        assert!(!matches("alba/*", "borea/anything"));
        assert!(matches("*/llama-*b", "borea/llama-70b"));
        assert!(!matches("*/llama-*b", "borea/llama-70b-chat"));
        assert!(matches("*/*a*a*", "borea/banana"));
        assert!(matches("alba/m?", "alba/m1") && !matches("alba/m?", "alba/m"));
        for wrong in ["alba", "*", "a/b/c", "/x", "x/", "alba/ü", &"a".repeat(200)] {
            assert!(wrong.parse::<Glob>().is_err(), "{wrong}");
        }
        // As much work as a pattern can make.
        let many = format!("a/{}b", "*a".repeat(60)).parse::<Glob>().unwrap();
        assert!(!many.matches(&format!("a/{}", "a".repeat(90)).parse().unwrap()));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let bytes = |text: &str| text.parse::<Size>().unwrap().limit();
        assert_eq!(bytes("500 GiB"), Some(500 << 30));
        assert_eq!(bytes("2TB"), Some(2_000_000_000_000));
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("7 B"), Some(7));
        assert_eq!(bytes("unlimited"), None);
        for wrong in ["", "GiB", "-1 GiB", "1.5 GiB", "99999999999 TiB", "5 parsecs"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        for text in ["500 GiB", "2 TB", "unlimited", "0 B", "1001 B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rule_says_what_it_wants() {
        let rule: Rule =
            toml::from_str("models = [\"alba/*\"]\nlineage = \"bases\"\nbudget = \"1 TiB\"").unwrap();
        assert_eq!(rule.what(), "alba/* on stable, with what they derive from");
        assert!(toml::from_str::<Rule>("modles = []").is_err());
    }
}
