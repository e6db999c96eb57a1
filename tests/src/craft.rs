//! Nations that no command would make: with a root that ends in a moment, or with several signers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use registry::key::SecretKey;
use registry::statement::{Capability, NodeCertificate, RoleKeys, RoleName, Root, RootKey, Statement};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Nation, Signed, Timestamp};
use serde_json::{Value, json};

use crate::net::{Home, Net, Settings};

/// Makes the home folder of a nation whose root ends `seconds` from now, laid out as `steelyard init` does it.
pub fn nation_that_ends(net: &Net, name: &str, seconds: i64) -> Home {
    let home = Home { nation: name.to_owned(), path: net.path().join(name), env: Vec::new(), netns: None };
    let nation = Nation::new(name).expect("a nation's name");
    let now = Timestamp::now();
    let keys_folder = home.path.join("keys");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys_folder).expect("a folder for keys");
    fs::set_permissions(&keys_folder, fs::Permissions::from_mode(0o700)).expect("its mode");

    let mut keys = BTreeMap::new();
    let mut roles = BTreeMap::new();
    let mut secret = BTreeMap::new();
    for role in RoleName::ALL {
        let key = SecretKey::generate().expect("a key");
        key.save(&keys_folder.join(format!("{role}.key"))).expect("save the key");
        keys.insert(key.id(), RootKey::Ed25519 { public: key.public() });
        roles.insert(role, RoleKeys { keys: vec![key.id()], threshold: 1 });
        secret.insert(role, key);
    }
    let root = Root {
        nation: nation.clone(),
        version: 1,
        issued: now.plus(-DAY),
        expires: now.plus(seconds),
        keys,
        roles,
        previous: None,
    };
    let root = Signed::sign(&Statement::Root(root), &secret[&RoleName::Root]);
    fs::write(home.path.join("root.json"), root.to_json()).expect("write root.json");

    let peer = SecretKey::generate().expect("a key");
    peer.save(&keys_folder.join("peer.key")).expect("save the key");
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes(peer.seed().to_vec()).expect("a key pair");
    let certificate = NodeCertificate {
        nation,
        peer_id: keypair.public().to_peer_id().to_string(),
        capabilities: vec![Capability::Fetch, Capability::Serve],
        issued: now.plus(-DAY),
        expires: now.plus(365 * DAY),
    };
    let certificate = Signed::sign(&Statement::Node(certificate), &secret[&RoleName::Node]);
    fs::write(home.path.join("node.json"), certificate.to_json()).expect("write node.json");
    let value = |signed: &Signed| -> Value { serde_json::from_slice(&signed.to_json()).expect("JSON") };
    let file = json!({ "root": value(&root), "nodes": [value(&certificate)], "addresses": [] });
    fs::write(home.nation_file(), file.to_string()).expect("write nation.json");
    drop(Store::create(&home.path.join("store"), &root, now).expect("make the store"));
    home.configure(&Settings::default());
    home
}
