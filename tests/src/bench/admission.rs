//! How many releases a second are admitted with full evidence: signatures, lineage, recalls and attestations verified anew, the
//! policy asked, every blob looked for, the decision recorded durably.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use registry::key::SecretKey;
use registry::policy::Policy;
use registry::publish;
use registry::statement::{
    Attestation, DerivedFrom, Recall, RecallTarget, Relation, Releasable, Release, RoleKeys, RoleName, Root,
    RootKey, Severity, Statement, Suite, Verdict,
};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Digest, Nation, Signed, Timestamp, Version, admit};

use super::report::{Bar, Table};

/// What two nations must attest of each release.
const POLICY: &str = r#"
@id("two-allies-vouch")
@reason("{passes} allies vouch")
@advice("ask them")
forbid (principal, action == Action::"admit", resource)
unless { context.passes >= 2 && context.fails == 0 };
"#;
/// Recalls of other releases that every decision looks at.
const RECALLS: u64 = 100;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Admissions {
    /// Releases admitted.
    pub releases: usize,
    /// Seconds for all of them, one after the other, each durable before the next.
    pub seconds: f64,
    /// Seconds for deciding about all of them without recording it.
    pub deciding: f64,
}

impl Admissions {
    /// Releases admitted in a second.
    pub fn rate(&self) -> f64 {
        self.releases as f64 / self.seconds
    }

    /// Decisions in a second.
    pub fn decisions(&self) -> f64 {
        self.releases as f64 / self.deciding
    }
}

/// The part of `bench-trust`: our admissions beside python `tuf`, where STEELYARD_BENCH_TUF names a Python that has it. Without a
/// bar: the issue names no figure, and the peer does less.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let count = super::options::number("STEELYARD_BENCH_ADMISSIONS", 1000).max(1) as usize;
    let ours = admissions(folder, count);
    let mut table = Table::new(&["how", "releases", "a second"]);
    table.row(&[&"steelyard: admitted and recorded durably", &count, &format!("{:.0}", ours.rate())]);
    table.row(&[&"steelyard: decided, not recorded", &count, &format!("{:.0}", ours.decisions())]);
    if let Some(python) = std::env::var_os("STEELYARD_BENCH_TUF") {
        let theirs = python_tuf(Path::new(&python), count)
            .ok_or_else(|| format!("{} lacks tuf and securesystemslib[crypto]", python.display()))?;
        table.row(&[&"python tuf: read and verified", &count, &format!("{theirs:.0}")]);
    }
    println!("### Admission\n\n{table}");
    Ok(Vec::new())
}

fn nation(name: &str) -> Nation {
    Nation::new(name).expect("a nation's name")
}

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(name.as_bytes()).as_bytes())
}

/// The root of a nation whose one key plays every role.
fn root(name: &str, now: Timestamp) -> Signed {
    let key = key(name);
    let role = RoleKeys { keys: vec![key.id()], threshold: 1 };
    let root = Root {
        nation: nation(name),
        version: 1,
        issued: now,
        expires: now.plus(365 * DAY),
        keys: [(key.id(), RootKey::Ed25519 { public: key.public() })].into(),
        roles: RoleName::ALL.into_iter().map(|name| (name, role.clone())).collect(),
        previous: None,
    };
    Signed::sign(&Statement::Root(root), &key)
}

/// Admits `count` releases of alba at a node of cora, below `folder`: each of a file of its own, derived from a base, with
/// attestations by two allies and recalls of other releases beside it.
pub fn admissions(folder: &Path, count: usize) -> Admissions {
    let now = Timestamp::now();
    let home = tempfile::tempdir_in(folder).expect("a folder");
    let store = Store::create(&home.path().join("store"), &root("cora", now), now).expect("a store");
    for ally in ["alba", "borea", "dora"] {
        let root = root(ally, now);
        store.pin_nation(&root, root.digest(), now).expect("pin an ally");
    }
    store.set_policy(Policy::own("bench", POLICY, false, 0).expect("a policy").into());
    let learn = |statement: Statement| {
        let key = key(statement.nation().as_str());
        publish::learn(&store, &Signed::sign(&statement, &key), now).expect("a statement").digest
    };
    for sequence in 1..=RECALLS {
        let target = RecallTarget::Release(Digest::of(&sequence.to_le_bytes()));
        let (reason, severity) = ("another one".to_owned(), Severity::High);
        learn(Statement::Recall(Recall {
            nation: nation("alba"),
            target,
            reason,
            severity,
            sequence,
            issued: now,
        }));
    }
    let path = home.path().join("model.json");
    let mut base = None;
    let mut releases = Vec::with_capacity(count);
    for number in 0..count {
        fs::write(&path, format!("{{\"number\": {number}}}")).expect("write a file");
        let draft = publish::draft(&store, &path, &mut |_| {}).expect("a draft");
        let digest = learn(Statement::Release(Release {
            model: "alba/bench".parse().expect("a model"),
            version: Version::new(&number.to_string()).expect("a version"),
            format: draft.format,
            licence: "Apache-2.0".to_owned(),
            derived_from: base
                .iter()
                .map(|base| DerivedFrom { release: *base, relation: Relation::FineTune })
                .collect(),
            releasable_to: Releasable::All,
            model_card: None,
            issued: now,
            files: draft.files,
        }));
        base.get_or_insert(digest);
        for ally in ["borea", "dora"] {
            learn(Statement::Attestation(Attestation {
                nation: nation(ally),
                release: digest,
                suite: Suite { name: "bench".to_owned(), digest: None },
                results: Vec::new(),
                verdict: Verdict::Pass,
                summary: String::new(),
                issued: now,
                valid_until: now.plus(DAY),
            }));
        }
        releases.push(digest);
    }
    let begun = Instant::now();
    for release in &releases {
        let (_, decision) = admit::decide(&store, release, now).expect("a decision");
        assert!(decision.allowed, "{decision:?}");
    }
    let deciding = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for release in &releases {
        admit::admit(&store, release, now).expect("admitted");
    }
    Admissions { releases: count, seconds: begun.elapsed().as_secs_f64(), deciding }
}

/// The nearest thing in python `tuf`: as many targets' metadata, each with two Ed25519 signatures, read from JSON and
/// verified against its role. Nothing is recorded, no policy is asked. Targets a second; nothing where `python` lacks the
/// packages `tuf` and `securesystemslib[crypto]`.
pub fn python_tuf(python: &Path, count: usize) -> Option<f64> {
    const SCRIPT: &str = r#"
import sys, time, datetime, json
from tuf.api.metadata import Metadata, Targets, Root, Role, TargetFile
from securesystemslib.signer import CryptoSigner
count = int(sys.argv[1])
signers = [CryptoSigner.generate_ed25519() for _ in range(2)]
root = Root()
for signer in signers:
    root.add_key(signer.public_key, "targets")
root.roles["targets"].threshold = 2
texts = []
for n in range(count):
    targets = Metadata(Targets(version=n + 1, expires=datetime.datetime(2099, 1, 1, tzinfo=datetime.timezone.utc)))
    targets.signed.targets["model"] = TargetFile.from_data("model", b"%d" % n)
    for i, signer in enumerate(signers):
        targets.sign(signer, append=i > 0)
    texts.append(targets.to_bytes())
begun = time.perf_counter()
for text in texts:
    targets = Metadata.from_bytes(text)
    root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
print(count / (time.perf_counter() - begun))
"#;
    let run = Command::new(python).args(["-c", SCRIPT, &count.to_string()]).output().ok()?;
    if !run.status.success() {
        let why = String::from_utf8_lossy(&run.stderr);
        println!("python tuf could not be run: {}", why.lines().last().unwrap_or_default());
        return None;
    }
    String::from_utf8_lossy(&run.stdout).trim().parse().ok()
}
