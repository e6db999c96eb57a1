//! Trust at its limits: as many nations and roots as fit, clocks that differ as far as they may, and who is told what.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use registry::key::SecretKey;
use registry::statement::*;
use registry::timestamp::DAY;
use registry::trust::membership::{may, step};
use registry::trust::{
    Ending, MAX_CLOCK_SKEW, MAX_MEMBERS, MAX_ROOTS, MembershipError, Said, Trust, TrustError, spoken,
};
use registry::{Digest, Nation, Signed, Timestamp, Verified};

const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

/// A first root: the root role has the keys `seeds`, all of which must sign, and the others the first key.
fn root(name: &str, seeds: &[u8]) -> Root {
    let ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
    let one = RoleKeys { keys: ids[..1].to_vec(), threshold: 1 };
    let mut roles: BTreeMap<_, _> = RoleName::ALL.into_iter().map(|role| (role, one.clone())).collect();
    roles.insert(RoleName::Root, RoleKeys { threshold: ids.len(), keys: ids });
    Root {
        nation: nation(name),
        version: 1,
        issued: NOW,
        expires: NOW.plus(365 * DAY),
        keys: seeds.iter().map(|s| (key(*s).id(), RootKey::Ed25519 { public: key(*s).public() })).collect(),
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

fn pin(trust: &mut Trust, root: Root, seeds: &[u8]) -> Result<Digest, TrustError> {
    let signed = sign(Statement::Root(root), seeds);
    trust.pin(&signed, signed.digest(), NOW).map(|member| member.fingerprint())
}

/// The root that follows `last`, changed by `change`.
fn next(last: &Root, change: impl FnOnce(&mut Root)) -> Root {
    let mut root = last.clone();
    root.version += 1;
    root.previous = Some(Digest::of(&Statement::Root(last.clone()).to_payload()));
    change(&mut root);
    root
}

/// Gives a role these keys and this threshold.
fn give(root: &mut Root, role: RoleName, seeds: &[u8], threshold: usize) {
    let ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
    for seed in seeds {
        root.keys.insert(key(*seed).id(), RootKey::Ed25519 { public: key(*seed).public() });
    }
    root.roles.insert(role, RoleKeys { keys: ids, threshold });
}

fn recall(issued: Timestamp) -> Statement {
    Statement::Recall(Recall {
        nation: nation("alba"),
        target: RecallTarget::Release(Digest::of(b"r")),
        reason: "backdoor".into(),
        severity: Severity::Critical,
        sequence: 1,
        issued,
    })
}

fn said(
    nation_name: &str,
    member: &str,
    standing: Standing,
    sequence: u64,
    fingerprint: Digest,
) -> Membership {
    Membership {
        nation: nation(nation_name),
        member: nation(member),
        standing,
        fingerprint,
        sequence,
        reason: String::new(),
        issued: NOW,
    }
}

#[test]
fn as_many_nations_as_fit_are_pinned_and_no_more() {
    let mut trust = Trust::new(nation("n0"));
    for at in 0..MAX_MEMBERS {
        pin(&mut trust, root(&format!("n{at}"), &[1]), &[1]).unwrap();
    }
    let names: Vec<&Nation> = trust.members().map(|(nation, _)| nation).collect();
    assert_eq!(names.len(), MAX_MEMBERS);
    assert!(names.is_sorted());
    assert!(matches!(pin(&mut trust, root("zeta", &[1]), &[1]), Err(TrustError::TooMany)));
    // Pinning one again is none more, and where one goes another comes.
    pin(&mut trust, root("n7", &[1]), &[1]).unwrap();
    trust.unpin(&nation("n7")).unwrap();
    pin(&mut trust, root("zeta", &[1]), &[1]).unwrap();
    assert!(matches!(trust.unpin(&nation("n7")), Err(TrustError::NotPinned(_))));
}

#[test]
fn as_many_roots_as_fit_are_taken_and_no_more() {
    let mut trust = Trust::new(nation("borea"));
    let mut last = root("alba", &[1]);
    let first = sign(Statement::Root(last.clone()), &[1]);
    let mut later = Vec::new();
    trust.pin(&first, first.digest(), NOW).unwrap();
    for version in 2..=MAX_ROOTS {
        last = next(&last, |_| {});
        later.push(sign(Statement::Root(last.clone()), &[1]));
        assert!(trust.rotate(later.last().unwrap(), NOW).unwrap(), "{version}");
        assert!(!trust.rotate(later.last().unwrap(), NOW).unwrap(), "{version}");
    }
    let one_more = sign(Statement::Root(next(&last, |_| {})), &[1]);
    assert!(matches!(trust.rotate(&one_more, NOW), Err(TrustError::TooManyRoots(_))));
    assert!(matches!(trust.verify(&one_more, NOW), Err(TrustError::TooManyRoots(_))));
    let chain = &trust.member(&nation("alba")).unwrap().root;
    let versions: Vec<u64> = chain.roots().map(|root| root.version).collect();
    assert_eq!(versions, (1..=MAX_ROOTS as u64).collect::<Vec<_>>());
    assert_eq!(chain.first().digest(), first.digest());
    // All of them at once, to who comes late.
    let mut late = Trust::new(nation("cora"));
    let member = late.pin_chain(&first, &later, first.digest(), NOW).unwrap();
    assert_eq!((member.root.version, member.fingerprint()), (MAX_ROOTS as u64, first.digest()));
    let mut none = Trust::new(nation("cora"));
    assert!(none.pin_chain(&first, &later[1..], first.digest(), NOW).is_err());
    assert!(none.member(&nation("alba")).is_err(), "nothing is pinned when a root does not follow");
}

#[test]
fn clocks_may_differ_by_ten_minutes_and_not_by_a_second_more() {
    assert_eq!(MAX_CLOCK_SKEW, 600);
    let mut trust = Trust::new(nation("borea"));
    let first = root("alba", &[1]);
    let behind = |seconds: i64| NOW.plus(-seconds);
    let signed = sign(Statement::Root(first.clone()), &[1]);
    let mut pinning = trust.clone();
    assert!(matches!(
        pinning.pin(&signed, signed.digest(), behind(601)),
        Err(TrustError::FromTheFuture { .. })
    ));
    pinning.pin(&signed, signed.digest(), behind(600)).unwrap();
    pin(&mut trust, first.clone(), &[1]).unwrap();
    let statement = sign(recall(NOW), &[1]);
    assert!(matches!(trust.verify(&statement, behind(601)), Err(TrustError::FromTheFuture { .. })));
    trust.verify(&statement, behind(600)).unwrap();
    let kept = |now| trust.verify_kept::<TrustError>(&statement, now, true, |_| Ok(None));
    assert!(matches!(kept(behind(601)), Err(TrustError::FromTheFuture { .. })));
    kept(behind(600)).unwrap();
    let second = sign(Statement::Root(next(&first, |_| {})), &[1]);
    let mut rotating = trust.clone();
    assert!(matches!(rotating.rotate(&second, behind(601)), Err(TrustError::FromTheFuture { .. })));
    assert!(rotating.rotate(&second, behind(600)).unwrap());
}

#[test]
fn a_root_and_a_certificate_end_at_their_second() {
    let mut trust = Trust::new(nation("borea"));
    let first = root("alba", &[1]);
    let end = first.expires;
    let signed = sign(Statement::Root(first.clone()), &[1]);
    for (now, ended) in [(end.plus(-1), false), (end, true), (end.plus(1), true)] {
        let result = trust.clone().pin(&signed, signed.digest(), now).map(|_| ());
        assert_eq!(matches!(result, Err(TrustError::RootExpired { .. })), ended, "{result:?}");
    }
    pin(&mut trust, first, &[1]).unwrap();
    let attested = |now: Timestamp, expires| {
        let certificate = NodeCertificate {
            nation: nation("alba"),
            peer_id: "peer".into(),
            capabilities: vec![],
            issued: NOW,
            expires,
        };
        trust.verify_node(&sign(Statement::Node(certificate), &[1]), "peer", now)
    };
    let soon = NOW.plus(DAY);
    attested(soon.plus(-1), soon).unwrap();
    assert!(matches!(attested(soon, soon), Err(TrustError::CertificateExpired { .. })));
    let late = end.plus(DAY);
    attested(end.plus(-1), late).unwrap();
    assert!(matches!(attested(end, late), Err(TrustError::RootExpired { .. })));
}

/// Whose keys a statement's signers are: of the newest root that they satisfy.
#[test]
fn the_newest_root_that_the_signers_satisfy_is_found() {
    let mut trust = Trust::new(nation("borea"));
    let mut first = root("alba", &[1]);
    give(&mut first, RoleName::Release, &[2, 3], 2);
    let second = next(&first, |root| give(root, RoleName::Release, &[3, 4], 1));
    pin(&mut trust, first, &[1]).unwrap();
    trust.rotate(&sign(Statement::Root(second), &[1]), NOW).unwrap();
    let member = trust.member(&nation("alba")).unwrap();
    let under = |seeds: &[u8]| {
        let ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
        member.root_of(RoleName::Release, &ids).map(|root: &Verified<Root>| root.version)
    };
    for (seeds, version) in [
        (&[4u8][..], Some(2)),
        (&[3], Some(2)),
        (&[2, 3], Some(2)),
        (&[2], None),
        (&[2, 9], None),
        (&[9], None),
        (&[], None),
    ] {
        assert_eq!(under(seeds), version, "{seeds:?}");
    }
    assert_eq!(member.root_of(RoleName::Recall, &[key(1).id()]).map(|root| root.version), Some(2));
}

#[test]
fn what_is_said_of_a_nation_is_kept_whether_or_not_it_is_pinned() {
    let mut trust = Trust::new(nation("borea"));
    let signed = sign(Statement::Root(root("alba", &[1])), &[1]);
    let fingerprint = signed.digest();
    let invited = said("borea", "alba", Standing::Invited, 1, fingerprint);
    let digest = |at: u8| Digest::of(&[at]);
    assert!(trust.take(&invited, digest(1)).unwrap());
    assert!(!trust.take(&invited, digest(1)).unwrap(), "the same again is not new");
    let alba = nation("alba");
    assert_eq!(trust.said(&alba).unwrap().standing, Standing::Invited);
    assert_eq!(
        trust.memberships().map(|(nation, said)| (nation.as_str(), said.sequence)).next(),
        Some(("alba", 1))
    );
    // What was said before counts once it is pinned.
    trust.pin(&signed, fingerprint, NOW).unwrap();
    assert_eq!(trust.member(&alba).unwrap().standing(), Standing::Invited);
    assert!(matches!(
        trust.verify(&sign(recall(NOW), &[1]), NOW),
        Err(TrustError::NotActive { standing: Standing::Invited, .. })
    ));
    assert!(trust.take(&said("borea", "alba", Standing::Active, 2, fingerprint), digest(2)).unwrap());
    assert_eq!(trust.member(&alba).unwrap().standing(), Standing::Active);
    assert_eq!(trust.member(&alba).unwrap().said().unwrap().sequence, 2);
    trust.verify(&sign(recall(NOW), &[1]), NOW).unwrap();
    // Put back as the store does, in either order.
    let kept = *trust.said(&alba).unwrap();
    let mut opened = Trust::new(nation("borea"));
    opened.restore_said(alba.clone(), kept);
    opened.pin(&signed, fingerprint, NOW).unwrap();
    assert_eq!(opened.member(&alba).unwrap().said(), Some(&kept));
    let mut opened = Trust::new(nation("borea"));
    opened.pin(&signed, fingerprint, NOW).unwrap();
    assert_eq!(opened.member(&alba).unwrap().said(), None);
    opened.restore_said(alba.clone(), kept);
    assert_eq!((opened.member(&alba).unwrap().said(), opened.said(&alba)), (Some(&kept), Some(&kept)));
}

/// What gives trust must name the root that is pinned; what takes it away counts in any case.
#[test]
fn only_what_gives_trust_must_name_the_right_fingerprint() {
    let signed = sign(Statement::Root(root("alba", &[1])), &[1]);
    let other = Digest::of(b"another root");
    for (standing, gives) in
        [(Standing::Invited, true), (Standing::Suspended, false), (Standing::Departed, false)]
    {
        let word = said("borea", "alba", standing, 1, other);
        // Said first, pinned then.
        let mut trust = Trust::new(nation("borea"));
        trust.take(&word, Digest::of(b"w")).unwrap();
        assert_eq!(trust.pin(&signed, signed.digest(), NOW).is_err(), gives, "{standing}");
        // Pinned first, said then.
        let mut trust = Trust::new(nation("borea"));
        trust.pin(&signed, signed.digest(), NOW).unwrap();
        assert_eq!(trust.take(&word, Digest::of(b"w")).is_err(), gives, "{standing}");
    }
}

/// A nation whose second root takes every role's keys away, and a statement by a key of the first one.
fn rotated() -> (Trust, Signed, Digest) {
    let first = root("alba", &[1]);
    let second = next(&first, |root| {
        RoleName::ALL.into_iter().for_each(|role| give(root, role, &[2], 1));
    });
    let mut trust = Trust::new(nation("borea"));
    pin(&mut trust, first, &[1]).unwrap();
    let signed = sign(Statement::Root(second), &[1, 2]);
    trust.rotate(&signed, NOW).unwrap();
    (trust, sign(recall(NOW), &[1]), signed.digest())
}

#[test]
fn an_old_key_counts_for_what_the_log_has_before_the_root_that_took_it_away() {
    let (trust, statement, root) = rotated();
    let old = statement.digest();
    let verified = |place: Option<u64>, taken: Option<u64>, admitted| {
        let index =
            |digest: &Digest| Ok(if *digest == root { taken } else { place.filter(|_| *digest == old) });
        trust.verify_kept::<TrustError>(&statement, NOW, admitted, index)
    };
    for admitted in [false, true] {
        verified(Some(4), Some(5), admitted).unwrap();
        for place in [Some(5), Some(6), None] {
            let error = verified(place, Some(5), admitted).unwrap_err();
            assert!(matches!(error, TrustError::Superseded { version: 2, .. }), "{error}");
        }
        // Without the root in the log there is no order; what was admitted stands until there is one.
        let result = verified(Some(4), None, admitted);
        assert_eq!(result.is_ok(), admitted);
        assert!(admitted || matches!(result, Err(TrustError::Unordered { version: 2, .. })));
    }
    // Of which nothing is known in any log, nothing is ordered.
    assert!(matches!(trust.verify(&statement, NOW), Err(TrustError::Unordered { .. })));
    trust.verify(&sign(recall(NOW), &[2]), NOW).unwrap();
}

#[test]
fn a_root_that_is_known_is_verified_again_by_the_thresholds_of_both() {
    let first = root("alba", &[1]);
    let second = next(&first, |root| give(root, RoleName::Root, &[2], 1));
    let mut trust = Trust::new(nation("borea"));
    pin(&mut trust, first.clone(), &[1]).unwrap();
    for seeds in [&[1u8][..], &[2]] {
        assert!(trust.rotate(&sign(Statement::Root(second.clone()), seeds), NOW).is_err(), "{seeds:?}");
    }
    assert!(trust.rotate(&sign(Statement::Root(second.clone()), &[2, 1]), NOW).unwrap());
    // It is in the chain: with too few signatures it is refused all the same, and the first one is known as before.
    for seeds in [&[1u8][..], &[2], &[9]] {
        assert!(trust.rotate(&sign(Statement::Root(second.clone()), seeds), NOW).is_err(), "{seeds:?}");
    }
    let both = sign(Statement::Root(second), &[1, 2]);
    assert!(!trust.rotate(&both, NOW).unwrap());
    // The signers of both thresholds count, each once.
    let verified = trust.verify(&both, NOW).unwrap();
    assert_eq!(verified.signers(), [key(1).id(), key(2).id()]);
    assert_eq!(verified.proven(), both);
    assert!(!trust.rotate(&sign(Statement::Root(first), &[1]), NOW).unwrap());
}

#[test]
fn a_kept_statement_waits_for_the_next_root_only_of_an_active_nation() {
    let first = root("alba", &[1]);
    let (end, fingerprint) = (first.expires, Digest::of(&Statement::Root(first.clone()).to_payload()));
    let mut trust = Trust::new(nation("borea"));
    pin(&mut trust, first, &[1]).unwrap();
    let statement = sign(recall(NOW), &[1]);
    let kept =
        |trust: &Trust, now| trust.verify_kept::<TrustError>(&statement, now, true, |_| Ok(None)).map(|_| ());
    kept(&trust, end.plus(-1)).unwrap();
    assert!(matches!(kept(&trust, end), Err(TrustError::RootExpired { .. })));
    for (sequence, standing) in [(1, Standing::Suspended), (2, Standing::Departed)] {
        let word = said("borea", "alba", standing, sequence, fingerprint);
        trust.take(&word, Digest::of(&[sequence as u8])).unwrap();
        kept(&trust, end.plus(DAY)).unwrap();
    }
    trust.take(&said("borea", "alba", Standing::Invited, 3, fingerprint), Digest::of(b"3")).unwrap();
    assert!(matches!(kept(&trust, NOW), Err(TrustError::NotActive { .. })));
}

/// What another nation says of a third is not ours to believe, however well it is signed.
#[test]
fn each_nation_speaks_for_itself() {
    let mut trust = Trust::new(nation("borea"));
    for (name, seed) in [("alba", 1), ("borea", 2)] {
        pin(&mut trust, root(name, &[seed]), &[seed]).unwrap();
    }
    let word = |by: &str, seed| {
        sign(Statement::Membership(said(by, "cora", Standing::Invited, 1, Digest::of(b"c"))), &[seed])
    };
    trust.verify(&word("borea", 2), NOW).unwrap();
    let error = trust.verify(&word("alba", 1), NOW).unwrap_err();
    assert!(matches!(error, TrustError::Membership(MembershipError::Foreign { .. })), "{error}");
}

#[test]
fn the_steps_of_membership() {
    use Standing::{Active, Departed, Invited, Suspended};
    let all = [Invited, Active, Suspended, Departed];
    for (from, to) in [
        (None, vec![Invited, Suspended, Departed]),
        (Some(Invited), vec![Active, Departed]),
        (Some(Active), vec![Suspended, Departed]),
        (Some(Suspended), vec![Active, Departed]),
        (Some(Departed), vec![Invited]),
    ] {
        for next in all {
            assert_eq!(may(from, next), to.contains(&next), "{from:?} {next}");
        }
    }
    let digest = |n: u8| Digest::of(&[n]);
    let word = |standing, sequence| said("borea", "alba", standing, sequence, digest(0));
    let last = Said { standing: Active, sequence: 5, fingerprint: digest(0), statement: digest(5) };
    let after = |standing, sequence, statement| step(Some(&last), &word(standing, sequence), statement);
    assert_eq!(after(Departed, 1, digest(5)).unwrap(), last, "the same again, whatever else it says");
    for older in [1, 4] {
        let error = after(Suspended, older, digest(9)).unwrap_err();
        assert!(matches!(error, MembershipError::Downgrade { have: 5, got, .. } if got == older), "{error}");
    }
    assert!(matches!(after(Suspended, 5, digest(9)), Err(MembershipError::Conflict { sequence: 5, .. })));
    let error = after(Invited, 6, digest(9)).unwrap_err();
    assert!(matches!(error, MembershipError::Step { from: Some(Active), to: Invited, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("it is active; the next step is one of: suspended, departed"), "{text}");
    let suspended = after(Suspended, 6, digest(9)).unwrap();
    assert_eq!((suspended.standing, suspended.sequence, suspended.statement), (Suspended, 6, digest(9)));
    // Where one was left out, the last word counts.
    assert_eq!(after(Invited, 7, digest(9)).unwrap().standing, Invited);
    let error = step(None, &word(Active, 1), digest(9)).unwrap_err();
    assert!(error.to_string().contains("pinned, and nothing was said of it yet"), "{error}");
    assert_eq!(step(None, &word(Active, 2), digest(9)).unwrap().standing, Active);
}

#[test]
fn whoever_is_not_heard_learns_what_would_change_that() {
    let first = root("alba", &[1]);
    let fingerprint = Digest::of(&Statement::Root(first.clone()).to_payload());
    let mut trust = Trust::new(nation("borea"));
    pin(&mut trust, first, &[1]).unwrap();
    let node = NodeCertificate {
        nation: nation("alba"),
        peer_id: "peer".into(),
        capabilities: vec![],
        issued: NOW,
        expires: NOW.plus(DAY),
    };
    let certificate = sign(Statement::Node(node), &[1]);
    for (sequence, standing, says) in [
        (1, Standing::Suspended, "`steelyard trust activate alba`"),
        (2, Standing::Departed, "only a new invitation changes that: `steelyard trust invite alba`"),
        (3, Standing::Invited, "`steelyard trust activate alba`"),
    ] {
        trust
            .take(&said("borea", "alba", standing, sequence, fingerprint), Digest::of(says.as_bytes()))
            .unwrap();
        let error = trust.verify(&certificate, NOW).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&standing.to_string()), "{error}");
        // Of what takes trust away it is otherwise, while it was an ally.
        assert_eq!(trust.verify(&sign(recall(NOW), &[1]), NOW).is_ok(), standing != Standing::Invited);
    }
}

#[test]
fn the_end_of_a_root_is_told_long_before() {
    for (seconds, ending) in [
        (-1, Ending::Ended),
        (0, Ending::Ended),
        (1, Ending::Urgent),
        (7 * DAY, Ending::Urgent),
        (7 * DAY + 1, Ending::Soon),
        (30 * DAY, Ending::Soon),
        (30 * DAY + 1, Ending::Planned),
        (90 * DAY, Ending::Planned),
        (90 * DAY + 1, Ending::Far),
    ] {
        assert_eq!(Ending::of(NOW.plus(seconds), NOW), ending, "{seconds}");
    }
}

#[test]
fn a_fingerprint_is_read_aloud_as_the_specification_says() {
    let zero: Digest = format!("b3:{}", "0".repeat(64)).parse().unwrap();
    assert_eq!(spoken(&zero), "70112 40769 98012 17289 47470 62228 39093 23129");
}
