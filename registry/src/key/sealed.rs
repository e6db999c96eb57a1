//! Encrypted key files: Argon2id turns a passphrase into a key, ChaCha20-Poly1305 seals the seed with it.
//!
//! ```text
//! steelyard-ed25519-sealed-key-v1
//! public 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
//! argon2id m=65536 t=3 p=4 salt=000102030405060708090a0b0c0d0e0f
//! chacha20poly1305 nonce=000102030405060708090a0b
//! <96 hexadecimal digits: the 32 bytes of the seed, sealed, and the 16 of the tag>
//! ```
//!
//! The lines before the last are authenticated. The public key stands in the clear, so that a key can be shown and chosen
//! without its passphrase. A file has one text: whatever differs from what [`Sealed::to_text`] writes is refused.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{KeyError, PublicKey, SecretKey};

/// First line of an encrypted key file.
pub(super) const HEADER: &str = "steelyard-ed25519-sealed-key-v1";
/// Cost of a new file: the second choice of RFC 9106, for machines that can't spare 2 GiB: 64 MiB, three passes, four lanes.
const COST: Cost = Cost { memory: 64 * 1024, passes: 3, lanes: 4 };
/// Least memory that is accepted, in KiB: less would be a file that somebody weakened. It is OWASP's least for Argon2id.
const MIN_MEMORY: u32 = 19 * 1024;
/// Most memory that is accepted, in KiB, so that a hostile file can't exhaust it.
const MAX_MEMORY: u32 = 256 * 1024;
/// Most passes and lanes that are accepted: with the most memory, a try takes seconds, not minutes.
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
const SALT: usize = 16;
const NONCE: usize = 12;
/// The seed and the tag.
const SEALED: usize = 32 + 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    const fn is_bounded(&self) -> bool {
        self.memory >= MIN_MEMORY
            && self.memory <= MAX_MEMORY
            && self.passes >= 1
            && self.passes <= MAX_PASSES
            && self.lanes >= 1
            && self.lanes <= MAX_LANES
    }
}

/// A secret key that only its passphrase opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    public: PublicKey,
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE],
    sealed: [u8; SEALED],
}

impl Sealed {
    /// Seals `key` with a passphrase, which must not be empty.
    pub fn seal(key: &SecretKey, passphrase: &[u8]) -> Result<Self, KeyError> {
        if passphrase.is_empty() {
            return Err(KeyError::NoPassphrase);
        }
        let mut random = [0; SALT + NONCE];
        getrandom::fill(&mut random).map_err(|error| KeyError::Random(error.to_string()))?;
        let (mut salt, mut nonce) = ([0; SALT], [0; NONCE]);
        salt.copy_from_slice(&random[..SALT]);
        nonce.copy_from_slice(&random[SALT..]);
        let mut out = Self { public: key.public(), cost: COST, salt, nonce, sealed: [0; SEALED] };
        let (seed, head) = (key.seed(), out.head());
        let payload = Payload { msg: seed.as_ref(), aad: head.as_bytes() };
        let sealed = out.cipher(passphrase)?.encrypt(&Nonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| KeyError::Derive("sealing failed".to_owned()))?;
        out.sealed = sealed.try_into().map_err(|_| KeyError::Derive("sealing failed".to_owned()))?;
        Ok(out)
    }

    /// Opens it. A wrong passphrase and a changed file can't be told apart.
    pub fn open(&self, passphrase: &[u8]) -> Result<SecretKey, KeyError> {
        let head = self.head();
        let payload = Payload { msg: &self.sealed, aad: head.as_bytes() };
        let seed = self.cipher(passphrase)?.decrypt(&Nonce::from(self.nonce), payload);
        let seed = Zeroizing::new(seed.map_err(|_| KeyError::WrongPassphrase)?);
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| KeyError::WrongPassphrase)?;
        let key = SecretKey::from_seed(seed);
        if key.public() == self.public { Ok(key) } else { Err(KeyError::WrongPassphrase) }
    }

    /// The public half, which needs no passphrase.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    fn cipher(&self, passphrase: &[u8]) -> Result<ChaCha20Poly1305, KeyError> {
        let derive = |error: argon2::Error| KeyError::Derive(error.to_string());
        let Cost { memory, passes, lanes } = self.cost;
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(derive)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &self.salt, key.as_mut())
            .map_err(derive)?;
        Ok(ChaCha20Poly1305::new((&*key).into()))
    }

    /// The lines before the last, which are authenticated.
    fn head(&self) -> String {
        let Cost { memory, passes, lanes } = self.cost;
        format!(
            "{HEADER}\npublic {:?}\nargon2id m={memory} t={passes} p={lanes} salt={}\nchacha20poly1305 nonce={}\n",
            self.public,
            HEXLOWER.encode(&self.salt),
            HEXLOWER.encode(&self.nonce)
        )
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        format!("{}{}\n", self.head(), HEXLOWER.encode(&self.sealed))
    }

    /// Reads a file's text; says which part is wrong. Costs beyond the bounds are refused before anything is derived.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err("its first line");
        }
        let public = lines.next().and_then(|line| line.strip_prefix("public ")).and_then(hex::<32>);
        let public = public.and_then(|bytes| PublicKey::from_bytes(&bytes).ok()).ok_or("its public key")?;
        let (cost, salt) = lines.next().and_then(derivation).ok_or("its line `argon2id`")?;
        let nonce = lines.next().and_then(|line| line.strip_prefix("chacha20poly1305 nonce="));
        let nonce = nonce.and_then(hex).ok_or("its line `chacha20poly1305`")?;
        let sealed = lines.next().and_then(hex).ok_or("its sealed key")?;
        if !cost.is_bounded() {
            return Err("its cost, which is outside the bounds");
        }
        let read = Self { public, cost, salt, nonce, sealed };
        if read.to_text() == text { Ok(read) } else { Err("its form") }
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// `argon2id m=65536 t=3 p=4 salt=…`
fn derivation(line: &str) -> Option<(Cost, [u8; SALT])> {
    let mut words = line.strip_prefix("argon2id ")?.split(' ');
    let mut word = |name: &str| words.next()?.strip_prefix(name);
    let memory = word("m=")?.parse().ok()?;
    let passes = word("t=")?.parse().ok()?;
    let lanes = word("p=")?.parse().ok()?;
    Some((Cost { memory, passes, lanes }, hex(word("salt=")?)?))
}
