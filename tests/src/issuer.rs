//! An issuer of OpenID Connect for tests, run in Python, and what a person's browser does there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{Http, Reply, python};

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An interpreter in the folder of the tests' scripts.
pub fn in_python(interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The issuer of `tests/python/issuer`.
#[derive(Debug)]
pub struct Issuer {
    /// What it calls itself.
    pub url: String,
    http: Http,
    _process: Process,
}

impl Issuer {
    /// Starts it.
    pub fn start() -> Self {
        let mut command = in_python(python::interpreter());
        let mut child = command.args(["-m", "issuer"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        Self { http: Http::tcp(&url), url, _process: Process(child) }
    }

    /// Changes what it does from now on.
    pub fn behave(&self, how: Value) {
        assert_eq!(self.http.request("POST", "/behave", Some(&how)).status, 200);
    }

    /// Fetches of its keys so far.
    pub fn asked(&self) -> u64 {
        self.http.get("/asked").as_u64().unwrap()
    }

    /// An ID token as `wish` asks for it, with this nonce.
    pub fn mint(&self, nonce: Option<&str>, mut wish: Value) -> String {
        if let Some(nonce) = nonce {
            let claims = wish.as_object_mut().unwrap().entry("claims").or_insert(json!({}));
            claims.as_object_mut().unwrap().entry("nonce").or_insert(json!(nonce));
        }
        let made = self.http.request("POST", "/mint", Some(&wish)).json();
        made["id_token"].as_str().unwrap().to_owned()
    }
}

/// Path and query of an address.
fn target(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap();
    &rest[rest.find('/').unwrap()..]
}

/// Goes where it is sent.
pub fn follow(url: &str) -> Reply {
    let reply = Http::tcp(url).request("GET", target(url), None);
    match reply.header("location") {
        Some(to) if reply.status == 302 => follow(to),
        _ => reply,
    }
}
