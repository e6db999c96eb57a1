//! Finding peers: names resolved to addresses, configured peers dialled again and again, the key of a release in the
//! provider table.

use std::net::IpAddr;
use std::time::Duration;

use libp2p::kad::RecordKey;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use registry::Digest;

use crate::node::Node;

/// Separates this use of the hash from every other.
const PROVIDER_DOMAIN: &[u8] = b"steelyard-provider";
/// Most addresses of one name that are tried.
const MAX_RESOLVED: usize = 8;
/// Longest time to resolve a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a failed dial; it doubles up to the configured one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often it is checked that a configured peer is still connected.
const CHECK: Duration = Duration::from_secs(1);

/// Under which key the providers of a release stand in the table: BLAKE3 of `steelyard-provider` and the release digest,
/// so that the table's keepers do not read off which releases there are.
pub fn provider_key(release: &Digest) -> RecordKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(PROVIDER_DOMAIN).update(release.as_bytes());
    RecordKey::new(hasher.finalize().as_bytes())
}

/// Why an address can't be dialled.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No multiaddr.
    #[error("`{0}` is not a multiaddr such as `/ip4/192.0.2.1/tcp/4801/p2p/12D3KooW…`")]
    Malformed(String),
    /// A name that does not resolve.
    #[error("the name `{name}` does not resolve: {why}; check the name, or use an IP address")]
    Name {
        /// The name.
        name: String,
        /// What the system said.
        why: String,
    },
}

/// Splits off the peer that an address names at its end.
pub fn split_peer(address: &str) -> Result<(Multiaddr, Option<PeerId>), AddressError> {
    let shown = || AddressError::Malformed(address.chars().take(120).collect());
    let mut parsed: Multiaddr = address.parse().map_err(|_| shown())?;
    let peer = match parsed.iter().last() {
        Some(Protocol::P2p(peer)) => {
            parsed.pop();
            Some(peer)
        }
        _ => None,
    };
    if parsed.is_empty() { Err(shown()) } else { Ok((parsed, peer)) }
}

/// The same address with names replaced by what they resolve to, at most [`MAX_RESOLVED`] of them.
pub async fn resolve(address: &Multiaddr) -> Result<Vec<Multiaddr>, AddressError> {
    let (name, wanted): (String, fn(&IpAddr) -> bool) = match address.iter().next() {
        Some(Protocol::Dns(name)) => (name.into_owned(), |_| true),
        Some(Protocol::Dns4(name)) => (name.into_owned(), IpAddr::is_ipv4),
        Some(Protocol::Dns6(name)) => (name.into_owned(), IpAddr::is_ipv6),
        _ => return Ok(vec![address.clone()]),
    };
    let failed = |why: String| AddressError::Name { name: name.clone(), why };
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.as_str(), 0)))
        .await
        .map_err(|_| failed(format!("no answer in {} s", RESOLVE_TIMEOUT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    let mut out: Vec<Multiaddr> = Vec::new();
    for socket in found.filter(|socket| wanted(&socket.ip())).take(MAX_RESOLVED) {
        let resolved: Multiaddr =
            std::iter::once(Protocol::from(socket.ip())).chain(address.iter().skip(1)).collect();
        if !out.contains(&resolved) {
            out.push(resolved);
        }
    }
    if out.is_empty() { Err(failed("it has no address of that kind".to_owned())) } else { Ok(out) }
}

/// Keeps a configured peer connected until the node stops.
pub(crate) async fn keep_connected(node: Node, address: String) {
    let longest = Duration::from_secs(node.config().p2p.redial_secs).max(FIRST_PAUSE);
    let peer = split_peer(&address).ok().and_then(|(_, peer)| peer);
    if peer.is_some_and(|peer| peer == node.own_peer()) {
        return;
    }
    let mut pause = FIRST_PAUSE;
    loop {
        match peer {
            Some(peer) if node.book().is_connected(&peer) => {
                pause = FIRST_PAUSE;
                tokio::time::sleep(CHECK).await;
                continue;
            }
            _ => {}
        }
        match node.dial(address.clone()).await {
            // Without a `/p2p/` part there is nothing to watch; the settings' check asks for one.
            Ok(_) if peer.is_none() => return,
            Ok(_) => pause = FIRST_PAUSE,
            Err(error) => {
                tracing::debug!(address, "configured peer not reached: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn names_resolve_and_the_rest_of_the_address_stays() {
        let (address, peer) = split_peer("/dns4/localhost/tcp/4801").unwrap();
        assert!(peer.is_none());
        assert_eq!(resolve(&address).await.unwrap(), ["/ip4/127.0.0.1/tcp/4801".parse().unwrap()]);
        let error = resolve(&"/dns4/no-such-name.invalid/tcp/1".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("no-such-name.invalid"), "{error}");
        assert!(split_peer("4801").is_err());
    }

    #[test]
    fn keys_do_not_show_the_digest() {
        let digest = Digest::of(b"x");
        assert_ne!(provider_key(&digest).to_vec(), digest.as_bytes());
        assert_eq!(provider_key(&digest), provider_key(&digest));
    }
}
