//! What bodies are read as, and which are refused.

#![allow(clippy::unwrap_used)]
use super::*;

fn chat(extra: &str) -> Result<Request, ApiError> {
    Request::chat(
        format!(r#"{{"model":"a/b","messages":[{{"role":"user","content":"Hi"}}]{extra}}}"#).as_bytes(),
    )
}

fn completion(extra: &str) -> Result<Request, ApiError> {
    Request::completion(format!(r#"{{"prompt":"Hi"{extra}}}"#).as_bytes())
}

#[test]
fn defaults_are_those_of_openai() {
    let request = completion("").unwrap();
    assert_eq!(request.max_tokens, Some(16));
    assert!(!request.stream && !request.seeded);
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (1.0, 1.0));
    let request = chat("").unwrap();
    assert_eq!((request.max_tokens, request.model.as_deref()), (None, Some("a/b")));
}

#[test]
fn everything_supported_is_read() {
    let request = chat(
        r#","stream":true,"stream_options":{"include_usage":true},"stop":["a","b"],"max_tokens":9,"max_completion_tokens":7,
        "temperature":0,"top_p":0.5,"seed":-1,"frequency_penalty":1,"presence_penalty":-1,"n":1,"logprobs":false,
        "tools":[],"tool_choice":"none","response_format":{"type":"text"},"user":"u","logit_bias":{"5":-100},"suffix":null,
        "timeout":2.5"#,
    )
    .unwrap();
    assert!(request.stream && request.include_usage && request.seeded);
    assert_eq!((request.max_tokens, request.stops.len()), (Some(7), 2));
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (0.0, 0.5));
    assert_eq!(
        (request.bias.as_slice(), request.timeout),
        (&[(5, -100.0)][..], Some(Duration::from_millis(2500)))
    );
    let request = chat(r#","logprobs":true,"top_logprobs":3,"n":4"#).unwrap();
    assert_eq!((request.logprobs, request.choices), (Some(3), 4));
    assert_eq!(completion(r#","logprobs":2"#).unwrap().logprobs, Some(2));
}

#[test]
fn contents_in_parts_are_joined_and_roles_are_known() {
    let body = r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":null},{"role":"user","content":"c","name":"Ann"}]}"#;
    let Input::Messages(messages) = Request::chat(body.as_bytes()).unwrap().input else { unreachable!() };
    let read: Vec<_> = messages.iter().map(|message| (message.role, message.content.as_str())).collect();
    assert_eq!(read, [("system", "ab"), ("assistant", ""), ("user", "c")]);
}

#[test]
fn what_is_not_supported_or_wrong_is_refused_by_name() {
    for (extra, param) in [
        (r#","n":99"#, "n"),
        (r#","n":0"#, "n"),
        (r#","logprobs":3"#, "logprobs"),
        (r#","top_logprobs":3"#, "top_logprobs"),
        (r#","logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#","tools":[{"type":"function"}]"#, "tools[0].function"),
        (r#","tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (r#","tools":[{"type":"function","function":{"name":"a b"}}]"#, "tools[0].function.name"),
        (r#","tool_choice":"required""#, "tool_choice"),
        (r#","response_format":{"type":"xml"}"#, "response_format"),
        (r#","response_format":{"type":"json_schema"}"#, "response_format.json_schema"),
        (r#","logit_bias":{"5":101}"#, "logit_bias"),
        (r#","logit_bias":{"x":1}"#, "logit_bias"),
        (r#","timeout":0"#, "timeout"),
        (r#","timeout":1e9"#, "timeout"),
        (r#","temperature":2.5"#, "temperature"),
        (r#","temperature":"hot""#, "temperature"),
        (r#","top_p":-0.1"#, "top_p"),
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_completion_tokens":-5"#, "max_completion_tokens"),
        (r#","seed":1.5"#, "seed"),
        (r#","stop":["a","b","c","d","e"]"#, "stop"),
        (r#","stop":"""#, "stop"),
        (r#","stop":7"#, "stop"),
        (r#","stream":"yes""#, "stream"),
        (r#","stream_options":{"include_usage":true}"#, "stream_options"),
        (r#","stream":true,"stream_options":{"x":1}"#, "stream_options.x"),
        (r#","top_k":40"#, "top_k"),
        (r#","prompt":"Hi""#, "prompt"),
    ] {
        let error = chat(extra).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{extra}: {error:?}");
    }
    for (extra, param) in [
        (r#","echo":true"#, "echo"),
        (r#","best_of":3"#, "best_of"),
        (r#","suffix":"x""#, "suffix"),
        (r#","logprobs":6"#, "logprobs"),
        (r#","messages":[]"#, "messages"),
    ] {
        assert_eq!(completion(extra).unwrap_err().param.as_deref(), Some(param));
    }
}

#[test]
fn wrong_messages_and_prompts_are_refused() {
    for body in [
        r"{}",
        r"[]",
        r"nonsense",
        r#"{"messages":[]}"#,
        r#"{"messages":{}}"#,
        r#"{"messages":[1]}"#,
        r#"{"messages":[{"role":"king","content":"x"}]}"#,
        r#"{"messages":[{"role":"user"}]}"#,
        r#"{"messages":[{"role":"tool","content":"x"}]}"#,
        r#"{"messages":[{"role":"assistant","tool_calls":[{"type":"function"}]}]}"#,
        r#"{"messages":[{"role":"user","content":5}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
        r#"{"messages":[{"role":"user","content":["x"]}]}"#,
    ] {
        assert_eq!(Request::chat(body.as_bytes()).unwrap_err().status.as_u16(), 400, "{body}");
    }
    for prompt in ["[]", "5", "[1,2]", r#"["a","b"]"#, "{}", "null"] {
        let body = format!(r#"{{"prompt":{prompt}}}"#);
        assert_eq!(
            Request::completion(body.as_bytes()).unwrap_err().param.as_deref(),
            Some("prompt"),
            "{body}"
        );
    }
    assert!(Request::chat(b"{\"messages\":\"\xFF\"}").is_err());
}
