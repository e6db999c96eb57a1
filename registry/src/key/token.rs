//! Keys that stay in a PKCS#11 token: the token signs (CKM_EDDSA, pure Ed25519), the secret never leaves it.

use std::fmt;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use super::{KeyError, PublicKey, Signer, TokenUri};

/// The curve as CKA_EC_PARAMS names it: a DER printable string `edwards25519`.
const CURVE: [u8; 14] = *b"\x13\x0cedwards25519";

/// A key in a token, with a session that is logged in.
pub struct TokenKey {
    session: Session,
    private: ObjectHandle,
    public: PublicKey,
    uri: TokenUri,
}

impl TokenKey {
    /// Opens the key that `uri` names.
    pub fn open(uri: &TokenUri, pin: &str) -> Result<Self, KeyError> {
        let session = session(uri, pin, false)?;
        let private = only(&session, uri, ObjectClass::PRIVATE_KEY)?;
        let public = only(&session, uri, ObjectClass::PUBLIC_KEY)?;
        Ok(Self { public: point(&session, uri, public)?, session, private, uri: uri.clone() })
    }

    /// Makes a new key in the token under the label that `uri` names, where there must be none yet.
    pub fn generate(uri: &TokenUri, pin: &str) -> Result<Self, KeyError> {
        let session = session(uri, pin, true)?;
        if !find(&session, uri, ObjectClass::PRIVATE_KEY)?.is_empty() {
            return Err(failed(uri, "there is a key of that name already; choose another `object`"));
        }
        let label = || Attribute::Label(uri.object.clone().into_bytes());
        let public = [
            label(),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(CURVE.to_vec()),
        ];
        let private = [
            label(),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        let (public, private) = session
            .generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
            .map_err(|error| failed(uri, &error))?;
        Ok(Self { public: point(&session, uri, public)?, session, private, uri: uri.clone() })
    }
}

impl Signer for TokenKey {
    fn public(&self) -> PublicKey {
        self.public
    }

    fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        let signature = self.session.sign(&mechanism, self.private, message);
        let signature = signature.map_err(|error| failed(&self.uri, &error))?;
        let signature: [u8; 64] =
            signature.try_into().map_err(|_| failed(&self.uri, "its signature is not 64 bytes long"))?;
        // A token that signs with another key, or otherwise than RFC 8032 says, is found out here and not by an ally.
        if self.public.verify(message, &signature) {
            Ok(signature)
        } else {
            Err(failed(&self.uri, "its signature does not verify with its public key"))
        }
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.public.id().short())
    }
}

fn failed(uri: &TokenUri, why: impl fmt::Display) -> KeyError {
    KeyError::Token { token: uri.token.clone(), object: uri.object.clone(), why: why.to_string() }
}

fn session(uri: &TokenUri, pin: &str, write: bool) -> Result<Session, KeyError> {
    let fail = |error: Error| match error {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
            failed(uri, "the PIN is wrong; a few wrong ones lock the token")
        }
        error => failed(uri, error),
    };
    let module = Pkcs11::new(&uri.module).map_err(fail)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another key of this process uses the same module.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(fail(error)),
    }
    let mut found = None;
    for slot in module.get_slots_with_token().map_err(fail)? {
        if module.get_token_info(slot).map_err(fail)?.label() == uri.token && found.replace(slot).is_some() {
            return Err(failed(uri, "two tokens have that label"));
        }
    }
    let slot = found.ok_or_else(|| failed(uri, "no token with that label is plugged in"))?;
    let session =
        if write { module.open_rw_session(slot) } else { module.open_ro_session(slot) }.map_err(fail)?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(fail(error)),
    }
}

fn find(session: &Session, uri: &TokenUri, class: ObjectClass) -> Result<Vec<ObjectHandle>, KeyError> {
    let template = [
        Attribute::Class(class),
        Attribute::KeyType(KeyType::EC_EDWARDS),
        Attribute::Label(uri.object.clone().into_bytes()),
    ];
    session.find_objects(&template).map_err(|error| failed(uri, error))
}

fn only(session: &Session, uri: &TokenUri, class: ObjectClass) -> Result<ObjectHandle, KeyError> {
    match find(session, uri, class)?.as_slice() {
        [one] => Ok(*one),
        [] => Err(failed(uri, "it holds no Ed25519 key of that name, or not both halves of it")),
        _ => Err(failed(uri, "it holds several keys of that name")),
    }
}

/// The public key: CKA_EC_POINT is a DER octet string around the 32 bytes; some tokens leave that out.
fn point(session: &Session, uri: &TokenUri, key: ObjectHandle) -> Result<PublicKey, KeyError> {
    let attributes =
        session.get_attributes(key, &[AttributeType::EcPoint]).map_err(|error| failed(uri, error))?;
    let bytes = attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => match point.as_slice() {
            [0x04, 0x20, bytes @ ..] => bytes.try_into().ok(),
            bytes => bytes.try_into().ok(),
        },
        _ => None,
    });
    PublicKey::from_bytes(&bytes.ok_or_else(|| failed(uri, "its public key is not one of Ed25519"))?)
}
