//! How many releases a second are admitted with full evidence: signatures, lineage, recalls, attestations by two allies and the
//! place in a log that two allies cosigned, the policy asked, every blob looked for, the decision recorded durably.
//!
//! A process of its own admits what another one learnt, so that its first round verifies everything; in the next one it remembers
//! which signatures and checkpoints hold.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use registry::key::SecretKey;
use registry::log::checkpoint::witness_name;
use registry::policy::Policy;
use registry::publish;
use registry::statement::{
    Attestation, DerivedFrom, Recall, RecallTarget, Relation, Releasable, Release, RoleKeys, RoleName, Root,
    RootKey, Severity, Statement, Suite, Verdict,
};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Digest, Nation, Signed, Timestamp, Version, admit};
use serde::{Deserialize, Serialize};

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

/// How many allies must have cosigned alba's log.
const WITNESSES: u32 = 2;
/// The argument with which `bench-trust` is the process that admits; the store's folder follows.
pub const ADMIT: &str = "admit-all-of";

/// Seconds for a round over all releases, one after the other, each durable before the next.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Rounds {
    first: f64,
    again: f64,
    deciding: f64,
}

/// The part of `bench-trust`: our admissions beside python `tuf`, where STEELYARD_BENCH_TUF names a Python that has it. Without a
/// bar: the issue names no figure, and the peer does less.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let count = super::options::number("STEELYARD_BENCH_ADMISSIONS", 1000).max(1) as usize;
    let home = tempfile::tempdir_in(folder).map_err(|error| error.to_string())?;
    prepare(home.path(), count);
    let rounds = admitted_by_another(home.path())?;
    let mut table = Table::new(&["how", "releases", "a second"]);
    let mut row = |how: &str, seconds: f64| {
        table.row(&[&how, &count, &format!("{:.0}", count as f64 / seconds)]);
    };
    row("steelyard: everything verified, admitted, recorded durably", rounds.first);
    row("steelyard: the same again, signatures remembered", rounds.again);
    row("steelyard: decided again, not recorded", rounds.deciding);
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

/// A store of `own` in `home` that pins the others.
fn store(home: &Path, own: &str, now: Timestamp) -> Store {
    let store = Store::create(home, &root(own, now), now).expect("a store");
    for ally in ["alba", "borea", "cora", "dora"].into_iter().filter(|ally| *ally != own) {
        let root = root(ally, now);
        store.pin_nation(&root, root.digest(), now).expect("pin an ally");
    }
    store
}

/// Makes a store of cora's with `count` releases of alba: each of a file of its own, derived from a base, with attestations by two
/// allies and recalls of other releases beside it, and logged by alba.
pub fn prepare(home: &Path, count: usize) {
    let now = Timestamp::now();
    let store = store(&home.join("store"), "cora", now);
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
    let path = home.join("model.json");
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
    log(&store, &home.join("alba"), &releases, now);
    let list = serde_json::to_vec(&releases).expect("a list");
    fs::write(home.join("releases"), list).expect("write the list");
}

/// alba logs its releases, two allies cosign the log, and cora follows it.
fn log(cora: &Store, home: &Path, releases: &[Digest], now: Timestamp) {
    let (alba, name) = (store(home, "alba", now), nation("alba"));
    for release in releases {
        publish::learn(&alba, &cora.statement(release).expect("read").expect("known"), now).expect("learnt");
    }
    alba.confirm_log();
    while let Some(appended) = alba.append_log(&key("alba")).expect("appended") {
        let mut checkpoint = appended.checkpoint;
        for ally in ["borea", "dora"] {
            let line = checkpoint.note().cosign(&witness_name(&nation(ally)), &key(ally), now);
            checkpoint.add_lines(&line.expect("a cosignature").to_string()).expect("added");
        }
        let entries = alba.log_entries(&name, appended.first, checkpoint.size()).expect("entries");
        cora.extend_log(&checkpoint, &entries).expect("followed");
    }
}

/// What another process takes that opens the store in `home`.
fn admitted_by_another(home: &Path) -> Result<Rounds, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let run = Command::new(program).arg(ADMIT).arg(home).output().map_err(|error| error.to_string())?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    serde_json::from_slice(&run.stdout).map_err(|error| error.to_string())
}

/// That other process: admits everything, and says how long it took.
pub fn admit_all(home: &Path) -> Rounds {
    let now = Timestamp::now();
    let store = Store::open(&home.join("store")).expect("the store");
    store.set_policy(Policy::own("bench", POLICY, false, WITNESSES).expect("a policy").into());
    let list = fs::read(home.join("releases")).expect("the list");
    let releases: Vec<Digest> = serde_json::from_slice(&list).expect("a list");
    let round = |each: &dyn Fn(&Digest)| {
        let begun = Instant::now();
        releases.iter().for_each(each);
        begun.elapsed().as_secs_f64()
    };
    let admit = |release: &Digest| drop(admit::admit(&store, release, now).expect("admitted"));
    let decide = |release: &Digest| {
        let (_, decision) = admit::decide(&store, release, now).expect("a decision");
        assert!(decision.allowed, "{decision:?}");
    };
    Rounds { first: round(&admit), again: round(&admit), deciding: round(&decide) }
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
