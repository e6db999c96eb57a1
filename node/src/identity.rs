//! A node's libp2p identity, from its key file.

use libp2p::identity::{DecodingError, Keypair};
use registry::key::SecretKey;

/// The libp2p key pair of `key`. Fails only for a seed that is not 32 bytes long, which the type rules out.
pub fn keypair(key: &SecretKey) -> Result<Keypair, DecodingError> {
    let mut seed = key.seed();
    Keypair::ed25519_from_bytes(seed.as_mut_slice())
}

/// The peer identifier of `key` as text (`12D3KooW…`).
pub fn peer_id(key: &SecretKey) -> Result<String, DecodingError> {
    Ok(keypair(key)?.public().to_peer_id().to_base58())
}
