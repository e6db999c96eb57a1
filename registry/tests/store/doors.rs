//! What leaves: who learns of which statement, and what a policy keeps back.

use std::sync::Arc;

use registry::admit::{Door, Permission};
use registry::policy::Policy;
use registry::publish::{accept, learn};
use registry::releasable;
use registry::statement::*;
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Digest, Nation};
use tempfile::TempDir;

use crate::help::*;

/// alba's store with a release for everybody and one for borea, each with a channel.
fn case() -> (TempDir, Store, Digest, Digest) {
    let (dir, store) = house("alba", &["borea", "cora", "dora"]);
    let open = published(&store, "alba/open", "1", 1);
    let folder = folder(2);
    std::fs::write(folder.path().join("README.md"), "---\nlicense: apache-2.0\n---\n# Another\n").unwrap();
    let mut narrow = release_of(&draft(&store, folder.path()), "alba/narrow", "1");
    narrow.releasable_to = Releasable::Nations([nation("borea")].into());
    let narrow = accept(&store, &sign(Statement::Release(narrow)), NOW).unwrap().digest;
    (dir, store, open, narrow)
}

fn points(model: &str, to: Digest) -> Statement {
    Statement::Channel(channel(model, 1, to))
}

fn attests(by: &str, release: Digest) -> Statement {
    Statement::Attestation(Attestation {
        nation: nation(by),
        release,
        suite: Suite { name: "s".into(), digest: None },
        results: vec![],
        verdict: Verdict::Pass,
        summary: String::new(),
        issued: NOW,
        valid_until: NOW.plus(DAY),
    })
}

fn standing(by: &str, member: &str) -> Statement {
    Statement::Membership(Membership {
        nation: nation(by),
        member: nation(member),
        fingerprint: root(member).digest(),
        standing: Standing::Suspended,
        sequence: 1,
        reason: String::new(),
        issued: NOW,
    })
}

fn certificate() -> Statement {
    Statement::Node(NodeCertificate {
        nation: nation("borea"),
        peer_id: "peer".into(),
        capabilities: vec![],
        issued: NOW,
        expires: NOW.plus(DAY),
    })
}

#[test]
fn each_kind_of_statement_goes_to_whom_it_concerns() {
    let (_dir, store, open, narrow) = case();
    let release = |digest: &Digest| Statement::Release(store.release(digest).unwrap().unwrap());
    let unknown = Digest::of(b"unknown");
    let recalled = Statement::Recall(recall("cora", 1, RecallTarget::Release(narrow)));
    // To borea, to cora, to whoever listens.
    for (statement, expected) in [
        (release(&open), [true, true, true]),
        (release(&narrow), [true, false, false]),
        (points("alba/narrow", narrow), [true, false, false]),
        (points("cora/narrow", narrow), [true, true, false]),
        (points("dora/open", open), [true, true, true]),
        (points("cora/m", unknown), [false, true, false]),
        (attests("dora", narrow), [true, false, false]),
        (attests("cora", narrow), [true, true, false]),
        (attests("cora", unknown), [false, true, false]),
        (attests("cora", open), [true, true, true]),
        (recalled, [true, true, true]),
        (root("dora").peek().unwrap(), [true, true, true]),
        (standing("borea", "dora"), [true, false, false]),
        (certificate(), [false, false, false]),
    ] {
        let to = |name: &str| releasable::statement(&store, &statement, &nation(name)).unwrap();
        let all = releasable::statement_to_everybody(&store, &statement).unwrap();
        assert_eq!([to("borea"), to("cora"), all], expected, "{statement:?}");
        // What the rules of release keep back, no policy lets out.
        let learns = |name: &str| {
            Door::open(&store, NOW).unwrap().may_learn(&sign(statement.clone()), &nation(name)).unwrap()
        };
        if !matches!(statement, Statement::Release(_)) {
            assert_eq!([learns("borea"), learns("cora")], expected[..2], "{statement:?}");
        }
    }
    assert!(releasable::to_everybody(&store, &store.release(&open).unwrap().unwrap()).unwrap());
    assert!(!releasable::to_everybody(&store, &store.release(&narrow).unwrap().unwrap()).unwrap());
}

#[test]
fn bytes_that_are_not_here_hold_nothing_back() {
    let (_dir, store, open, narrow) = case();
    let (_b, borea) = house("borea", &["alba", "cora"]);
    for release in [open, narrow] {
        learn(&borea, &store.statement(&release).unwrap().unwrap(), NOW).unwrap();
    }
    assert!(releasable::release(&borea, &open, &nation("cora")).unwrap().is_ok());
    assert!(releasable::release(&borea, &narrow, &nation("cora")).unwrap().is_err());
    let file = &borea.release(&narrow).unwrap().unwrap().files[0];
    assert!(releasable::file(&borea, file, &nation("borea")).unwrap(), "what our own nation has, it has");
    assert!(releasable::file(&store, file, &nation("borea")).unwrap());
    assert!(!releasable::file(&store, file, &nation("cora")).unwrap());
}

const RULE: &str = r#"
@id("not-cora")
@reason("cora asked for {release}")
@advice("ask another")
forbid (principal == Nation::"cora", action == Action::"release", resource);
"#;

#[test]
fn a_rule_about_release_is_asked_at_every_door() {
    let (_dir, store, open, narrow) = case();
    let (borea, cora) = (nation("borea"), nation("cora"));
    let door = || Door::open(&store, NOW).unwrap();
    let have = |release: &Digest, to: &Nation| door().may_have(release, to).unwrap();
    assert_eq!(have(&Digest::of(b"unknown"), &borea), Permission::Unknown);
    assert_eq!(have(&open, &cora), Permission::Allowed);
    assert_eq!(have(&narrow, &borea), Permission::Allowed);
    assert_eq!(have(&narrow, &cora), Permission::NotReleasable);
    assert!(door().may_be_announced(&open).unwrap());
    assert!(!door().may_be_announced(&narrow).unwrap());
    assert!(!door().may_be_announced(&Digest::of(b"unknown")).unwrap());
    let signed = store.statement(&open).unwrap().unwrap();
    let told = [signed, sign(points("alba/open", open)), sign(attests("dora", open))];
    let own = [sign(points("cora/m", open)), sign(attests("cora", open)), root("dora")];
    let learn = |statements: &[registry::Signed], to: &Nation| -> Vec<bool> {
        statements.iter().map(|statement| door().may_learn(statement, to).unwrap()).collect()
    };
    assert_eq!(learn(&told, &cora), [true; 3]);

    store.set_policy(Arc::new(Policy::own("rules", RULE, false, 0).unwrap()));
    let Permission::Refused(decision) = have(&open, &cora) else { panic!("cora was not refused") };
    assert_eq!(decision.refusals().map(|check| check.rule.as_str()).collect::<Vec<_>>(), ["not-cora"]);
    let refused = Permission::Refused(decision);
    assert!(!refused.allows_content() && !refused.allows_statement());
    assert_eq!(have(&open, &borea), Permission::Allowed);
    assert!(!door().may_be_announced(&open).unwrap(), "not every ally may have it");
    assert_eq!(learn(&told, &cora), [false; 3]);
    assert_eq!(learn(&told, &borea), [true; 3]);
    // What it made itself, and what is everybody's, it learns all the same.
    assert_eq!(learn(&own, &cora), [true; 3]);

    store.set_policy(Policy::shipped(0));
    let recalled = sign(Statement::Recall(recall("alba", 1, RecallTarget::Release(open))));
    accept(&store, &recalled, NOW).unwrap();
    let answer = have(&open, &cora);
    assert_eq!(answer, Permission::Recalled);
    assert!(!answer.allows_content() && answer.allows_statement());
    assert!(Permission::Allowed.allows_content() && Permission::Allowed.allows_statement());
    assert!(door().may_be_announced(&open).unwrap(), "that it is recalled is news for everybody");
}

#[test]
fn whom_nobody_talks_to_holds_no_announcement_back() {
    let (_dir, store, open, _) = case();
    store.set_policy(Arc::new(Policy::own("rules", RULE, false, 0).unwrap()));
    assert!(!Door::open(&store, NOW).unwrap().may_be_announced(&open).unwrap());
    accept(&store, &sign(standing("alba", "cora")), NOW).unwrap();
    assert!(Door::open(&store, NOW).unwrap().may_be_announced(&open).unwrap());
}
