//! `steelyard init`: a nation with its keys and first node, or a further node of it. All or nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use node::config::Config;
use node::identity;
use node::layout::{KEYS_MODE, Layout};
use node::nation_file::{self, NationFile};
use registry::key::{Key, SecretKey, Signer};
use registry::statement::{Capability, NodeCertificate, RoleKeys, RoleName, Root, RootKey, Statement};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::trust::self_signed_root;
use registry::{Digest, Nation, Signed, Timestamp};
use serde::Serialize;

use crate::context::{Context, absolute};
use crate::draft::Draft;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::keys;
use crate::output::{self, BOLD, DIM, NAME, paint};
use crate::settings::Network;

/// Longest life of a root, in days: long enough for any plan, short enough that somebody looks again.
const MAX_EXPIRES_DAYS: i64 = 3650;

/// Make a nation with its keys and first node, or a further node of it
///
/// Writes the nation's keys (root, release, attest, recall, log, node, witness), the node's own key, the signed root, the node's
/// certificate, commented settings and `nation.json`, the file that allies add. Nothing that exists is ever overwritten:
/// either all of it is made or nothing. With --join, a further node of a nation is made, certified with that nation's
/// node key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard init --nation alba
  steelyard --home /srv/alba init --nation alba --external /dns4/node.alba.example/tcp/4801
  steelyard init --nation alba --root root.draft --node-key bernd.key
  steelyard --home /srv/alba-2 init --join /srv/alba --listen /ip4/0.0.0.0/tcp/4802")]
pub(crate) struct Init {
    /// The nation's name: 1 to 32 lowercase letters, digits and inner hyphens
    #[arg(long, value_name = "NAME", required_unless_present = "join", conflicts_with = "join")]
    nation: Option<Nation>,
    /// Use the root that a ceremony made (`steelyard root init`, `root sign`) instead of making keys
    #[arg(long, value_name = "FILE", requires = "nation", requires = "node_key")]
    root: Option<PathBuf>,
    /// The key file of that root's node role, which certifies the first node; it is read once and not copied
    #[arg(long, value_name = "KEY", requires = "root")]
    node_key: Option<PathBuf>,
    /// Make a further node of the nation whose home or keys folder this is
    #[arg(long, value_name = "FOLDER")]
    join: Option<PathBuf>,
    /// Days until the nation's root and the node's certificate end
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=MAX_EXPIRES_DAYS))]
    expires_days: i64,
    #[command(flatten)]
    network: Network,
}

#[derive(Serialize)]
struct Made<'a> {
    nation: &'a Nation,
    fingerprint: Digest,
    peer_id: &'a str,
    home: &'a Path,
    nation_file: PathBuf,
    expires: Timestamp,
    joined: bool,
}

/// A nation's signed root and what a new node of it needs.
struct Origin {
    root: Signed,
    /// The roots that follow it.
    later: Vec<Signed>,
    nation: Nation,
    node_key: Key,
    /// New keys to keep; none when joining.
    keys: Vec<(RoleName, SecretKey)>,
    /// Other nodes of the nation.
    nodes: Vec<Signed>,
    addresses: Vec<String>,
    expires: Timestamp,
}

impl Init {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let now = Timestamp::now();
        let home = context.home();
        refuse_existing(home)?;
        let mut config = Config::new(home);
        self.network.apply(&mut config)?;
        let origin = match (&self.nation, &self.join) {
            (Some(nation), _) => match (&self.root, &self.node_key) {
                (Some(root), Some(key)) => ceremony(context, nation, root, key, now)?,
                _ => found(nation, now, now.plus(self.expires_days * DAY))?,
            },
            (None, Some(folder)) => join(context, &absolute(folder)?, now.plus(self.expires_days * DAY))?,
            (None, None) => return Err(Failure::usage("either --nation or --join is needed")),
        };
        let peer_key = SecretKey::generate()?;
        let peer_id = identity::peer_id(&peer_key).map_err(anyhow::Error::from)?;

        let parent =
            home.parent().ok_or_else(|| Failure::usage("the home folder can't be the root folder"))?;
        fs::create_dir_all(parent)
            .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", parent.display())))?;
        let nursery = Nursery::new(parent)?;
        let layout = Layout::new(nursery.path());
        write(&layout, &origin, &peer_key, &peer_id, &config, now)?;
        nursery.into_place(home)?;

        let fingerprint = origin.root.digest();
        let nation_file = context.layout.nation();
        if context.json {
            return output::json(&Made {
                nation: &origin.nation,
                fingerprint,
                peer_id: &peer_id,
                home,
                nation_file,
                expires: origin.expires,
                joined: self.join.is_some(),
            });
        }
        report(context, &origin, &peer_id, self.join.is_some(), now)
    }
}

fn report(
    context: &Context,
    origin: &Origin,
    peer_id: &str,
    joined: bool,
    now: Timestamp,
) -> Result<(), Failure> {
    let home = context.home();
    let nation = &origin.nation;
    let [first, second] = human::fingerprint(&origin.root.digest());
    let what = if joined { "Another node of the nation" } else { "The nation" };
    output::print(&format!("{} {} is ready.\n\n", what, paint(NAME.bold(), nation)))?;
    output::print(&output::facts(&[
        ("fingerprint", format!("{}\n{}", paint(BOLD, &first), paint(BOLD, &second))),
        ("this node", peer_id.to_owned()),
        ("folder", home.display().to_string()),
        ("valid until", format!("{} ({})", origin.expires, human::relative(origin.expires, now))),
    ]))?;
    let steelyard = context.command();
    let root_key = context.layout.key(RoleName::Root);
    let mut steps = Vec::new();
    if !origin.keys.is_empty() {
        steps.push(format!(
            "Move {} to a place offline.\n   {}",
            paint(BOLD, root_key.display()),
            paint(DIM, "Whoever has it is your nation. The node never needs it.")
        ));
    }
    steps.push(format!("Start the node:  {}", paint(BOLD, format!("{steelyard} node"))));
    steps.push(format!(
        "Give {} to allies and tell them the fingerprint over another way.\n   {}",
        paint(BOLD, context.layout.nation().display()),
        paint(DIM, "They run `steelyard trust add nation.json` and compare it with you.")
    ));
    output::line(format!("\n{}", paint(BOLD, "What next")))?;
    for (number, step) in steps.iter().enumerate() {
        output::line(format!("{}. {step}", number + 1))?;
    }
    Ok(())
}

fn refuse_existing(home: &Path) -> Result<(), Failure> {
    let taken = match fs::read_dir(home) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::new(Exit::Other, format!("{}: {error}", home.display()))),
    };
    if !taken {
        return Ok(());
    }
    let what = if Layout::new(home).is_initialised() { "holds a node already" } else { "is not empty" };
    Err(Failure::new(Exit::Busy, format!("{} {what}; nothing was changed", home.display()))
        .help("name another folder with --home"))
}

/// A new nation: one key a role.
fn found(nation: &Nation, now: Timestamp, expires: Timestamp) -> Result<Origin, Failure> {
    let mut keys = Vec::new();
    for role in RoleName::ALL {
        keys.push((role, SecretKey::generate()?));
    }
    let root = Statement::Root(Root {
        nation: nation.clone(),
        version: 1,
        issued: now,
        expires,
        keys: keys.iter().map(|(_, key)| (key.id(), RootKey::Ed25519 { public: key.public() })).collect(),
        roles: keys
            .iter()
            .map(|(role, key)| (*role, RoleKeys { keys: vec![key.id()], threshold: 1 }))
            .collect(),
        previous: None,
    });
    root.check().map_err(anyhow::Error::from)?;
    let secret = |wanted: RoleName| {
        let found = keys.iter().find(|(role, _)| *role == wanted);
        found.map(|(_, key)| SecretKey::from_seed(&key.seed()))
    };
    let (Some(root_key), Some(node_key)) = (secret(RoleName::Root), secret(RoleName::Node)) else {
        return Err(Failure::new(Exit::Other, "a role has no key"));
    };
    Ok(Origin {
        root: Signed::sign(&root, &root_key),
        later: Vec::new(),
        nation: nation.clone(),
        node_key: Key::Memory(Box::new(node_key)),
        keys,
        nodes: Vec::new(),
        addresses: Vec::new(),
        expires,
    })
}

/// A new nation whose root several people made.
fn ceremony(
    context: &Context,
    nation: &Nation,
    root: &Path,
    node_key: &Path,
    now: Timestamp,
) -> Result<Origin, Failure> {
    let draft = Draft::load(root)?;
    let signed = draft.parts.into_iter().next().and_then(|part| part.signed);
    let signed = signed.ok_or_else(|| {
        Failure::new(Exit::Verification, format!("{} is signed by nobody yet", root.display()))
            .help("each signer adds a signature with `steelyard root sign`")
    })?;
    let verified = self_signed_root(&signed)?;
    if verified.nation != *nation {
        let message = format!("{} is the root of `{}`, not of `{nation}`", root.display(), verified.nation);
        return Err(Failure::usage(message));
    }
    let key = certifier(context, node_key, &verified, now)?;
    Ok(Origin {
        root: signed.clone(),
        later: Vec::new(),
        nation: nation.clone(),
        node_key: key,
        keys: Vec::new(),
        nodes: Vec::new(),
        addresses: Vec::new(),
        expires: verified.expires,
    })
}

/// Opens the key that certifies nodes under `root`, which must not have ended.
fn certifier(context: &Context, path: &Path, root: &Root, now: Timestamp) -> Result<Key, Failure> {
    let refuse = |why: String| Err(Failure::new(Exit::Verification, why));
    if root.expires <= now {
        return refuse(format!("the root of `{}` expired at {}", root.nation, root.expires));
    }
    let key = keys::open(context, path)?;
    let role = root.role(RoleName::Node);
    if !role.keys.contains_key(&key.id()) || role.threshold > 1 {
        return refuse(format!("{} can't certify nodes of `{}` by itself", path.display(), root.nation));
    }
    Ok(key)
}

/// A nation that exists: its root and node key from `folder`, a home or the keys folder in one.
fn join(context: &Context, folder: &Path, wanted: Timestamp) -> Result<Origin, Failure> {
    let is_home = folder.join("keys").is_dir();
    let (home, keys) = if is_home {
        (folder.to_owned(), folder.join("keys"))
    } else {
        (folder.parent().unwrap_or(folder).to_owned(), folder.to_owned())
    };
    let missing = |path: &Path, what: &str| {
        Failure::new(Exit::NotFound, format!("{} is not there: {what}", path.display())).help(
            "--join takes the home folder of a node of that nation, or its keys folder beside root.json",
        )
    };
    let nation_path =
        [home.join("nation.json"), keys.join("nation.json")].into_iter().find(|path| path.is_file());
    let nation_path =
        nation_path.ok_or_else(|| missing(&home.join("nation.json"), "the nation's file is needed"))?;
    let file = NationFile::load(&nation_path)?;
    let root = file.newest_root()?;
    let key_path = keys.join("node.key");
    if !key_path.is_file() {
        return Err(missing(&key_path, "the nation's node key certifies the new node"));
    }
    let node_key = certifier(context, &key_path, &root, Timestamp::now())?;
    Ok(Origin {
        nation: root.nation.clone(),
        // A certificate that outlives the root would be worth nothing.
        expires: wanted.min(root.expires),
        root: file.root,
        later: file.later,
        node_key,
        keys: Vec::new(),
        nodes: file.nodes,
        addresses: file.addresses,
    })
}

/// Writes everything below `layout`, durably.
fn write(
    layout: &Layout,
    origin: &Origin,
    peer_key: &SecretKey,
    peer_id: &str,
    config: &Config,
    now: Timestamp,
) -> Result<(), Failure> {
    fs::DirBuilder::new().mode(KEYS_MODE).create(layout.keys())?;
    for (role, key) in &origin.keys {
        key.save(&layout.key(*role))?;
    }
    peer_key.save(&layout.peer_key())?;
    let certificate = Statement::Node(NodeCertificate {
        nation: origin.nation.clone(),
        peer_id: peer_id.to_owned(),
        capabilities: vec![Capability::Fetch, Capability::Serve],
        issued: now,
        expires: origin.expires,
    });
    certificate.check().map_err(anyhow::Error::from)?;
    let certificate = Signed::sign_by(&certificate, &origin.node_key)?;
    save(&layout.root(), &origin.root.to_json())?;
    save(&layout.certificate(), &certificate.to_json())?;
    save(&layout.config(), config.template().as_bytes())?;
    let mut file = NationFile {
        root: origin.root.clone(),
        later: origin.later.clone(),
        nodes: origin.nodes.clone(),
        addresses: origin.addresses.clone(),
    };
    file.nodes.push(certificate);
    file.addresses.extend(nation_file::reachable(config, peer_id));
    save(&layout.nation(), &file.to_json()?)?;
    // The store opens it once more when a command comes; made here so that a folder is whole from the start.
    drop(Store::create_with(&layout.store(), &origin.root, &origin.later, now)?);
    Ok(())
}

fn save(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("{}: {error}", path.display()));
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

/// A folder beside the home that becomes it, or is removed.
struct Nursery(PathBuf);

impl Nursery {
    fn new(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!(".steelyard-init-{}", std::process::id()));
        let failed =
            |error: std::io::Error| Failure::new(Exit::Other, format!("{}: {error}", path.display()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Moves the folder to `home`, which must be missing or empty: the system refuses to replace anything else.
    fn into_place(self, home: &Path) -> Result<(), Failure> {
        let sync = |path: &Path| fs::File::open(path).and_then(|folder| folder.sync_all());
        sync(&self.0)?;
        fs::rename(&self.0, home).map_err(|error| {
            Failure::new(
                Exit::Other,
                format!("{} could not be put in place: {error}; nothing was changed", home.display()),
            )
            .help("the home folder must be missing or empty, and no mount point: name a folder inside it")
        })?;
        home.parent().map_or(Ok(()), sync)?;
        Ok(())
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // Gone already where it was moved into place.
        let _ = fs::remove_dir_all(&self.0);
    }
}
