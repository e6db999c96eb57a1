//! Flags and environment over the settings file.

use clap::Args;
use node::config::Config;

use crate::failure::Failure;

/// How a node reaches others and is reached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Network {
    /// Listen for peers on this multiaddr; repeat for several. Port 0 lets the system choose
    #[arg(long, value_name = "MULTIADDR", env = "STEELYARD_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// Tell allies this multiaddr instead of the ones listened on, behind a NAT or a balancer
    #[arg(long, value_name = "MULTIADDR", env = "STEELYARD_EXTERNAL", value_delimiter = ',')]
    pub(crate) external: Vec<String>,
    /// Stay connected with this peer (a multiaddr that ends in /p2p/ID); repeat for several
    #[arg(long = "peer", value_name = "MULTIADDR", env = "STEELYARD_PEERS", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Serve the read-only HTTP interface there; `off` for nowhere, port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", env = "STEELYARD_HTTP")]
    pub(crate) http: Option<String>,
}

impl Network {
    /// Puts what was given over `config`. Peers are added to those of the file, the rest replaces it.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if !self.listen.is_empty() {
            config.p2p.listen = self.listen.clone();
        }
        if !self.external.is_empty() {
            config.p2p.external = self.external.clone();
        }
        for peer in &self.peers {
            if !config.p2p.peers.contains(peer) {
                config.p2p.peers.push(peer.clone());
            }
        }
        match self.http.as_deref() {
            Some("off" | "") => config.http.listen = String::new(),
            Some(address) => config.http.listen = address.to_owned(),
            None => {}
        }
        Ok(config.check()?)
    }
}
