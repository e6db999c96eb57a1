//! The one threshold check and the envelopes that it reads: what has exactly the size of a limit, and who counts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use registry::envelope::{EnvelopeError, MAX_ENVELOPES, MAX_PAYLOAD, MAX_SIGNED, PAYLOAD_TYPE, Role};
use registry::key::SecretKey;
use registry::statement::{Recall, RecallTarget, Severity, Statement};
use registry::{Digest, Nation, Signed, Timestamp};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn statement(reason: &str) -> Statement {
    Statement::Recall(Recall {
        nation: Nation::new("alba").unwrap(),
        target: RecallTarget::Release(Digest::of(b"r")),
        reason: reason.to_owned(),
        severity: Severity::High,
        sequence: 1,
        issued: Timestamp::from_unix(1_790_000_000),
    })
}

fn signed(seeds: &[u8]) -> Signed {
    let mut signed = Signed::sign(&statement("backdoor"), &key(seeds[0]));
    for seed in &seeds[1..] {
        signed.cosign(&key(*seed));
    }
    signed
}

fn role(seeds: &[u8], threshold: usize) -> Role {
    let keys: BTreeMap<_, _> = seeds.iter().map(|seed| (key(*seed).id(), key(*seed).public())).collect();
    Role { name: "recall".to_owned(), keys, threshold }
}

/// The array of the envelopes of these, which need not be over one payload.
fn array(of: &[&Signed]) -> Vec<u8> {
    let all: Vec<serde_json::Value> = of
        .iter()
        .flat_map(|one| serde_json::from_slice::<Vec<serde_json::Value>>(&one.to_json()).unwrap())
        .collect();
    serde_json::to_vec(&all).unwrap()
}

/// An envelope over so many zero bytes, which is no statement, with a signature that nobody made.
fn envelope(payload: usize, signature: usize) -> Vec<u8> {
    let text = |bytes| data_encoding::BASE64.encode(&vec![0; bytes]);
    serde_json::to_vec(&serde_json::json!({
        "payload": text(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{ "keyid": key(1).id(), "sig": text(signature) }],
    }))
    .unwrap()
}

#[test]
fn a_payload_as_large_as_the_limit_is_read_and_a_larger_one_is_not() {
    assert_eq!(MAX_PAYLOAD, 8 << 20);
    assert_eq!(Signed::parse(&envelope(MAX_PAYLOAD, 64)).unwrap().payload().len(), MAX_PAYLOAD);
    match Signed::parse(&envelope(MAX_PAYLOAD + 1, 64)) {
        Err(EnvelopeError::TooLarge { what: "payload", size, limit: MAX_PAYLOAD }) => {
            assert_eq!(size, MAX_PAYLOAD + 1);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    for wrong in [0, 63, 65] {
        assert!(matches!(Signed::parse(&envelope(9, wrong)), Err(EnvelopeError::NotDsse(_))), "{wrong}");
    }
}

#[test]
fn a_text_as_large_as_the_limit_is_read_and_a_larger_one_is_not() {
    assert_eq!(MAX_SIGNED, 48 << 20);
    let mut text = signed(&[1]).to_json();
    text.resize(MAX_SIGNED, b' ');
    assert_eq!(Signed::parse(&text).unwrap(), signed(&[1]));
    text.push(b' ');
    match Signed::parse(&text) {
        Err(EnvelopeError::TooLarge { what: "signed statement", size, limit: MAX_SIGNED }) => {
            assert_eq!(size, MAX_SIGNED + 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_single_envelope_is_read_as_an_array_of_one() {
    let one = signed(&[1]);
    let text = one.to_json();
    assert_eq!(text[0], b'[');
    assert_eq!(Signed::parse(&text[1..text.len() - 1]).unwrap(), one);
    let spaced = [b" \n\t".as_slice(), &text].concat();
    assert_eq!(Signed::parse(&spaced).unwrap(), one);
}

#[test]
fn as_many_envelopes_as_the_limit_are_read_kept_and_added_and_no_more() {
    let full: Vec<u8> = (1..=u8::try_from(MAX_ENVELOPES).unwrap()).collect();
    let more = u8::try_from(MAX_ENVELOPES + 1).unwrap();
    let mut all = signed(&full);
    assert_eq!(all.envelopes().len(), MAX_ENVELOPES);
    assert_eq!(Signed::parse(&all.to_json()).unwrap(), all);
    let text = array(&[&all, &signed(&[more])]);
    assert!(matches!(
        Signed::parse(&text),
        Err(EnvelopeError::EnvelopeCount(count)) if count == MAX_ENVELOPES + 1
    ));
    // Nor is one more made here.
    assert!(matches!(
        all.cosign_by(&key(more)),
        Err(EnvelopeError::EnvelopeCount(count)) if count == MAX_ENVELOPES + 1
    ));
    assert!(!all.merge(&signed(&[more])));
    assert_eq!(all.envelopes().len(), MAX_ENVELOPES);
    let mut last = signed(&full[1..]);
    assert!(last.cosign_by(&key(1)).unwrap());
    assert!(!last.cosign_by(&key(1)).unwrap());
    let mut merged = signed(&full[1..]);
    assert!(merged.merge(&signed(&[more, 1])), "one of the two fits");
    assert_eq!(merged.envelopes().last().unwrap().key(), key(more).id());
    assert_eq!(merged.envelopes().len(), MAX_ENVELOPES);
}

#[test]
fn each_key_signs_once_and_only_what_is_the_same_is_put_together() {
    let mut one = signed(&[1]);
    one.cosign(&key(1));
    assert_eq!(one.envelopes().len(), 1);
    assert!(!one.merge(&signed(&[1])));
    assert!(one.merge(&signed(&[2, 1, 3])));
    assert_eq!(one, signed(&[1, 2, 3]));
    let other = Signed::sign(&statement("another"), &key(4));
    assert!(!one.merge(&other));
    assert_eq!(one, signed(&[1, 2, 3]));
    assert!(matches!(Signed::parse(&array(&[&one, &other])), Err(EnvelopeError::DifferentPayloads)));
    // Two that differ where the last envelope is.
    assert!(matches!(
        Signed::parse(&array(&[&signed(&[1]), &signed(&[2]), &other])),
        Err(EnvelopeError::DifferentPayloads)
    ));
}

#[test]
fn what_is_signed_as_it_stands_must_be_a_statement() {
    assert!(matches!(Signed::over(b"{}", &key(1)), Err(EnvelopeError::Statement(_))));
    let said = statement("backdoor");
    let by = Signed::sign_by(&said, &key(1)).unwrap();
    assert_eq!(by, signed(&[1]));
    assert_eq!(Signed::over(&said.to_payload(), &key(1)).unwrap(), by);
    assert_eq!(by.envelopes()[0].key(), key(1).id());
    assert_eq!(by.digest(), Digest::of(&said.to_payload()));
    by.verify(&role(&[1], 1)).unwrap();
}

#[test]
fn as_many_keys_as_the_threshold_are_enough_and_one_less_is_not() {
    for threshold in 1..=3usize {
        for count in 1..=4usize {
            let seeds: Vec<u8> = (1..=u8::try_from(count).unwrap()).collect();
            let result = signed(&seeds).verify(&role(&[1, 2, 3, 4, 5], threshold));
            assert_eq!(result.is_ok(), count >= threshold, "{count} of {threshold}");
            if let Ok(verified) = result {
                let ids: Vec<_> = seeds.iter().map(|seed| key(*seed).id()).collect();
                assert_eq!(verified.signers(), ids);
            }
        }
    }
}

/// A role that asks for nobody is a mistake, and believes nothing.
#[test]
fn a_threshold_of_zero_is_never_met() {
    for seeds in [&[1u8][..], &[7], &[1, 2]] {
        let error = signed(seeds).verify(&role(&[1, 2], 0)).unwrap_err();
        assert!(matches!(error, EnvelopeError::Threshold { threshold: 0, .. }), "{error}");
    }
}

#[test]
fn who_signed_is_told_in_order_whoever_counts() {
    let error = signed(&[7, 1]).verify(&role(&[1, 2], 2)).unwrap_err();
    let mut names = [key(7).id().short(), key(1).id().short()];
    names.sort();
    let text = error.to_string();
    assert!(text.ends_with(&format!("signed by: {}", names.join(", "))), "{text}");
    assert!(text.contains("has 1 of the 2 signatures"), "{text}");
    let error = signed(&[1, 7]).verify(&role(&[1, 2], 2)).unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_key_that_signed_twice_counts_once_and_is_passed_on_once() {
    let (one, two, stranger) = (signed(&[1]), signed(&[2]), signed(&[7]));
    let twice = Signed::parse(&array(&[&one, &one])).unwrap();
    assert_eq!(twice.envelopes().len(), 2);
    assert!(matches!(
        twice.verify(&role(&[1, 2], 2)),
        Err(EnvelopeError::Threshold { valid: 1, threshold: 2, .. })
    ));
    let all = Signed::parse(&array(&[&one, &stranger, &one, &two])).unwrap();
    let verified = all.verify(&role(&[1, 2], 2)).unwrap();
    assert_eq!(verified.signers(), [key(1).id(), key(2).id()]);
    assert_eq!(*verified.signed(), all);
    assert_eq!(verified.proven(), signed(&[1, 2]));
    assert_eq!(verified.digest(), one.digest());
    assert_eq!(*verified.get(), statement("backdoor"));
}

/// A broken signature by a key of the role is an alteration, however many others are good; one by another key is nothing.
#[test]
fn one_broken_signature_by_a_key_of_the_role_refuses_the_whole() {
    let mut envelopes: Vec<serde_json::Value> =
        serde_json::from_slice(&signed(&[1, 2, 3]).to_json()).unwrap();
    let foreign = envelopes[0]["signatures"][0]["sig"].clone();
    envelopes[2]["signatures"][0]["sig"] = foreign;
    let broken = Signed::parse(&serde_json::to_vec(&envelopes).unwrap()).unwrap();
    let error = broken.verify(&role(&[1, 2, 3], 2)).unwrap_err();
    assert!(matches!(error, EnvelopeError::BadSignature { key: by, .. } if by == key(3).id()), "{error}");
    assert!(error.to_string().contains(&key(3).id().to_string()), "{error}");
    broken.verify(&role(&[1, 2], 2)).unwrap();
}

#[test]
fn base64_is_canonical() {
    let text = String::from_utf8(signed(&[1]).to_json()).unwrap();
    let envelope: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let payload = envelope[0]["payload"].as_str().unwrap();
    let with = |other: &str| Signed::parse(text.replace(payload, other).as_bytes());
    // One, two and no bytes of padding at the end are canonical.
    for (other, fits) in [
        ("", true),
        ("AAAA", true),
        ("AAA=", true),
        ("AA==", true),
        ("AA==AAAA", false),
        ("AA==AA==", false),
        ("AAA=AAA=", false),
        ("AAA=AAAA", false),
        // In the second half too.
        ("AAAAAAAAAA==AAAA", false),
        ("AA=", false),
        ("AAA", false),
        ("AAB=", false),
        ("AB==", false),
        ("AAAA\\n", false),
        (" AAAA", false),
        ("=AAA", false),
        ("====", false),
    ] {
        assert_eq!(with(other).is_ok(), fits, "{other}");
    }
}
