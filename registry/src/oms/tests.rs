#![allow(clippy::unwrap_used)]
use super::*;
use crate::digest::Sha256;

/// A key that everybody knows.
fn key() -> SigningKey {
    SigningKey::from_scalar(&[7; 32])
}

fn digest(byte: u8) -> Sha256 {
    Sha256::from_bytes([byte; 32])
}

fn manifest() -> Manifest {
    let files = vec![("a.txt".to_owned(), digest(1)), ("sub/b.txt".to_owned(), digest(2))];
    Manifest::new("model".to_owned(), files, vec![FILE_NAME.to_owned()]).unwrap()
}

#[test]
fn what_is_signed_verifies_and_the_same_input_makes_the_same_bytes() {
    let key = key();
    let bundle = sign(&manifest(), &key).unwrap();
    assert_eq!(bundle, sign(&manifest(), &key).unwrap());
    assert_eq!(verify(&bundle, &key.public().unwrap()).unwrap(), manifest());
}

#[test]
fn a_changed_byte_of_the_payload_is_found() {
    let key = key();
    let text = String::from_utf8(sign(&manifest(), &key).unwrap()).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 40;
    let mut bytes = text.into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    assert!(verify(&bytes, &key.public().unwrap()).is_err());
}

#[test]
fn a_folder_must_hold_exactly_what_is_listed() {
    let manifest = manifest();
    let (one, two) = (digest(1), digest(2));
    manifest.compare([("sub/b.txt", &two), ("a.txt", &one)]).unwrap();
    for folder in [
        vec![("a.txt", &one)],
        vec![("a.txt", &two), ("sub/b.txt", &two)],
        vec![("a.txt", &one), ("sub/b.txt", &two), ("c", &one)],
        vec![],
    ] {
        assert!(matches!(manifest.compare(folder), Err(OmsError::Mismatch(_))));
    }
}

#[test]
fn the_key_of_another_curve_is_refused() {
    assert!(SigningKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
    assert!(PublicKey::from_pem("").is_err());
}
