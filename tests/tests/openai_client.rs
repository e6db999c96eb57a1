//! The stock `openai` client against a served model, with a key.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use tests::net::Settings;
use tests::{Http, Net, binary, python, until};

#[test]
fn the_stock_client_of_openai_works_with_a_key_and_not_without() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.configure(&Settings { more: "anonymous = \"never\"\n".to_owned(), ..Settings::default() });
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    let node = alba.start();
    let ready = node.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let address = ready["address"].as_str().unwrap().to_owned();
    let worker = Http::tcp(&address);
    let refused = worker.request("GET", "/v1/models", None);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));

    // The running worker hears of a new key, and of its end.
    let made = alba.json(&["serve-key", "add", "test"]);
    let key = made["key"].as_str().unwrap();
    let with_key = |key: &str| {
        let head = format!("Bearer {key}");
        worker.try_request_with("GET", "/v1/models", &[("authorization", &head)], None).unwrap().status
    };
    until("the key to count", || (with_key(key) == 200).then_some(()));
    assert!(!alba.ok(&["serve-key", "list"]).stdout.contains(key));

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/openai_client.py");
    let output = Command::new(python::interpreter())
        .arg("-B")
        .arg(&script)
        .args([&format!("http://{address}/v1"), "alba/smollm2", key])
        .output()
        .expect("run the client");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    alba.ok(&["serve-key", "revoke", "test"]);
    until("the key to be of no use", || (with_key(key) == 401).then_some(()));
    alba.run(&["serve-key", "revoke", "test"]).expect(3, &["serve-key list"]);
    assert_eq!(node.stop(), 0);
}
