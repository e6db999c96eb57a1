//! A stand-in for an engine answers what vLLM 0.32 was seen to answer; the real one is in `tests/tests/vllm.rs`.

use std::convert::Infallible;

use axum::body::to_bytes;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use registry::Digest;
use registry::serving::{Access, ServeKey, StopCode};

use axum::Json;

use super::*;
use crate::engine::Queue;
use crate::halt::Halt;
use crate::openai::Identity;

/// An engine that answers a stream of two events and then waits, and anything else with what it was asked.
async fn engine() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |body: Bytes| async move {
        let asked: Value = serde_json::from_slice(&body).unwrap();
        if asked["stream"] == true {
            let events = stream::iter(["data: {\"n\":1}\n\n", "data: {\"n\":2}\n\n"]);
            let events = events.map(Ok::<_, Infallible>).chain(stream::pending());
            return ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], Body::from_stream(events))
                .into_response();
        }
        if asked["slow"] == true {
            std::future::pending::<()>().await;
        }
        Json(json!({ "asked": asked })).into_response()
    };
    let routes = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn app(address: Option<SocketAddr>, halt: &Halt) -> App {
    let identity = Identity {
        model: "alba/tiny".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        release: Digest::of(b"release"),
    };
    let app = App::new(identity, Arc::new(Queue::new(4)), halt.clone());
    if let Some(address) = address {
        app.passed_on(Upstream::new(address, "vllm 0.32.0 on 1 devices".to_owned()));
    }
    app
}

async fn ask(app: &App, path: &str, key: Option<&str>, body: Value) -> Response {
    let mut request = Request::builder().method("POST").uri(path);
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    TowerToHyperService::new(app.clone().proxy()).call(request).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

fn recalled() -> Cause {
    Cause { code: StopCode::Recalled, reason: "poisoned".to_owned() }
}

#[tokio::test]
async fn a_request_is_passed_on_under_the_one_name_and_without_our_own_fields() {
    let halt = Halt::default();
    let app = app(Some(engine().await), &halt).await;
    let body = json!({ "model": "alba/tiny@1.0.0", "prompt": "a", "timeout": 5, "top_k": 3 });
    let answer = ask(&app, "/v1/completions", None, body).await;
    assert_eq!(answer.status(), 200);
    let told: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(told["asked"], json!({ "model": "alba/tiny", "prompt": "a", "top_k": 3 }));
    for (path, body, status) in [
        ("/v1/completions", json!({ "model": "other/model" }), 404),
        ("/v1/completions", json!({ "model": 1 }), 400),
        ("/v1/completions", json!([1]), 400),
        ("/v1/completions", json!({ "timeout": -1 }), 400),
        ("/v1/load_lora_adapter", json!({}), 404),
        ("/tokenize", json!({}), 404),
    ] {
        assert_eq!(ask(&app, path, None, body).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn keys_count_before_anything_is_passed_on() {
    let halt = Halt::default();
    let app = app(Some(engine().await), &halt).await;
    let key = ServeKey { id: 1, name: "test".to_owned(), hash: Digest::of(b"secret") };
    app.admit(Access { anonymous: false, keys: vec![key] });
    let status = async |key| ask(&app, "/v1/chat/completions", key, json!({})).await.status().as_u16();
    assert_eq!(
        (status(None).await, status(Some("wrong")).await, status(Some("secret")).await),
        (401, 401, 200)
    );
}

#[tokio::test]
async fn what_is_not_loaded_says_so_and_a_recall_cuts_every_answer_off() {
    let halt = Halt::default();
    assert_eq!(ask(&app(None, &halt).await, "/v1/completions", None, json!({})).await.status(), 503);
    let app = app(Some(engine().await), &halt).await;
    let streaming = ask(&app, "/v1/completions", None, json!({ "stream": true })).await;
    let waiting = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/v1/completions", None, json!({ "slow": true })).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(app.active(), 2);
    let mut events = streaming.into_body().into_data_stream();
    let mut told = String::new();
    while !told.contains("\"n\":2") {
        told += &String::from_utf8_lossy(&events.next().await.unwrap().unwrap());
    }
    halt.set(recalled());
    let last = tokio::time::timeout(Duration::from_secs(1), events.next()).await.unwrap();
    told += &String::from_utf8_lossy(&last.unwrap().unwrap());
    assert!(events.next().await.is_none());
    drop(events);
    assert!(told.starts_with("data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"error\""), "{told}");
    assert!(told.contains("model_recalled") && !told.contains("[DONE]"), "{told}");
    let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    assert_eq!(waited.status(), 410);
    assert_eq!(ask(&app, "/v1/completions", None, json!({})).await.status(), 410);
    assert_eq!((app.active(), app.cut_off()), (0, 2));
}

#[tokio::test]
async fn an_answer_that_takes_too_long_and_an_engine_that_is_gone_are_told() {
    let halt = Halt::default();
    let slow = app(Some(engine().await), &halt).await;
    let answer = ask(&slow, "/v1/completions", None, json!({ "slow": true, "timeout": 0.2 })).await;
    assert_eq!(answer.status(), 504);
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let gone = app(Some(nobody), &halt).await;
    assert_eq!(ask(&gone, "/v1/completions", None, json!({})).await.status(), 500);
}
