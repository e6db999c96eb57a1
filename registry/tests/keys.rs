//! Keys at rest: in the clear, sealed by a passphrase, in a token.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use registry::envelope::Role;
use registry::key::{Key, KeyError, KeyFile, Sealed, SecretKey, Signer, TokenKey, TokenUri};
use registry::statement::{Recall, RecallTarget, Severity, Statement};
use registry::{Digest, Nation, Signed, Timestamp};

fn recall() -> Statement {
    Statement::Recall(Recall {
        nation: Nation::new("alba").unwrap(),
        target: RecallTarget::Release(Digest::of(b"r")),
        reason: "a test".into(),
        severity: Severity::Low,
        sequence: 1,
        issued: Timestamp::from_unix(1_790_000_000),
    })
}

#[test]
fn a_sealed_key_opens_with_its_passphrase_alone() {
    let key = SecretKey::generate().unwrap();
    let sealed = Sealed::seal(&key, b"correct horse battery staple").unwrap();
    assert_eq!(sealed.public(), key.public());
    assert_eq!(sealed.open(b"correct horse battery staple").unwrap().id(), key.id());
    assert!(matches!(sealed.open(b"correct horse battery stapler"), Err(KeyError::WrongPassphrase)));
    assert!(matches!(Sealed::seal(&key, b""), Err(KeyError::NoPassphrase)));
    let text = sealed.to_text();
    assert_eq!(Sealed::parse(&text).unwrap(), sealed);
    assert!(
        !text.contains(&data_encoding::HEXLOWER.encode(key.seed().as_ref())),
        "the seed is not in the file"
    );
    // Twice the same key with the same passphrase: nothing of the files can be compared.
    let other = Sealed::seal(&key, b"correct horse battery staple").unwrap().to_text();
    assert_ne!(other.lines().last(), text.lines().last());
}

#[test]
fn what_stands_before_the_sealed_part_is_authenticated() {
    let key = SecretKey::generate().unwrap();
    let text = Sealed::seal(&key, b"words").unwrap().to_text();
    let stranger = format!("public {:?}", SecretKey::generate().unwrap().public());
    let public = text.lines().nth(1).unwrap().to_owned();
    let swapped = Sealed::parse(&text.replace(&public, &stranger)).unwrap();
    assert!(matches!(swapped.open(b"words"), Err(KeyError::WrongPassphrase)));
    let cheaper = Sealed::parse(&text.replace("t=3", "t=2")).unwrap();
    assert!(matches!(cheaper.open(b"words"), Err(KeyError::WrongPassphrase)));
}

#[test]
fn costs_beyond_the_bounds_are_refused_before_anything_is_derived() {
    let text = Sealed::seal(&SecretKey::generate().unwrap(), b"words").unwrap().to_text();
    for (what, with) in [
        ("m=65536", "m=4294967295"),
        ("m=65536", "m=262145"),
        ("m=65536", "m=8"),
        ("m=65536", "m=065536"),
        ("m=65536", "m=+65536"),
        ("t=3", "t=0"),
        ("t=3", "t=17"),
        ("p=4", "p=0"),
        ("p=4", "p=4096"),
        ("salt=", "salt=00"),
        ("nonce=", "nonce=0"),
        ("argon2id", "argon2i"),
        ("public ", "public  "),
        ("-v1", "-v2"),
        ("\n", "\r\n"),
    ] {
        assert!(KeyFile::parse(&text.replacen(what, with, 1)).is_err(), "{what} -> {with}");
    }
    assert!(KeyFile::parse(&format!("{text}\n")).is_err());
    assert!(KeyFile::parse(text.trim_end()).is_err());
}

#[test]
fn a_file_is_replaced_in_one_step_and_read_only_when_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.key");
    let key = SecretKey::generate().unwrap();
    key.save(&path).unwrap();
    let sealed = Sealed::seal(&key, b"words").unwrap();
    assert!(KeyFile::Sealed(sealed.clone()).save(&path).is_err(), "never replaced by accident");
    KeyFile::Sealed(sealed).replace(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    assert!(matches!(SecretKey::load(&path), Err(KeyError::NotPlain { .. })));
    let KeyFile::Sealed(sealed) = KeyFile::load(&path).unwrap() else { panic!("not sealed") };
    assert_eq!(sealed.open(b"words").unwrap().id(), key.id());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(KeyFile::load(&path), Err(KeyError::Exposed { .. })));
    std::fs::write(dir.path().join("large"), vec![b'a'; 5000]).unwrap();
    std::fs::set_permissions(dir.path().join("large"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(KeyFile::load(&dir.path().join("large")), Err(KeyError::NotAKey { .. })));
}

#[test]
fn token_uris_are_read_as_rfc_7512_says_and_no_further() {
    let uri = TokenUri::parse(
        "pkcs11:token=North%20Sea;object=root?module-path=/usr/lib/x.so&pin-source=file:/etc/pin",
    )
    .unwrap();
    assert_eq!((uri.token.as_str(), uri.object.as_str()), ("North Sea", "root"));
    assert_eq!(uri.pin.as_deref(), Some(Path::new("/etc/pin")));
    assert_eq!(TokenUri::parse(&uri.to_string()).unwrap(), uri);
    for (why, text) in [
        ("another scheme", "pkcs12:token=a;object=b?module-path=/x"),
        ("no token", "pkcs11:object=b?module-path=/x"),
        ("no key", "pkcs11:token=a?module-path=/x"),
        ("no module", "pkcs11:token=a;object=b"),
        ("a relative module", "pkcs11:token=a;object=b?module-path=x.so"),
        ("a PIN in the file", "pkcs11:token=a;object=b?module-path=/x&pin-value=1234"),
        ("twice", "pkcs11:token=a;token=c;object=b?module-path=/x"),
        ("what narrows it", "pkcs11:token=a;object=b;serial=1?module-path=/x"),
        ("bad encoding", "pkcs11:token=a%2;object=b?module-path=/x"),
        ("a control character", "pkcs11:token=a%0A;object=b?module-path=/x"),
        ("not UTF-8", "pkcs11:token=a%ff;object=b?module-path=/x"),
        ("a space", "pkcs11:token=a b;object=b?module-path=/x"),
        ("a long label", &format!("pkcs11:token={};object=b?module-path=/x", "a".repeat(200))),
        ("no value", "pkcs11:token;object=b?module-path=/x"),
    ] {
        assert!(TokenUri::parse(text).is_err(), "{why}");
    }
}

/// Where Debian's softhsm2 puts its module.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A fresh SoftHSM token in a process of its own settings: the module reads `SOFTHSM2_CONF` once, so the test runs itself
/// again with it set.
#[test]
fn a_key_in_a_token_signs_what_a_role_accepts() {
    if !Path::new(MODULE).exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{MODULE} is not there; `scripts/setup.sh --optional` installs softhsm2"
        );
        eprintln!("skipped: {MODULE} is not there; `scripts/setup.sh --optional` installs softhsm2");
        return;
    }
    if let Some(home) = std::env::var_os("STEELYARD_TEST_TOKEN") {
        return in_token(&PathBuf::from(home));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tokens")).unwrap();
    let config = dir.path().join("softhsm2.conf");
    std::fs::write(&config, format!("directories.tokendir = {}/tokens\n", dir.path().display())).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "alba test", "--so-pin", "12345678", "--pin", "4321"])
        .env("SOFTHSM2_CONF", &config)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_key_in_a_token_signs_what_a_role_accepts", "--nocapture"])
        .env("SOFTHSM2_CONF", &config)
        .env("STEELYARD_TEST_TOKEN", dir.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

fn in_token(home: &Path) {
    let uri =
        TokenUri::parse(&format!("pkcs11:token=alba%20test;object=release?module-path={MODULE}")).unwrap();
    assert!(TokenKey::open(&uri, "4321").unwrap_err().to_string().contains("no Ed25519 key"));
    let made = TokenKey::generate(&uri, "4321").unwrap();
    let public = made.public();
    assert!(TokenKey::generate(&uri, "4321").is_err(), "a key of that name is there");
    drop(made);
    let wrong = TokenUri { token: "borea".into(), ..uri.clone() };
    assert!(TokenKey::open(&wrong, "4321").unwrap_err().to_string().contains("no token"));
    let key = Key::Token(Box::new(TokenKey::open(&uri, "4321").unwrap()));
    assert_eq!(key.public(), public);
    let file = SecretKey::generate().unwrap();
    let mut signed = Signed::sign_by(&recall(), &key).unwrap();
    assert!(signed.cosign_by(&file).unwrap());
    assert!(!signed.cosign_by(&key).unwrap(), "each key signs once");
    let role = Role {
        name: "recall of alba".into(),
        keys: [(key.id(), key.public()), (file.id(), file.public())].into(),
        threshold: 2,
    };
    let verified = Signed::parse(&signed.to_json()).unwrap().verify(&role).unwrap();
    assert_eq!(verified.signers().len(), 2);
    // The reference lies in a file as a key does.
    let path = home.join("release.key");
    KeyFile::Token(uri.clone()).save(&path).unwrap();
    assert!(matches!(KeyFile::load(&path).unwrap(), KeyFile::Token(read) if read == uri));
    drop(key);
    assert!(TokenKey::open(&uri, "0000").unwrap_err().to_string().contains("PIN"));
}
