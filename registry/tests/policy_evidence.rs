//! What a decision rests on: what is known of a release is gathered, and nothing else.
#![cfg(feature = "policy")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use registry::key::SecretKey;
use registry::policy::*;
use registry::statement::*;
use registry::timestamp::DAY;
use registry::trust::Trust;
use registry::{Digest, Nation, Sha256, Signed, Timestamp, Version};

const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

fn nations(names: &[&str]) -> BTreeSet<Nation> {
    names.iter().map(|name| nation(name)).collect()
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A trust of borea, which pins itself and alba, whose key is the first.
fn trust() -> Trust {
    let mut trust = Trust::new(nation("borea"));
    for (name, seed) in [("alba", 1), ("borea", 2), ("dora", 3)] {
        let id = key(seed).id();
        let one = RoleKeys { keys: vec![id], threshold: 1 };
        let root = Root {
            nation: nation(name),
            version: 1,
            issued: NOW,
            expires: NOW.plus(365 * DAY),
            keys: BTreeMap::from([(id, RootKey::Ed25519 { public: key(seed).public() })]),
            roles: RoleName::ALL.into_iter().map(|role| (role, one.clone())).collect(),
            previous: None,
        };
        let signed = Signed::sign(&Statement::Root(root), &key(seed));
        trust.pin(&signed, signed.digest(), NOW).unwrap();
    }
    let said = Membership {
        nation: nation("borea"),
        member: nation("dora"),
        fingerprint: trust.member(&nation("dora")).unwrap().fingerprint(),
        standing: Standing::Suspended,
        sequence: 1,
        reason: String::new(),
        issued: NOW,
    };
    trust.take(&said, Digest::of(b"said")).unwrap();
    trust
}

#[test]
fn what_is_known_is_gathered_and_nothing_else() {
    let trust = trust();
    let base = Digest::of(b"base");
    let release = Release {
        model: "alba/m".parse().unwrap(),
        version: Version::new("1").unwrap(),
        format: "gguf".into(),
        licence: "MIT".into(),
        derived_from: vec![],
        releasable_to: Releasable::All,
        model_card: None,
        issued: NOW,
        files: vec![File {
            path: "m.gguf".into(),
            blake3: Digest::of(b"m"),
            sha256: Sha256::from_bytes([3; 32]),
            size: 7,
            media_type: "application/octet-stream".into(),
            chunk_map: Digest::of(b"map"),
        }],
    };
    let signed = Signed::sign(&Statement::Release(release), &key(1));
    let verified = trust.verify(&signed, NOW).unwrap().into_release().unwrap();
    let digest = verified.digest();
    let recall = |by: &str, target| Recall {
        nation: nation(by),
        target,
        reason: String::new(),
        severity: Severity::Low,
        sequence: 1,
        issued: NOW,
    };
    let attest = |by: &str| Attestation {
        nation: nation(by),
        release: digest,
        suite: Suite { name: "s".into(), digest: None },
        results: vec![],
        verdict: Verdict::Pass,
        summary: String::new(),
        issued: NOW,
        valid_until: NOW.plus(DAY),
    };
    // More of no consequence than are told, and one that binds behind them.
    let mut recalls = vec![recall("cora", RecallTarget::Release(digest)); 512];
    recalls.push(recall("borea", RecallTarget::Release(digest)));
    for other in [RecallTarget::Release(Digest::of(b"other")), RecallTarget::Lineage(Digest::of(b"other"))] {
        recalls.push(recall("fara", other));
    }
    recalls.push(recall("cora", RecallTarget::Release(base)));
    let ancestors = BTreeMap::from([(
        base,
        Some(Ancestor { producer: nation("cora"), releasable_to: Releasable::Nations(nations(&["alba"])) }),
    )]);
    let attestations = [attest("alba"), attest("borea"), attest("cora"), attest("dora")];
    let mut evidence = Evidence {
        release: &verified,
        recalls: &recalls,
        ancestors: &ancestors,
        unsafe_files: &[],
        logged: None,
        attestations: &attestations,
        admitted: false,
        lease_age: None,
    };
    let facts = Facts::gather(&evidence, &nation("dora"), &trust, 1, NOW);
    assert_eq!(facts.recalls.len(), 512);
    assert!(facts.recalls[0].binds && facts.recalls[0].nation == nation("borea"));
    assert!(facts.recalls[1..].iter().all(|recall| !recall.binds && recall.nation == nation("cora")));
    // Whom we hold as active allies, ourselves among them; neither a stranger nor one that is suspended.
    let by: Vec<&str> = facts.attestations.iter().map(|it| it.nation.as_str()).collect();
    assert_eq!(by, ["alba", "borea"]);
    assert_eq!((facts.nation_standing, facts.standing), (Some(Standing::Suspended), Some(Standing::Active)));
    assert_eq!((facts.threshold, facts.signed_by), (1, vec![key(1).id().short()]));
    assert_eq!((facts.size, facts.files, facts.own), (7, 1, nation("borea")));
    assert_eq!(facts.bases[0].producer, Some(nation("cora")));
    let some = [
        recall("fara", RecallTarget::Lineage(base)),
        recall("fara", RecallTarget::Lineage(digest)),
        recall("fara", RecallTarget::Release(base)),
    ];
    evidence.recalls = &some;
    assert_eq!(Facts::gather(&evidence, &nation("cora"), &trust, 1, NOW).recalls.len(), 2);
    let stranger = Facts::gather(&evidence, &nation("cora"), &trust, 1, NOW);
    assert_eq!(stranger.nation_standing, None);
    assert_eq!(
        Facts::gather(&evidence, &nation("borea"), &trust, 1, NOW).nation_standing,
        Some(Standing::Active)
    );
}
