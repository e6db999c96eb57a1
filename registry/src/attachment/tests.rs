#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn of(kind: Kind, value: &Value) -> Result<Summary, AttachmentError> {
    describe(kind, &serde_json::to_vec(value).unwrap(), None)
}

#[test]
fn media_types_and_names_go_there_and_back() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of(kind.media_type()), Some(kind));
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    assert_eq!(Kind::of("application/json"), None);
}

#[test]
fn what_would_move_a_terminal_is_taken_out() {
    let value = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6",
        "metadata": { "component": { "name": "a\u{1b}[31mb\u{202e}c\u{7}\n", "licenses": [{ "license": { "id": "MIT" } }] } },
        "components": [{ "type": "data", "licenses": [{ "expression": "x".repeat(300) }] }],
    });
    let Summary::Mlbom { subject, licences, components, models, .. } = of(Kind::Mlbom, &value).unwrap()
    else {
        unreachable!()
    };
    assert_eq!((subject.as_str(), components, models), ("a[31mbc", 1, 1));
    assert_eq!(licences[0], "MIT");
    assert_eq!(licences[1].chars().count(), 201);
}

#[test]
fn provenance_is_read_bare_and_in_an_envelope() {
    let statement = json!({
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{ "name": "a", "digest": { "sha256": "00" } }],
        "predicate": {
            "buildDefinition": { "buildType": "t", "resolvedDependencies": [{}, {}] },
            "runDetails": { "builder": { "id": "b" } },
        },
    });
    let bare = of(Kind::Slsa, &statement).unwrap();
    let payload = data_encoding::BASE64.encode(&serde_json::to_vec(&statement).unwrap());
    let wrapped =
        json!({ "payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [] });
    assert_eq!(of(Kind::Slsa, &wrapped).unwrap(), bare);
    assert!(matches!(bare, Summary::Slsa { materials: 2, subjects: 1, matching: 0, .. }));
    assert!(of(Kind::Slsa, &json!({ "predicateType": "x" })).is_err());
    assert!(of(Kind::Slsa, &json!([])).is_err());
}
