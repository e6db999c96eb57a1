//! Tokens: of people who sign in by OpenID Connect, at a small issuer that lies on demand and at one that others wrote; and as container
//! tools show them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use registry::digest::hash_file;
use serde_json::{Value, json};
use tests::containers::{self, get, host, tool};
use tests::hub::endpoint;
use tests::hub::world::model;
use tests::issuer::{Issuer, Process, follow, in_python};
use tests::net::{Settings, run};
use tests::{Daemon, Home, Http, Net, Reply, generate, python, until};

const CLIENT: &str = "steelyard-node";
/// A tool's run on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A node that lets the issuer's people in, and nobody without a token.
fn node(net: &Net, issuer: &str) -> (Home, Daemon) {
    let alba = net.nation("alba");
    alba.publish(&model(net, "model", 1, 1), "small", "1", &["--releasable-to", "all"]);
    let more = format!(
        "[hub]\nanonymous = false\n[oidc]\nissuer = \"{issuer}\"\nclient_id = \"{CLIENT}\"\nhours = 2\n\
         groups = {{ readers = \"read\", \"model makers\" = \"stage\" }}"
    );
    alba.configure(&Settings { more, ..Settings::default() });
    let a = alba.start();
    (alba, a)
}

fn nonce(a: &Daemon) -> String {
    a.public().get("/v1/oidc")["nonce"].as_str().unwrap().to_owned()
}

fn show(a: &Daemon, id_token: &str) -> Reply {
    a.public().request("POST", "/v1/oidc/token", Some(&json!({ "id_token": id_token })))
}

/// What the node says to an ID token made as `wish` asks, with a fresh nonce.
fn try_with(issuer: &Issuer, a: &Daemon, wish: Value) -> Reply {
    show(a, &issuer.mint(Some(&nonce(a)), wish))
}

#[track_caller]
fn refused(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(words), "`{words}` is not in: {detail}");
}

fn may_read(a: &Daemon, token: &str) -> u16 {
    let shown = format!("Bearer {token}");
    let path = "/alba/small/resolve/main/config.json";
    a.public().try_request_with("GET", path, &[("authorization", &shown)], None).unwrap().status
}

/// `steelyard login` as a person runs it, with `browser` in the place of theirs.
fn login(home: &Home, a: &Daemon, more: &[&str], browser: impl FnOnce(&str)) -> (i32, String, String) {
    let url = endpoint(a.public());
    let mut command = home.command(&[&["login", &url][..], more].concat());
    let mut child = Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(child.0.stderr.take().unwrap());
    let mut told = String::new();
    let address = loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{told}");
        told.push_str(&line);
        if line.starts_with("http://") {
            break line.trim().to_owned();
        }
    };
    browser(&address);
    let mut out = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    said.read_to_string(&mut told).unwrap();
    (child.0.wait().unwrap().code().unwrap(), out, told)
}

#[test]
fn a_person_signs_in_reads_and_is_put_out_again() {
    let issuer = Issuer::start();
    let net = Net::new();
    let (alba, a) = node(&net, &issuer.url);
    assert_eq!(may_read(&a, "hf_none"), 401);
    let (code, out, told) = login(&alba, &a, &[], |address| {
        for part in [
            "response_type=code",
            "code_challenge_method=S256",
            "nonce=",
            "state=",
            "redirect_uri=http%3A%2F%2F127.0.0.1%3A",
        ] {
            assert!(address.contains(part), "{part}: {address}");
        }
        // What some page sends to the port beforehand changes nothing.
        let redirect = address.split("redirect_uri=http%3A%2F%2F127.0.0.1%3A").nth(1).unwrap();
        let port = redirect.split('%').next().unwrap();
        let here = Http::tcp(&format!("127.0.0.1:{port}"));
        for stray in
            ["/", "/callback", "/callback?code=x&state=wrong", "/callback?error=access_denied&state=wrong"]
        {
            assert_eq!(here.request("GET", stray, None).status, 404, "{stray}");
        }
        let page = follow(address);
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.text().contains("signed in"));
    });
    assert_eq!(code, 0, "{told}");
    let token = out.trim().to_owned();
    assert!(token.starts_with("hf_") && token.len() >= 37 && !told.contains(&token), "{told}");
    assert!(told.contains("ada #1") && told.contains("`read`"), "{told}");
    assert_eq!(may_read(&a, &token), 200);
    let who = a.public().try_request_with(
        "GET",
        "/api/whoami-v2",
        &[("authorization", &format!("Bearer {token}"))],
        None,
    );
    let who = who.unwrap().json();
    assert_eq!(
        (who["name"].as_str(), who["auth"]["accessToken"]["role"].as_str()),
        (Some("alba"), Some("read"))
    );

    // Into a file that nobody else reads, whatever it was before; and with more to say.
    issuer.behave(json!({ "person": { "sub": "7f3a", "preferred_username": "ada", "groups": ["readers", "model makers", "others"] } }));
    let file = net.path().join("token");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, told) = login(&alba, &a, &["--out", file.to_str().unwrap(), "--json"], |address| {
        assert_eq!(follow(address).status, 200);
    });
    assert_eq!(code, 0, "{told}");
    let entry: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&entry["name"], &entry["scope"], &entry["subject"]),
        (&json!("ada #2"), &json!("stage"), &json!("7f3a"))
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = fs::read_to_string(&file).unwrap();
    assert_eq!(may_read(&a, &other), 200);

    // The operator sees sessions and ends them as any token.
    let listed = alba.json(&["token", "list"]);
    let of = |name: &str| listed.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    assert_eq!(of("ada #1")["subject"], "7f3a");
    assert!(of("ada #1")["expires"].is_string());
    alba.run(&["token", "list"]).expect(0, &["ada #1", "7f3a", "signed in"]);
    alba.ok(&["token", "revoke", "ada #1"]);
    assert_eq!((may_read(&a, &token), may_read(&a, &other)), (401, 200));
    // It outlives the node's process, as tokens do.
    assert_eq!(a.stop(), 0);
    let a = alba.start();
    assert_eq!(may_read(&a, &other), 200);
}

#[test]
fn what_is_forged_stale_or_for_others_opens_nothing() {
    let issuer = Issuer::start();
    let net = Net::new();
    let (alba, a) = node(&net, &issuer.url);
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        assert_eq!(try_with(&issuer, &a, json!({ "alg": algorithm })).status, 200, "{algorithm}");
        refused(&try_with(&issuer, &a, json!({ "alg": algorithm, "forged": true })), 422, "signature");
        // Without the key's name there is one that fits.
        assert_eq!(try_with(&issuer, &a, json!({ "alg": algorithm, "kid": "" })).status, 200, "{algorithm}");
    }
    let good = alba.json(&["token", "list"]).as_array().unwrap().len();
    assert_eq!(good, 6);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (wish, words) in [
        (json!({ "alg": "none" }), "RS256, ES256 or EdDSA"),
        (json!({ "alg": "HS256" }), "RS256, ES256 or EdDSA"),
        (json!({ "alg": "RS256", "kid": "ES256-1" }), "no key"),
        (json!({ "alg": "RS256", "kid": "enc", "forged": true }), "no key"),
        (json!({ "claims": { "aud": "another" } }), "audience"),
        (json!({ "claims": { "aud": null } }), "aud"),
        (json!({ "claims": { "aud": [CLIENT, "another"] } }), "another client"),
        (json!({ "claims": { "azp": "another" } }), "another client"),
        (json!({ "claims": { "iss": "https://elsewhere.example" } }), "issuer"),
        (json!({ "claims": { "exp": now - 120 } }), "expired"),
        (json!({ "claims": { "exp": null } }), "exp"),
        (json!({ "claims": { "nbf": now + 600 } }), "not good yet"),
        (json!({ "claims": { "iat": now + 600 } }), "yet to come"),
        (json!({ "claims": { "sub": null } }), "sub"),
        (json!({ "claims": { "sub": "" } }), "names nobody"),
        (json!({ "claims": { "sub": "x".repeat(300) } }), "names nobody"),
        (json!({ "claims": { "nonce": "wrong" } }), "nonce"),
        (json!({ "claims": { "nonce": null } }), "nonce"),
    ] {
        refused(&try_with(&issuer, &a, wish.clone()), 422, words);
    }
    assert_eq!(
        try_with(&issuer, &a, json!({ "claims": { "aud": [CLIENT, "another"], "azp": CLIENT } })).status,
        200
    );
    for groups in [json!([]), json!(["Readers"]), json!("strangers"), json!(null), json!({ "readers": true })]
    {
        refused(&try_with(&issuer, &a, json!({ "claims": { "groups": groups } })), 403, "none of the groups");
    }
    // Once, and not by another node.
    let token = issuer.mint(Some(&nonce(&a)), json!({}));
    assert_eq!(show(&a, &token).status, 200);
    refused(&show(&a, &token), 422, "nonce");
    let (other, b) = {
        let other = net.nation("borea");
        let more = format!(
            "[oidc]\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\ngroups = {{ readers = \"read\" }}",
            issuer.url
        );
        other.configure(&Settings { more, ..Settings::default() });
        let b = other.start();
        (other, b)
    };
    refused(&show(&b, &issuer.mint(Some(&nonce(&a)), json!({}))), 422, "nonce");
    // Not a token, and too much of one.
    for text in ["", "x", "a.b.c", "e30.e30.", "....."] {
        assert!(matches!(show(&a, text).status, 400 | 422), "{text}");
    }
    assert_eq!(show(&a, &"x".repeat(100_000)).status, 400);
    assert_eq!(show(&a, &"x".repeat(1_000_000)).status, 400);
    drop((other, b));
}

#[test]
fn keys_change_are_many_or_slow() {
    let issuer = Issuer::start();
    let net = Net::new();
    let (_alba, a) = node(&net, &issuer.url);
    assert_eq!(try_with(&issuer, &a, json!({})).status, 200);
    let asked = issuer.asked();
    assert_eq!(try_with(&issuer, &a, json!({})).status, 200);
    assert_eq!(issuer.asked(), asked, "keys are kept");
    // A key that is not there is looked for, though not for each who asks.
    let old = issuer.mint(Some(&nonce(&a)), json!({}));
    issuer.behave(json!({ "rotate": true }));
    let before = Instant::now();
    until("the node to have the new keys", || (try_with(&issuer, &a, json!({})).status == 200).then_some(()));
    let fetched = issuer.asked() - asked;
    assert!(fetched >= 1 && fetched <= 1 + before.elapsed().as_secs() / 5, "{fetched} times");
    refused(&show(&a, &old), 422, "no key");

    // Too many keys, by number and by bytes.
    for pad in [100, 3000] {
        let net = Net::new();
        let (_, c) = node(&net, &issuer.url);
        issuer.behave(json!({ "pad": pad }));
        refused(&try_with(&issuer, &c, json!({})), 502, "issuer");
        issuer.behave(json!({ "pad": 0 }));
    }
    // A slow one: those who wait for it end together, and whoever comes next is told at once.
    issuer.behave(json!({ "delay": 20 }));
    let net = Net::new();
    let (_, c) = node(&net, &issuer.url);
    let before = Instant::now();
    std::thread::scope(|scope| {
        for waiting in (0..4).map(|_| scope.spawn(|| try_with(&issuer, &c, json!({})))).collect::<Vec<_>>() {
            refused(&waiting.join().unwrap(), 502, "within 10 s");
        }
    });
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    // What is known is good meanwhile, and nobody else waits.
    assert_eq!(try_with(&issuer, &a, json!({})).status, 200);
    issuer.behave(json!({ "delay": 0 }));
    until("the node to ask again", || (try_with(&issuer, &c, json!({})).status == 200).then_some(()));
    // One that calls itself something else is not the one that the operator named.
    let other = Issuer::start();
    other.behave(json!({ "issuer": "https://elsewhere.example" }));
    let net = Net::new();
    let (_, d) = node(&net, &other.url);
    refused(&try_with(&other, &d, json!({})), 502, "calls itself");
}

#[test]
fn settings_and_nodes_without_an_issuer_say_so() {
    let net = Net::new();
    let alba = net.nation("alba");
    for (settings, words) in [
        ("issuer = \"http://id.alba.example\"\nclient_id = \"x\"\ngroups = { a = \"read\" }", "oidc.issuer"),
        ("issuer = \"https://id.alba.example\"\ngroups = { a = \"read\" }", "oidc.client_id"),
        ("issuer = \"https://id.alba.example\"\nclient_id = \"x\"", "oidc.groups"),
        ("issuer = \"https://id.alba.example\"\nclient_id = \"x\"\ngroups = { a = \"write\" }", "write"),
        (
            "issuer = \"https://id.alba.example\"\nclient_id = \"x\"\ngroups = { a = \"read\" }\nhours = 0",
            "oidc.hours",
        ),
        (
            "issuer = \"https://id.alba.example\"\nclient_id = \"x\"\ngroups = { a = \"read\" }\nscopes = [\"email\"]",
            "oidc.scopes",
        ),
    ] {
        alba.configure(&Settings { more: format!("[oidc]\n{settings}"), ..Settings::default() });
        alba.run(&["status"]).expect(2, &[words]);
    }
    alba.configure(&Settings::default());
    let a = alba.start();
    assert_eq!(a.public().request("GET", "/v1/oidc", None).status, 404);
    alba.run(&["login", &endpoint(a.public())]).expect(3, &["nobody signs in", "token create"]);
    alba.run(&["login", "http://models.alba.example"]).expect(2, &["https"]);
}

/// An issuer that others wrote, at which a person chooses an account.
#[test]
fn a_person_signs_in_at_an_issuer_of_others() {
    let interpreter = python::with_requirements("requirements-oidc.txt");
    // It can't say which port the system chose, so that one is chosen for it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut command = in_python(&interpreter);
    let claims = |sub: &str, groups: &[&str]| {
        json!({ "sub": sub, "email": format!("{sub}@alba.example"), "groups": groups }).to_string()
    };
    command.args(["-m", "oidc_provider_mock", "--port", &port.to_string(), "--require-nonce"]);
    command.args([
        "--user-claims",
        &claims("ada", &["readers"]),
        "--user-claims",
        &claims("eve", &["strangers"]),
    ]);
    let _process = Process(command.stdout(Stdio::null()).spawn().unwrap());
    let http = Http::tcp(&url);
    until("the issuer to listen", || http.try_request("GET", "/jwks", None).ok());
    let net = Net::new();
    let (alba, a) = node(&net, &url);
    let sign_in = |nonce: &str, sub: &str| {
        let mut command = in_python(&interpreter);
        command.args(["sign_in.py", url.as_str(), CLIENT, nonce, sub]);
        let run = run(command, LIMIT);
        run.expect(0, &[]);
        run.stdout.trim().to_owned()
    };
    let shown = show(&a, &sign_in(&nonce(&a), "ada"));
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert_eq!(may_read(&a, shown.json()["token"].as_str().unwrap()), 200);
    refused(&show(&a, &sign_in(&nonce(&a), "eve")), 403, "none of the groups");
    refused(&show(&a, &sign_in("another", "ada")), 422, "nonce");
    // Nobody comes.
    let (code, _, told) = login(&alba, &a, &["--wait", "1"], |_| {});
    assert_eq!(code, 6, "{told}");
    assert!(told.contains("nobody signed in within 1 s"), "{told}");
}

/// The rules of the hub's interface: without a token nothing, with one everything that its nation may have.
#[test]
fn container_tools_show_a_token_as_the_password() {
    let net = Net::new();
    let alba = net.nation("alba");
    let folder = net.folder("model");
    generate::gguf(&folder.join("small.gguf"), 1 << 20, 3).unwrap();
    fs::write(folder.join("README.md"), "# Small\n").unwrap();
    alba.publish(&folder, "small", "1", &[]);
    let more = "[hub]\nanonymous = false\nrequests_per_minute = 1200".to_owned();
    alba.configure(&Settings { more, ..Settings::default() });
    let token = alba.ok(&["token", "create", "cluster"]).stdout.trim().to_owned();
    let a = alba.start();
    let basic = |password: &str| {
        format!("Basic {}", data_encoding::BASE64.encode(format!("anybody:{password}").as_bytes()))
    };
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/alba/small/tags/list",
        "/v2/alba/small/manifests/1",
        "/v2/alba/none/tags/list",
    ] {
        let reply = get(&a, path, &[]);
        containers::refused(&reply, 401, "UNAUTHORIZED", "token");
        assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"steelyard\""));
        for wrong in
            [basic("hf_wrong"), "Bearer hf_wrong".to_owned(), "Digest x".to_owned(), "Basic ?".to_owned()]
        {
            let reply = get(&a, path, &[("authorization", &wrong)]);
            containers::refused(&reply, 401, "UNAUTHORIZED", "wrong");
        }
    }
    for good in [basic(&token), format!("Bearer {token}")] {
        for path in ["/v2/", "/v2/_catalog", "/v2/alba/small/manifests/1"] {
            assert_eq!(get(&a, path, &[("authorization", &good)]).status, 200, "{path}");
        }
        containers::refused(
            &get(&a, "/v2/alba/none/tags/list", &[("authorization", &good)]),
            404,
            "NAME_UNKNOWN",
            "not known",
        );
    }
    // The operator's socket asks for none.
    assert_eq!(a.http.try_request_with("GET", "/v2/_catalog", &[], None).unwrap().status, 200);

    // The stock clients: given the token, logged in with it, and without.
    let (source, target) =
        (format!("docker://{}/alba/small:1", host(&a)), format!("dir:{}", net.path().join("dir").display()));
    let pull = ["copy", "--src-tls-verify=false"];
    let plain = tool("skopeo", &[&pull[..], &[&source, &target]].concat());
    assert_ne!(plain.code, 0, "{plain}");
    tool("skopeo", &[&pull[..], &["--src-creds", &format!("me:{token}"), &source, &target]].concat())
        .expect(0, &[]);
    let content = fs::read(folder.join("small.gguf")).unwrap();
    assert_eq!(
        fs::read(net.path().join("dir").join(hash_file(&content[..]).unwrap().sha256.to_hex())).unwrap(),
        content
    );
    let file = net.path().join("auth.json");
    let login = |password: &str| {
        tool(
            "skopeo",
            &[
                "login",
                "--tls-verify=false",
                "--authfile",
                file.to_str().unwrap(),
                "-u",
                "me",
                "-p",
                password,
                &host(&a),
            ],
        )
    };
    assert_ne!(login("hf_wrong").code, 0);
    login(&token).expect(0, &[]);
    let list = [
        "list-tags",
        "--tls-verify=false",
        "--authfile",
        file.to_str().unwrap(),
        &format!("docker://{}/alba/small", host(&a)),
    ];
    assert_eq!(tool("skopeo", &list).json()["Tags"], json!(["1", "stable"]));
    if tool("podman", &["info", "--format", "{{.Version.Version}}"]).code == 0 {
        let list = [
            "search",
            "--list-tags",
            "--tls-verify=false",
            "--authfile",
            file.to_str().unwrap(),
            &format!("{}/alba/small", host(&a)),
        ];
        tool("podman", &list).expect(0, &["stable"]);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/oras_pull.py");
    // Without a token it asks for minutes before it gives up.
    let mut oras = Command::new(python::interpreter());
    oras.arg(&script).arg(format!("{}/alba/small:1", host(&a))).arg(net.path().join("oras"));
    oras.env("STEELYARD_TOKEN", &token);
    run(oras, LIMIT).expect(0, &[]);
    assert_eq!(fs::read(net.path().join("oras/small.gguf")).unwrap(), content);

    alba.ok(&["token", "revoke", "cluster"]);
    containers::refused(
        &get(&a, "/v2/", &[("authorization", &basic(&token))]),
        401,
        "UNAUTHORIZED",
        "revoked",
    );
    // Who guesses is slowed down.
    let guess = || get(&a, "/v2/", &[("authorization", &basic("hf_0000000000000000000000000000000000"))]);
    let limited = (0..100).map(|_| guess()).find(|reply| reply.status == 429).expect("a limit");
    containers::refused(&limited, 429, "TOOMANYREQUESTS", "too many");
    assert!(limited.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}
