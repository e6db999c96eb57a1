//! Nations and nodes for the tests: everything real, in one process, over loopback.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use node::config::{Config, P2p};
use node::events::{Event, Events};
use node::layout::Layout;
use node::node::{Node, NodeError};
use node::peers::PeerBook;
use node::swarm;
use registry::key::SecretKey;
use registry::statement::{
    Capability, Channel, NodeCertificate, Recall, RecallTarget, Releasable, Release, RoleKeys, RoleName,
    Root, RootKey, Severity, Statement,
};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{ChannelName, Digest, Model, Name, Nation, Signed, Timestamp, Version, publish};
use tempfile::TempDir;

pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A nation with one key for each role.
pub struct Country {
    pub nation: Nation,
    keys: BTreeMap<RoleName, SecretKey>,
    pub root: Signed,
}

impl Country {
    pub fn new(name: &str) -> Self {
        Self::until(name, Timestamp::now().plus(365 * DAY))
    }

    pub fn until(name: &str, expires: Timestamp) -> Self {
        let nation = Nation::new(name).unwrap();
        let mut keys = BTreeMap::new();
        for role in RoleName::ALL {
            let seed = Digest::of(format!("{name}/{role}").as_bytes());
            keys.insert(role, SecretKey::from_seed(seed.as_bytes()));
        }
        let public = |key: &SecretKey| (key.id(), RootKey::Ed25519 { public: key.public() });
        let root = Root {
            nation: nation.clone(),
            version: 1,
            issued: Timestamp::now().plus(-400 * DAY),
            expires,
            keys: keys.values().map(public).collect(),
            roles: keys
                .iter()
                .map(|(role, key)| (*role, RoleKeys { keys: vec![key.id()], threshold: 1 }))
                .collect(),
            previous: None,
        };
        let root = Signed::sign(&Statement::Root(root), &keys[&RoleName::Root]);
        Self { nation, keys, root }
    }

    pub fn sign(&self, role: RoleName, statement: Statement) -> Signed {
        statement.check().unwrap();
        Signed::sign(&statement, &self.keys[&role])
    }

    pub fn certificate(&self, peer_id: &str, expires: Timestamp) -> Signed {
        let certificate = NodeCertificate {
            nation: self.nation.clone(),
            peer_id: peer_id.to_owned(),
            capabilities: vec![Capability::Fetch, Capability::Serve],
            issued: Timestamp::now().plus(-30 * DAY),
            expires,
        };
        self.sign(RoleName::Node, Statement::Node(certificate))
    }

    pub fn trust_in(&self, store: &Store) {
        store.pin_nation(&self.root, self.root.digest(), Timestamp::now()).unwrap();
    }

    pub fn recall(&self, target: RecallTarget, sequence: u64) -> Signed {
        let recall = Recall {
            nation: self.nation.clone(),
            target,
            reason: "it says where the treasure is".to_owned(),
            severity: Severity::High,
            sequence,
            issued: Timestamp::now(),
        };
        self.sign(RoleName::Recall, Statement::Recall(recall))
    }
}

/// A node with its home.
pub struct Home {
    pub dir: TempDir,
    pub node: Node,
    pub nation: Nation,
}

/// What a node is started with.
pub struct Setup {
    pub listen: Vec<String>,
    pub peers: Vec<String>,
    pub certificate: Option<Signed>,
    pub stall_secs: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { listen: vec![TCP.to_owned()], peers: Vec::new(), certificate: None, stall_secs: 20 }
    }
}

pub fn logging() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

impl Home {
    pub async fn start(country: &Country, trusted: &[&Country]) -> Self {
        Self::with(country, trusted, Setup::default()).await.unwrap()
    }

    /// Started with peers to connect to.
    pub async fn joined(country: &Country, trusted: &[&Country], peers: Vec<String>) -> Self {
        Self::with(country, trusted, Setup { peers, ..Setup::default() }).await.unwrap()
    }

    pub async fn with(country: &Country, trusted: &[&Country], setup: Setup) -> Result<Self, NodeError> {
        logging();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir(layout.keys()).unwrap();
        let key = SecretKey::generate().unwrap();
        key.save(&layout.peer_key()).unwrap();
        let peer = node::identity::peer_id(&key).unwrap();
        let certificate =
            setup.certificate.unwrap_or_else(|| country.certificate(&peer, Timestamp::now().plus(30 * DAY)));
        std::fs::write(layout.certificate(), certificate.to_json()).unwrap();
        let store = Store::create(&layout.store(), &country.root, Timestamp::now()).unwrap();
        for other in trusted {
            other.trust_in(&store);
        }
        let node =
            Node::start(config(dir.path(), &setup.listen, &setup.peers, setup.stall_secs), store).await?;
        Ok(Self { dir, node, nation: country.nation.clone() })
    }

    /// Stops the node and starts it again on the same home.
    pub async fn restart(self, peers: Vec<String>) -> Self {
        let Self { dir, node, nation } = self;
        node.shutdown().await;
        drop(node);
        let store = open_store(&Layout::new(dir.path()).store()).await;
        let node = Node::start(config(dir.path(), &[TCP.to_owned()], &peers, 20), store).await.unwrap();
        Self { dir, node, nation }
    }

    pub fn address(&self) -> String {
        self.node.addresses()[0].clone()
    }

    pub async fn dial(&self, other: &Home) {
        self.node.dial(other.address()).await.unwrap();
    }

    /// Publishes files as `nation/name@version` on the channel `stable`.
    pub async fn publish(
        &self,
        country: &Country,
        name: &str,
        version: &str,
        files: &[(&str, Vec<u8>)],
        to: Releasable,
    ) -> Digest {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            std::fs::write(folder.path().join(path), content).unwrap();
        }
        let store = self.node.store().clone();
        let draft = publish::draft(&store, folder.path(), &mut |_| {}).unwrap();
        let model = Model { nation: country.nation.clone(), name: Name::new(name).unwrap() };
        let release = Release {
            model: model.clone(),
            version: Version::new(version).unwrap(),
            format: draft.format,
            licence: "Apache-2.0".to_owned(),
            derived_from: Vec::new(),
            releasable_to: to,
            model_card: None,
            issued: Timestamp::now(),
            files: draft.files,
        };
        let release = country.sign(RoleName::Release, Statement::Release(release));
        let digest = release.digest();
        self.accept(&release).await;
        let channel = ChannelName::new("stable").unwrap();
        let sequence = store.next_channel_sequence(&model, &channel).unwrap();
        let channel = Channel {
            model,
            channel,
            sequence,
            release: digest,
            reason: String::new(),
            issued: Timestamp::now(),
        };
        self.accept(&country.sign(RoleName::Release, Statement::Channel(channel))).await;
        digest
    }

    pub async fn accept(&self, signed: &Signed) -> Digest {
        let accepted = publish::accept(self.node.store(), signed, Timestamp::now()).unwrap();
        self.node.announce(accepted.digest).await;
        accepted.digest
    }

    /// The content of a release's file here.
    pub fn content(&self, release: &Digest, path: &str) -> Option<Vec<u8>> {
        let release = self.node.store().release(release).unwrap()?;
        let blob = release.file(path)?.blake3;
        self.node.store().has_blob(&blob).then(|| std::fs::read(self.node.store().blob_path(&blob)).unwrap())
    }

    /// Changes one byte of a blob's file, as a failing disk would.
    pub fn corrupt(&self, release: &Digest, path: &str, at: u64) {
        use std::os::unix::fs::{FileExt, PermissionsExt};
        let release = self.node.store().release(release).unwrap().unwrap();
        let file: PathBuf = self.node.store().blob_path(&release.file(path).unwrap().blake3);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
    }

    pub async fn stop(&self) {
        self.node.shutdown().await;
    }
}

async fn open_store(path: &Path) -> Store {
    // Tasks that end late may hold the old one for a moment.
    for _ in 0..100 {
        match Store::open(path) {
            Ok(store) => return store,
            Err(registry::store::StoreError::Busy { .. }) => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store stays busy after shutdown");
}

fn config(home: &Path, listen: &[String], peers: &[String], stall_secs: u64) -> Config {
    let mut config = Config::new(home);
    config.p2p.listen = listen.to_vec();
    config.p2p.peers = peers.to_vec();
    config.p2p.redial_secs = 1;
    config.transfer.stall_secs = stall_secs;
    // These nations keep no logs.
    config.policy.witnesses = 0;
    config
}

pub fn only(nations: &[&Country]) -> Releasable {
    Releasable::Nations(nations.iter().map(|country| country.nation.clone()).collect::<BTreeSet<_>>())
}

/// Bytes that don't repeat: their chunks are all different.
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Waits until `ready` holds, for at most `limit`; how long it took.
pub async fn eventually(limit: Duration, what: &str, mut ready: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < limit, "not in {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// A peer with a real connection and no manners: the node's own network without the node.
pub struct Stranger {
    pub peer: PeerId,
    pub started: swarm::Started,
}

impl Stranger {
    /// A node of `country` with a valid certificate, which believes whom `trusting` believes.
    pub async fn new(country: &Country, trusting: &Store) -> Self {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let certificate = country.certificate(&peer.to_base58(), Timestamp::now().plus(DAY));
        Self::with(country.nation.clone(), &keypair, &certificate, trusting).await
    }

    pub async fn with(nation: Nation, keypair: &Keypair, certificate: &Signed, trusting: &Store) -> Self {
        logging();
        let store = trusting.clone();
        let settings = P2p { listen: vec![TCP.to_owned()], ..P2p::default() };
        let book = Arc::new(PeerBook::new(Events::new()));
        let trust: swarm::hello::TrustSource = Arc::new(move || store.trust());
        let started = swarm::start(keypair, certificate, nation, trust, book, &settings).await.unwrap();
        Self { peer: keypair.public().to_peer_id(), started }
    }

    pub async fn dial(&self, to: &Home) -> Result<PeerId, String> {
        let address = to.address().parse().unwrap();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let command = swarm::Command::Dial { peer: None, addresses: vec![address], reply };
        self.started.network.send(command).await;
        answer.await.unwrap()
    }

    pub fn address(&self) -> String {
        format!("{}/p2p/{}", self.started.network.listening()[0], self.peer)
    }
}

/// Collects alerts from now on.
pub struct Alerts(tokio::sync::broadcast::Receiver<Event>);

impl Alerts {
    pub fn of(node: &Node) -> Self {
        Self(node.events().subscribe())
    }

    /// The next alert with this code.
    pub async fn next(&mut self, wanted: &str) -> (String, Option<String>, Option<Nation>) {
        let find = async {
            loop {
                if let Ok(Event::Alert { code, message, peer, nation }) = self.0.recv().await
                    && code == wanted
                {
                    return (message, peer, nation);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), find)
            .await
            .unwrap_or_else(|_| panic!("no alert `{wanted}`"))
    }
}
