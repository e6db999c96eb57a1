//! The core's promises: what is signed, by whom, under which root, and what policy makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use registry::envelope::EnvelopeError;
use registry::key::SecretKey;
use registry::policy::{Action, Ancestor, Evidence, Policy, UnsafeFile, decide};
use registry::statement::*;
use registry::timestamp::DAY;
use registry::trust::{Trust, TrustError, self_signed_root};
use registry::{Digest, Model, Nation, Sha256, Signed, Timestamp, Verified, Version};

const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

/// A root whose every role has the keys `seeds`, of which `threshold` must sign.
fn root(name: &str, seeds: &[u8], threshold: usize) -> Root {
    let keys: BTreeMap<_, _> =
        seeds.iter().map(|s| (key(*s).id(), RootKey::Ed25519 { public: key(*s).public() })).collect();
    let ids: Vec<_> = seeds.iter().map(|s| key(*s).id()).collect();
    let roles =
        RoleName::ALL.into_iter().map(|role| (role, RoleKeys { keys: ids.clone(), threshold })).collect();
    Root {
        nation: nation(name),
        version: 1,
        issued: NOW,
        expires: NOW.plus(365 * DAY),
        keys,
        roles,
        previous: None,
    }
}

fn sign(statement: Statement, seeds: &[u8]) -> Signed {
    let mut signed = Signed::sign(&statement, &key(seeds[0]));
    for seed in &seeds[1..] {
        signed.cosign(&key(*seed));
    }
    signed
}

/// A trust of borea that pins borea (key 9) and alba (keys 1, 2, 3; threshold 2).
fn trust() -> Trust {
    let mut trust = Trust::new(nation("borea"));
    for (name, seeds, threshold) in [("borea", &[9u8][..], 1), ("alba", &[1, 2, 3][..], 2)] {
        let signed = sign(Statement::Root(root(name, seeds, threshold)), seeds);
        trust.pin(&signed, signed.digest(), NOW).unwrap();
    }
    trust
}

fn release() -> Release {
    Release {
        model: "alba/m".parse::<Model>().unwrap(),
        version: Version::new("1.0").unwrap(),
        format: "gguf".into(),
        licence: "Apache-2.0".into(),
        derived_from: vec![],
        releasable_to: Releasable::All,
        model_card: None,
        issued: NOW,
        files: vec![File {
            path: "m.gguf".into(),
            blake3: Digest::of(b"m"),
            sha256: Sha256::from_bytes([3; 32]),
            size: 1,
            media_type: "application/octet-stream".into(),
            chunk_map: Digest::of(b"map"),
        }],
    }
}

fn recall(by: &str, target: RecallTarget) -> Recall {
    Recall {
        nation: nation(by),
        target,
        reason: "backdoor".into(),
        severity: Severity::Critical,
        sequence: 1,
        issued: NOW,
    }
}

fn verified(trust: &Trust, release: &Release) -> Verified<Release> {
    let signed = sign(Statement::Release(release.clone()), &[1, 2]);
    trust.verify(&signed, NOW).unwrap().into_release().unwrap()
}

#[test]
fn every_statement_survives_its_own_text() {
    let certificate = NodeCertificate {
        nation: nation("alba"),
        peer_id: "12D3KooW".into(),
        capabilities: vec![Capability::Serve],
        issued: NOW,
        expires: NOW.plus(DAY),
    };
    let channel = Channel {
        model: "alba/m".parse().unwrap(),
        channel: registry::ChannelName::new("stable").unwrap(),
        sequence: 1,
        release: Digest::of(b"r"),
        reason: String::new(),
        issued: NOW,
    };
    for statement in [
        Statement::Root(root("alba", &[1, 2], 2)),
        Statement::Node(certificate),
        Statement::Release(release()),
        Statement::Channel(channel),
        Statement::Recall(recall("alba", RecallTarget::Lineage(Digest::of(b"r")))),
    ] {
        statement.check().unwrap();
        assert_eq!(Statement::parse(&statement.to_payload()).unwrap(), statement);
        let signed = sign(statement, &[1, 2]);
        assert_eq!(Signed::parse(&signed.to_json()).unwrap(), signed);
    }
}

#[test]
fn the_threshold_counts_distinct_keys_of_the_role() {
    let trust = trust();
    let release = Statement::Release(release());
    for (seeds, enough) in
        [(&[1u8][..], false), (&[1, 1], false), (&[1, 7], false), (&[1, 2], true), (&[3, 7, 1], true)]
    {
        let result = trust.verify(&sign(release.clone(), seeds), NOW);
        assert_eq!(result.is_ok(), enough, "{seeds:?}");
        if let Err(error) = result {
            let TrustError::Envelope(EnvelopeError::Threshold { valid: 1, threshold: 2, .. }) = error else {
                panic!("{error}");
            };
        }
    }
    // The same envelope twice is one signer.
    let once = sign(release, &[1]);
    let text = String::from_utf8(once.to_json()).unwrap();
    let inner = &text[1..text.len() - 1];
    let twice = Signed::parse(format!("[{inner},{inner}]").as_bytes()).unwrap();
    assert!(trust.verify(&twice, NOW).is_err());
}

#[test]
fn alterations_are_refused() {
    let trust = trust();
    let good = String::from_utf8(sign(Statement::Release(release()), &[1, 2]).to_json()).unwrap();
    let payload = good.split("\"payload\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let altered_text =
        String::from_utf8(Statement::Release(release()).to_payload()).unwrap().replace("1.0", "1.1");
    let altered = data_encoding::BASE64.encode(altered_text.as_bytes());
    let swapped = Signed::parse(good.replace(&payload, &altered).as_bytes()).unwrap();
    assert!(matches!(
        trust.verify(&swapped, NOW),
        Err(TrustError::Envelope(EnvelopeError::BadSignature { .. }))
    ));
    assert!(matches!(
        Signed::parse(good.replacen(&payload, &altered, 1).as_bytes()),
        Err(EnvelopeError::DifferentPayloads)
    ));
    assert!(matches!(
        Signed::parse(good.replace("vnd.in-toto", "vnd.other").as_bytes()),
        Err(EnvelopeError::PayloadType(_))
    ));
    assert!(matches!(Signed::parse(b"[]"), Err(EnvelopeError::EnvelopeCount(0))));
    assert!(matches!(Signed::parse(b"{}"), Err(EnvelopeError::NotDsse(_))));
    assert!(matches!(
        Signed::parse(good.replacen("\"signatures\":[{", "\"signatures\":[],\"x\":[{", 1).as_bytes()),
        Err(EnvelopeError::SignatureCount(0))
    ));
}

#[test]
fn roots_are_pinned_by_fingerprint_only() {
    let signed = sign(Statement::Root(root("alba", &[1, 2, 3], 2)), &[1, 2]);
    let mut trust = Trust::new(nation("borea"));
    assert!(matches!(trust.pin(&signed, Digest::of(b"x"), NOW), Err(TrustError::Fingerprint { .. })));
    assert!(matches!(
        trust.pin(&signed, signed.digest(), NOW.plus(366 * DAY)),
        Err(TrustError::RootExpired { .. })
    ));
    trust.pin(&signed, signed.digest(), NOW).unwrap();
    trust.pin(&signed, signed.digest(), NOW).unwrap();
    let usurper = sign(Statement::Root(root("alba", &[7], 1)), &[7]);
    assert!(matches!(trust.pin(&usurper, usurper.digest(), NOW), Err(TrustError::OtherRoot { .. })));
    assert!(matches!(trust.verify(&usurper, NOW), Err(TrustError::OtherRoot { .. })));
    // One of the two signatures that the root itself demands.
    assert!(self_signed_root(&sign(Statement::Root(root("alba", &[1, 2], 2)), &[1])).is_err());
    assert!(matches!(
        self_signed_root(&sign(Statement::Release(release()), &[1])),
        Err(TrustError::NotARoot(_))
    ));
}

#[test]
fn an_expired_root_stops_everything_but_recalls() {
    let trust = trust();
    let late = NOW.plus(366 * DAY);
    let signed = sign(Statement::Release(release()), &[1, 2]);
    assert!(matches!(trust.verify(&signed, late), Err(TrustError::RootExpired { .. })));
    let recall = sign(Statement::Recall(recall("alba", RecallTarget::Release(signed.digest()))), &[1, 2]);
    trust.verify(&recall, late).unwrap();
}

#[test]
fn strangers_and_other_nations_keys_are_refused() {
    let mut trust = trust();
    let signed = sign(Statement::Release(release()), &[9]);
    assert!(trust.verify(&signed, NOW).is_err(), "borea's key must not sign for alba");
    let stranger = sign(Statement::Recall(recall("cora", RecallTarget::Release(Digest::of(b"r")))), &[1]);
    assert!(matches!(trust.verify(&stranger, NOW), Err(TrustError::NotPinned(_))));
    assert!(matches!(trust.unpin(&nation("borea")), Err(TrustError::Own(_))));
    trust.unpin(&nation("alba")).unwrap();
    assert!(matches!(
        trust.verify(&sign(Statement::Release(release()), &[1, 2]), NOW),
        Err(TrustError::NotPinned(_))
    ));
}

#[test]
fn node_certificates_bind_peer_nation_and_time() {
    let trust = trust();
    let certificate = |expires| {
        let certificate = NodeCertificate {
            nation: nation("alba"),
            peer_id: "peerA".into(),
            capabilities: vec![],
            issued: NOW,
            expires,
        };
        sign(Statement::Node(certificate), &[1, 2])
    };
    let good = certificate(NOW.plus(DAY));
    trust.verify_node(&good, "peerA", NOW).unwrap();
    assert!(matches!(trust.verify_node(&good, "peerB", NOW), Err(TrustError::OtherPeer { .. })));
    assert!(matches!(
        trust.verify_node(&good, "peerA", NOW.plus(DAY)),
        Err(TrustError::CertificateExpired { .. })
    ));
    assert!(matches!(
        trust.verify_node(&good, "peerA", NOW.plus(-DAY)),
        Err(TrustError::FromTheFuture { .. })
    ));
    assert!(matches!(
        trust.verify_node(&sign(Statement::Release(release()), &[1, 2]), "peerA", NOW),
        Err(TrustError::NotACertificate(_))
    ));
}

#[test]
fn unknown_critical_fields_are_refused_and_others_ignored() {
    let text = String::from_utf8(Statement::Release(release()).to_payload()).unwrap();
    let with = |critical: &str| {
        text.replace("\"predicate\":{", &format!("\"predicate\":{{\"critical\":[{critical}],\"novel\":1,"))
    };
    Statement::parse(with("").as_bytes()).unwrap();
    Statement::parse(with("\"model\"").as_bytes()).unwrap();
    assert!(matches!(Statement::parse(with("\"novel\"").as_bytes()), Err(StatementError::Critical { .. })));
}

#[test]
fn policy_says_which_rule_refuses() {
    let trust = trust();
    let mut narrow = release();
    narrow.releasable_to = Releasable::Nations(BTreeSet::from([nation("cora")]));
    let refused_by = |release: &Release, recalls: &[Recall], unsafe_files: &[UnsafeFile], now: Timestamp| {
        let release = verified(&trust, release);
        let base = Ancestor { producer: nation("cora"), releasable_to: Releasable::All };
        let ancestors = BTreeMap::from([(Digest::of(b"base"), Some(base)), (Digest::of(b"old"), None)]);
        let evidence = Evidence {
            release: &release,
            recalls,
            ancestors: &ancestors,
            unsafe_files,
            logged: None,
            attestations: &[],
            admitted: false,
            lease_age: None,
        };
        let decision = decide(&Policy::shipped(0), Action::Admit, trust.own(), &evidence, &trust, now);
        let rules: Vec<String> = decision.refusals().map(|check| check.rule.clone()).collect();
        assert_eq!(decision.allowed, rules.is_empty());
        rules
    };
    let digest = verified(&trust, &release()).digest();
    let none: [String; 0] = [];
    assert_eq!(refused_by(&release(), &[], &[], NOW), none);
    assert_eq!(refused_by(&narrow, &[], &[], NOW), ["releasable-to-us"]);
    assert_eq!(refused_by(&release(), &[], &[], NOW.plus(366 * DAY)), ["active-nation"]);
    let pickle = UnsafeFile { path: "m.bin".into(), why: "a pickle".into() };
    assert_eq!(refused_by(&release(), &[], &[pickle], NOW), ["safe-formats"]);
    for (by, target, binds) in [
        ("alba", RecallTarget::Release(digest), true),
        ("borea", RecallTarget::Release(digest), true),
        ("cora", RecallTarget::Release(digest), false),
        ("alba", RecallTarget::Release(Digest::of(b"base")), false),
        ("cora", RecallTarget::Lineage(Digest::of(b"base")), true),
        ("cora", RecallTarget::Lineage(digest), false),
        ("alba", RecallTarget::Lineage(Digest::of(b"base")), false),
        ("cora", RecallTarget::Lineage(Digest::of(b"old")), false),
        ("borea", RecallTarget::Lineage(Digest::of(b"old")), true),
        ("alba", RecallTarget::Lineage(digest), true),
    ] {
        let expected: &[&str] = if binds { &["not-recalled"] } else { &[] };
        assert_eq!(refused_by(&release(), &[recall(by, target)], &[], NOW), expected, "{by} {target:?}");
    }
}

#[test]
fn key_files_are_private_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let secret = SecretKey::generate().unwrap();
    secret.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SecretKey::load(&path).unwrap().id(), secret.id());
    assert!(secret.save(&path).is_err());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(SecretKey::load(&path).unwrap_err().to_string().contains("chmod 600"));
}
