//! Who may ask.

use registry::serving::ServeKey;

use super::*;

fn key(id: u32, token: &str) -> ServeKey {
    ServeKey { id, name: format!("app {id}"), hash: Digest::of(token.as_bytes()) }
}

fn with_key(serving: &Serving, token: &str, body: &str) -> (u16, Value) {
    let head = format!("Authorization: Bearer {token}\r\n");
    let (status, body) = tiny::receive(tiny::send_with(serving.address, "POST", COMPLETIONS, &head, body));
    (status, serde_json::from_str(&body).unwrap())
}

const SHORT: &str = r#"{"prompt":"Hi","max_tokens":1}"#;

#[test]
fn without_a_key_nothing_but_health_is_told() {
    let serving = Serving::one();
    serving.app.admit(Access { anonymous: false, keys: vec![key(1, "sk-one"), key(2, "sk-two")] });
    for path in ["/v1/models", "/metrics"] {
        let (status, _) = tiny::receive(tiny::send(serving.address, "GET", path, ""));
        assert_eq!(status, 401, "{path}");
    }
    let (status, reply) = serving.json(COMPLETIONS, SHORT);
    assert_eq!((status, &reply["error"]["type"]), (401, &json!("invalid_request_error")), "{reply}");
    let (status, reply) = with_key(&serving, "sk-three", SHORT);
    assert_eq!((status, &reply["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(!reply.to_string().contains("sk-three"), "{reply}");
    assert_eq!(with_key(&serving, "sk-two", SHORT).0, 200);
    assert_eq!(get(serving.address, "/health").0, 200);
    // Revoked, it opens nothing from the next request on; where anybody may ask, any key does.
    serving.app.admit(Access { anonymous: false, keys: vec![key(1, "sk-one")] });
    assert_eq!(with_key(&serving, "sk-two", SHORT).0, 401);
    serving.app.admit(Access { anonymous: true, keys: vec![key(1, "sk-one")] });
    assert_eq!(with_key(&serving, "sk-two", SHORT).0, 200);
}

#[test]
fn one_key_can_not_take_all_places() {
    let options = Options { threads: Some(1), max_requests: 4, ..Options::default() };
    let serving = Serving::start(Some(tiny::TEMPLATE), options);
    serving.app.admit(Access { anonymous: false, keys: vec![key(1, "sk-one"), key(2, "sk-two")] });
    let long = r#"{"prompt":"Hello","max_tokens":8000,"temperature":0,"stream":true}"#;
    let running: Vec<_> = (0..3)
        .map(|_| {
            let before = serving.app.active();
            let head = "Authorization: Bearer sk-one\r\n";
            let stream = tiny::send_with(serving.address, "POST", COMPLETIONS, head, long);
            serving.wait("request", || serving.app.active() > before);
            stream
        })
        .collect();
    let (status, reply) = with_key(&serving, "sk-one", SHORT);
    assert_eq!((status, &reply["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert_eq!(with_key(&serving, "sk-two", SHORT).0, 200);
    for stream in running {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    serving.settle();
    assert_eq!(with_key(&serving, "sk-one", SHORT).0, 200);
}
