//! Every setting of a node, with its default. Flags and environment are merged over it by the command line.

mod http;
mod hub;
mod oidc;
mod rules;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use registry::serving::{Rehash, Wall};
use serde::{Deserialize, Serialize};

pub use self::http::Http;
pub use self::hub::Hub;
pub use self::oidc::Oidc;
use crate::mirror::rule::{Mirroring, Rule};
use crate::transfer::limit::Bandwidth;

/// Largest settings file: it is written by hand.
pub const MAX_CONFIG: u64 = 1024 * 1024;
/// Most addresses in any list: more than a machine has interfaces and a nation has nodes worth naming.
pub const MAX_ADDRESSES: usize = 256;

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("settings file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML of the right shape; the message shows the line.
    #[error("settings file {path} is refused: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A value is out of its range.
    #[error("the setting `{setting}` is refused: {rule}")]
    Value {
        /// The setting, such as `transfer.streams_per_peer`.
        setting: &'static str,
        /// The rule that it breaks.
        rule: String,
    },
}

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The home folder ([`crate::layout::Layout`]). Never in the file.
    #[serde(skip)]
    pub home: PathBuf,
    /// No network at all: for a command that works on the folder alone. Never in the file.
    #[serde(skip)]
    pub offline: bool,
    /// Peers.
    pub p2p: P2p,
    /// The HTTP interface.
    pub http: Http,
    /// The Hugging Face Hub's interface.
    pub hub: Hub,
    /// People who sign in.
    pub oidc: Oidc,
    /// Which rules decide.
    pub policy: PolicySettings,
    /// Fetching and serving chunks.
    pub transfer: Transfer,
    /// Worker processes.
    pub worker: Worker,
    /// How long models are served when no ally is heard.
    pub lease: crate::lease::Settings,
    /// Bundles that are imported.
    pub bundle: Bundle,
    /// This nation's log.
    pub log: Log,
    /// What all mirror rules share.
    pub mirroring: Mirroring,
    /// What this node keeps without being asked; last in the file, since each is a table of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<Rule>,
}

/// Peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P2p {
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs under which peers reach this node, where they differ from `listen` (behind a NAT or a balancer).
    pub external: Vec<String>,
    /// Peers to stay connected with: multiaddrs that end in `/p2p/ID`.
    pub peers: Vec<String>,
    /// Whether this node relays between nodes of pinned nations that can't reach each other. For a node that all of them reach.
    pub relay: bool,
    /// Relays through which others reach this node: multiaddrs that end in `/p2p/ID`. For a node behind a NAT.
    pub relays: Vec<String>,
    /// Whether content is fetched and served over a connection through a relay, where no direct one can be made.
    pub relay_transfers: bool,
    /// Most MiB through one circuit of this relay, both directions together; 0 for no limit. Above it the circuit is cut; a
    /// pull goes on over a new one.
    pub relay_circuit_mib: u32,
    /// Hours after which a circuit of this relay is cut.
    pub relay_circuit_hours: u32,
    /// Most circuits through this relay that one nation's nodes may have open.
    pub relay_nation_circuits: u32,
    /// Most established connections.
    pub max_connections: u32,
    /// Seconds between two attempts to reach a peer that is away (the first retries come sooner).
    pub redial_secs: u64,
    /// Seconds between two requests for news to each peer, should a gossiped hint be lost.
    pub sync_secs: u64,
}

impl Default for P2p {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/0.0.0.0/tcp/4801".to_owned(), "/ip4/0.0.0.0/udp/4801/quic-v1".to_owned()],
            external: Vec::new(),
            peers: Vec::new(),
            relay: false,
            relays: Vec::new(),
            relay_transfers: true,
            // A model of 70 billion parameters in BF16 is 130 GiB.
            relay_circuit_mib: 256 * 1024,
            relay_circuit_hours: 24,
            relay_nation_circuits: 32,
            max_connections: 512,
            redial_secs: 15,
            sync_secs: 30,
        }
    }
}

/// Which rules decide what is admitted, mirrored, served and given to allies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// A file of rules of one's own, in Cedar; relative to the home folder, empty for none.
    pub file: String,
    /// Whether the shipped rules hold beside those of the file. Without a file they always hold.
    pub shipped: bool,
    /// How many other nations must have witnessed the log entry of what is admitted; 0 asks for no log at all.
    pub witnesses: u32,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { file: String::new(), shipped: true, witnesses: registry::policy::DEFAULT_WITNESSES }
    }
}

/// Fetching and serving chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transfer {
    /// Streams to each peer of one transfer.
    pub streams_per_peer: u32,
    /// Chunks requested ahead on each stream.
    pub window: u32,
    /// Most peers that one transfer fetches from at once.
    pub max_peers: u32,
    /// Most streams served at once, over all peers.
    pub max_serving: u32,
    /// Seconds without a byte after which a peer's work is given to another.
    pub stall_secs: u64,
    /// Bandwidth limits at the node's start.
    pub bandwidth: Bandwidth,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            streams_per_peer: 4,
            window: 8,
            max_peers: 16,
            max_serving: 512,
            stall_secs: 20,
            bandwidth: Bandwidth::default(),
        }
    }
}

/// Worker processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Program and arguments of a worker; empty for this program's own.
    pub command: Vec<String>,
    /// Where a worker listens unless told otherwise.
    pub listen: String,
    /// Compute threads; 0 for one fewer than the cores.
    pub threads: u32,
    /// Tokens of context; 0 for the model's own, within the worker's limit.
    pub context: u32,
    /// Requests computed at once; 0 for the worker's own number.
    pub parallel: u32,
    /// Tokens of the cache that all requests share; 0 for the context's.
    pub cache: u32,
    /// Requests running or waiting at once in one worker.
    pub max_requests: u32,
    /// Most workers at once.
    pub max_workers: u32,
    /// Seconds that a worker may take to become ready, hashing and loading included.
    pub start_secs: u64,
    /// Walls that workers do without where this kernel can't build them: `namespaces`, `mounts`, `landlock`, `seccomp`.
    pub allow_missing: Vec<Wall>,
    /// Seconds between two rounds of hashing the weights that are served; 0 for never.
    pub rehash_secs: u64,
    /// Most MiB that such a round reads in a second.
    pub rehash_mib_per_sec: u32,
    /// Whose requests need no API key.
    pub anonymous: crate::serve_keys::Anonymous,
    /// The machine's vLLM, if it has one.
    pub vllm: Option<registry::serving::Vllm>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            listen: "127.0.0.1:4810".to_owned(),
            threads: 0,
            context: 0,
            parallel: 0,
            cache: 0,
            max_requests: 64,
            max_workers: 8,
            start_secs: 900,
            allow_missing: Vec::new(),
            rehash_secs: Rehash::default().every_secs,
            rehash_mib_per_sec: Rehash::default().mib_per_sec,
            anonymous: crate::serve_keys::Anonymous::Loopback,
            vllm: None,
        }
    }
}

/// Bundles that are imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bundle {
    /// Seconds after which a bundle is too old to be imported; 0 for never.
    pub max_age_secs: u64,
    /// How many trusted nations must have cosigned the checkpoint in it.
    pub witnesses: u32,
}

/// This nation's log, at the node that holds its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Append although no ally can be asked whether it knows more of the log than this node. A node that was restored from
    /// a backup then forks its log, which allies hold for a lie.
    pub standalone: bool,
    /// A file, readable by this process alone, with the passphrase of log and witness keys that are sealed; relative to the home
    /// folder, empty for none.
    pub passphrase_file: String,
}

impl Config {
    /// The defaults for `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), ..Self::default() }
    }

    /// Reads `path` and checks every value; a missing file means the defaults.
    pub fn load(home: &Path, path: &Path) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Io { path: path.to_owned(), source };
        let malformed = |message| ConfigError::Malformed { path: path.to_owned(), message };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                file.take(MAX_CONFIG + 1).read_to_string(&mut text).map_err(io)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        if text.len() as u64 > MAX_CONFIG {
            return Err(malformed(format!("it is over the limit of {MAX_CONFIG} bytes")));
        }
        let mut config: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        config.home = home.to_owned();
        config.check()?;
        Ok(config)
    }

    /// Checks every value against its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |setting, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Value { setting, rule: format!("{value} is not between {low} and {high}") })
        };
        range("p2p.max_connections", self.p2p.max_connections.into(), 1, 65_536)?;
        range("p2p.relay_circuit_mib", self.p2p.relay_circuit_mib.into(), 0, u32::MAX.into())?;
        range("p2p.relay_circuit_hours", self.p2p.relay_circuit_hours.into(), 1, 24 * 365)?;
        range("p2p.relay_nation_circuits", self.p2p.relay_nation_circuits.into(), 1, 65_536)?;
        range("p2p.redial_secs", self.p2p.redial_secs, 1, 86_400)?;
        range("p2p.sync_secs", self.p2p.sync_secs, 1, 86_400)?;
        range("http.max_connections", self.http.max_connections.into(), 1, 65_536)?;
        self.oidc.check()?;
        for (setting, value, low, high) in self.hub.ranges() {
            range(setting, value, low, high)?;
        }
        range("transfer.streams_per_peer", self.transfer.streams_per_peer.into(), 1, 64)?;
        range("transfer.window", self.transfer.window.into(), 1, 256)?;
        range("transfer.max_peers", self.transfer.max_peers.into(), 1, 256)?;
        range("transfer.max_serving", self.transfer.max_serving.into(), 1, 65_536)?;
        self.transfer
            .bandwidth
            .check()
            .map_err(|rule| ConfigError::Value { setting: "transfer.bandwidth", rule })?;
        range("transfer.stall_secs", self.transfer.stall_secs, 1, 3_600)?;
        range("worker.max_requests", self.worker.max_requests.into(), 1, 65_536)?;
        range("worker.max_workers", self.worker.max_workers.into(), 1, 256)?;
        range("worker.start_secs", self.worker.start_secs, 1, 86_400)?;
        range("worker.rehash_secs", self.worker.rehash_secs, 0, 366 * 86_400)?;
        range("worker.rehash_mib_per_sec", self.worker.rehash_mib_per_sec.into(), 1, 1 << 20)?;
        range("worker.threads", self.worker.threads.into(), 0, 4_096)?;
        range("worker.context", self.worker.context.into(), 0, 16 * 1024 * 1024)?;
        range("worker.parallel", self.worker.parallel.into(), 0, 64)?;
        range("worker.cache", self.worker.cache.into(), 0, 16 * 1024 * 1024)?;
        if let Some(vllm) = &self.worker.vllm {
            vllm.check().map_err(|rule| ConfigError::Value { setting: "worker.vllm", rule })?;
        }
        range("policy.witnesses", self.policy.witnesses.into(), 0, registry::trust::MAX_MEMBERS as u64)?;
        range("mirroring.pulls", self.mirroring.pulls.into(), 1, 16)?;
        self.lease.check()?;
        rules::check(&self.mirror)?;
        self.http.address()?;
        self.worker.listen.parse::<SocketAddr>().map_err(|_| ConfigError::Value {
            setting: "worker.listen",
            rule: format!(
                "`{}` is not an address and port such as `127.0.0.1:4810`",
                shown(&self.worker.listen)
            ),
        })?;
        for (setting, list) in [
            ("p2p.listen", &self.p2p.listen),
            ("p2p.external", &self.p2p.external),
            ("p2p.peers", &self.p2p.peers),
            ("p2p.relays", &self.p2p.relays),
        ] {
            check_addresses(setting, list)?;
        }
        Ok(())
    }

    /// The text of a new settings file: every default, commented, so that it documents without fixing anything.
    pub fn template(&self) -> String {
        include_str!("config.template.toml")
            .replace("@P2P_LISTEN@", &line("listen", &self.p2p.listen, &P2p::default().listen))
            .replace("@P2P_PEERS@", &line("peers", &self.p2p.peers, &P2p::default().peers))
            .replace(
                "@WITNESSES@",
                &line("witnesses", &self.policy.witnesses, &PolicySettings::default().witnesses),
            )
            .replace("@HTTP_LISTEN@", &line("listen", &self.http.listen, &Http::default().listen))
    }
}

/// `key = value`, commented out where it is the default.
fn line<T: Serialize + PartialEq>(key: &str, value: &T, default: &T) -> String {
    let text = toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default();
    let mark = if value == default { "# " } else { "" };
    format!("{mark}{key} = {text}")
}

fn check_addresses(setting: &'static str, list: &[String]) -> Result<(), ConfigError> {
    if list.len() > MAX_ADDRESSES {
        let rule = format!("{} addresses are over the limit of {MAX_ADDRESSES}", list.len());
        return Err(ConfigError::Value { setting, rule });
    }
    for address in list {
        let parsed: Result<libp2p::Multiaddr, _> = address.parse();
        if parsed.is_err() {
            let rule = format!("`{}` is not a multiaddr such as `/ip4/192.0.2.1/tcp/4801`", shown(address));
            return Err(ConfigError::Value { setting, rule });
        }
        if matches!(setting, "p2p.peers" | "p2p.relays") && !crate::nation_file::names_peer(address) {
            let rule = format!("`{}` does not end in `/p2p/` and the peer's identifier", shown(address));
            return Err(ConfigError::Value { setting, rule });
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Every key of a settings value as `section.key`.
    fn keys(value: &toml::Value) -> Vec<String> {
        let mut out = Vec::new();
        for (section, inner) in value.as_table().unwrap() {
            for key in inner.as_table().unwrap().keys() {
                out.push(format!("{section}.{key}"));
            }
        }
        out
    }

    #[test]
    fn the_template_shows_every_setting_with_its_default() {
        let template = Config::default().template();
        assert_eq!(toml::from_str::<Config>(&template).unwrap(), Config::default());
        let bare: String = template
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_eq!(toml::from_str::<Config>(&bare).unwrap(), Config::default());
        let shown = keys(&toml::from_str(&bare).unwrap());
        assert_eq!(shown, keys(&toml::Value::try_from(Config::default()).unwrap()));
    }

    #[test]
    fn what_differs_from_the_default_is_not_commented() {
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:0".to_owned();
        config.p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        assert_eq!(toml::from_str::<Config>(&config.template()).unwrap(), config);
    }

    #[test]
    fn wrong_values_are_named() {
        let mut config = Config::default();
        config.p2p.peers = vec!["/ip4/127.0.0.1/tcp/1".to_owned()];
        assert!(config.check().unwrap_err().to_string().contains("/p2p/"));
        let rules = |text: &str| toml::from_str::<Config>(text).unwrap().check();
        rules("[[mirror]]\nmodels = [\"alba/*\"]\n[[mirror]]\nnations = [\"borea\"]\nbudget = \"2 TiB\"")
            .unwrap();
        let twice = rules("[[mirror]]\nname = \"a\"\n[[mirror]]\nname = \"a\"").unwrap_err();
        assert!(twice.to_string().contains("two rules are called `a`"));
        let mut config = Config::default();
        config.transfer.window = 0;
        assert!(config.check().unwrap_err().to_string().contains("transfer.window"));
        assert!(toml::from_str::<Config>("[p2p]\nlsten = []").is_err());
    }
}
