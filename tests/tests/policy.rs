//! Policies of one's own: two nations must vouch, lineage counts, and a broken file changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Daemon, Home, Net, generate, until};

const TWO_VOUCH: &str = r#"
@id("two-allies-vouch")
@passed("{passes} allies vouch: {passed-by}")
@reason("{passes} allies vouch ({passed-by}), 2 must")
@advice("ask allies to run `steelyard attest {model}`")
forbid (principal, action in [Action::"admit", Action::"mirror"], resource)
unless { context.passes >= 2 };

@id("nobody-advises-against")
@passed("no ally advises against it")
@reason("advised against by {failed-by}")
@advice("ask {failed-by} what is wrong")
forbid (principal, action in [Action::"admit", Action::"mirror", Action::"serve"], resource)
when { context.fails > 0 };
"#;

fn small(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 1 << 20, seed).unwrap();
    fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n# A small model\n\x1b[2JIt says little.\n")
        .unwrap();
    folder
}

/// Settings that name a policy file, written into the home.
fn policy(home: &Home, text: &str) {
    fs::write(home.path.join("policy.cedar"), text).unwrap();
    home.configure(&Settings {
        more: "[policy]\nfile = \"policy.cedar\"\n".to_owned(),
        ..Settings::default()
    });
}

fn refusals(problem: &Value) -> Vec<String> {
    assert_eq!(problem["code"], "policy_refused", "{problem}");
    let checks = problem["decision"]["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["passed"] == false)
        .map(|check| check["rule"].as_str().unwrap().to_owned())
        .collect()
}

fn attested(daemon: &Daemon, release: &str) -> usize {
    let detail = daemon.http.request("GET", &format!("/v1/releases/{release}"), None);
    if detail.status != 200 { 0 } else { detail.json()["attestations"].as_array().map_or(0, Vec::len) }
}

#[test]
fn two_allies_must_vouch_before_cora_admits() {
    let net = Net::new();
    let [alba, borea, cora, dora] = net.allies(["alba", "borea", "cora", "dora"]);
    policy(&cora, TWO_VOUCH);
    let release = alba.publish(&small(&net, "model", 1), "small", "1", &["--releasable-to", "all"]);
    let (a, b, c, d) = (alba.start(), borea.start(), cora.start(), dora.start());
    for node in [&b, &c, &d] {
        node.connect(&a);
    }
    c.connect(&b);
    c.connect(&d);
    for node in [&b, &d] {
        node.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    }

    // Nobody vouches yet: refused before a byte moves, with what is missing.
    let problem = c.pull("alba/small").unwrap_err();
    assert_eq!(refusals(&problem), ["two-allies-vouch"]);
    cora.run(&["pull", "alba/small"])
        .expect(5, &["two-allies-vouch", "0 allies vouch", "steelyard attest alba/small"]);
    assert!(cora.listing().is_empty(), "nothing was fetched");

    // The producer's own praise does not count, nor does one ally's with two suites.
    alba.ok(&["attest", "alba/small", "--suite", "mmlu", "--verdict", "pass"]);
    let results = net.path().join("results.json");
    fs::write(&results, "{\"accuracy\": 0.7130}").unwrap();
    let results = results.to_str().unwrap();
    borea.ok(&["attest", "alba/small", "--suite", "mmlu", "--verdict", "pass", "--results", results]);
    borea.ok(&[
        "attest",
        "alba/small@1",
        "--suite",
        "red-team",
        "--verdict",
        "pass",
        "--summary",
        "three known jailbreaks",
    ]);
    until("cora to know of three", || (attested(&c, &release) == 3).then_some(()));
    let problem = c.pull("alba/small").unwrap_err();
    assert!(problem.to_string().contains("1 allies vouch (borea), 2 must"), "{problem}");
    let explained = cora.json(&["policy", "explain", "alba/small"]);
    assert_eq!(explained["decision"]["allowed"], false, "{explained}");
    assert_eq!(explained["evidence"]["attestations"].as_array().unwrap().len(), 3, "{explained}");
    cora.run(&["policy", "explain", "alba/small"])
        .expect(0, &["refused", "two-allies-vouch", "policy.cedar:2", "vouched for by", "borea"]);

    // A second nation vouches: admitted, and the record says by whom.
    dora.ok(&["attest", "alba/small", "--suite", "mmlu", "--verdict", "pass", "--valid-days", "30"]);
    until("cora to know of the fourth", || (attested(&c, &release) == 4).then_some(()));
    let done = c.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    assert!(done.to_string().contains("2 allies vouch: borea, dora"), "{done}");
    cora.run(&["show", "alba/small"])
        .expect(0, &["attested by", "borea", "dora", "accuracy 0.7130", "does not vouch for itself"]);
    let card = cora.run(&["show", "alba/small", "--card"]);
    card.expect(0, &["# A small model", "It says little.", "red-team"]);
    assert!(!card.stdout.contains('\u{1b}'), "{card}");

    // A fail by anybody is heard at once; a later verdict with the same suite replaces it.
    dora.ok(&["attest", "alba/small", "--suite", "mmlu", "--verdict", "fail", "--summary", "contaminated"]);
    until("dora's change of mind to arrive", || {
        let explained = cora.json(&["policy", "explain", "alba/small", "--action", "serve"]);
        (explained["decision"]["allowed"] == false).then_some(())
    });
    let problem = c.serve("alba/small").unwrap_err();
    assert!(problem.to_string().contains("advised against by dora"), "{problem}");
    dora.ok(&["attest", "alba/small", "--suite", "mmlu", "--verdict", "pass"]);
    until("dora's second thought to arrive", || {
        let explained = cora.json(&["policy", "explain", "alba/small", "--action", "serve"]);
        (explained["decision"]["allowed"] == true).then_some(())
    });
    assert_eq!(attested(&c, &release), 4, "replaced, not added");
}

#[test]
fn attestations_go_where_the_release_may_go() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let closed = alba.publish(&small(&net, "model", 1), "closed", "1", &["--releasable-to", "borea"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    c.connect(&b);
    b.pull("alba/closed").unwrap_or_else(|problem| panic!("{problem}"));
    borea.ok(&["attest", "alba/closed", "--suite", "secret evaluation", "--verdict", "fail"]);
    until("alba to know", || (attested(&a, &closed) == 1).then_some(()));
    c.http.post("/v1/sync", &json!({}));
    let known = c.http.request("GET", &format!("/v1/releases/{closed}"), None);
    assert_eq!(known.status, 404, "{}", known.text());
    assert!(c.http.get("/v1/models").as_array().unwrap().is_empty(), "cora was told nothing");
    // Nobody attests what is not known to it.
    let statement = json!([{ "payload": "e30=" }]);
    assert!(c.http.request("POST", "/v1/statements", Some(&statement)).status >= 400);
    cora.run(&["attest", &closed, "--suite", "x", "--verdict", "pass"]).expect(3, &["not known here"]);
    borea.run(&["attest", "alba/closed", "--suite", "", "--verdict", "pass"]).expect(2, &["1 to 256 bytes"]);
    borea.run(&["attest", "alba/closed", "--suite", "x", "--verdict", "great"]).expect(2, &["great"]);
}

#[test]
fn a_recalled_base_and_a_rule_about_lineage_reach_what_was_made_of_it() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    policy(
        &cora,
        "@id(\"no-alba\")\n@reason(\"alba is in its lineage\")\n@advice(\"take another\")\n\
         forbid (principal, action == Action::\"admit\", resource in Nation::\"alba\")\nwhen { resource.licence == \"MIT\" };\n",
    );
    let base = alba.publish(&small(&net, "base", 1), "base", "1", &["--releasable-to", "all"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    c.connect(&b);
    b.pull("alba/base").unwrap_or_else(|problem| panic!("{problem}"));
    let derive = |name: &str, seed, licence: &str| {
        let folder = small(&net, name, seed);
        let of = format!("{base}:fine-tune");
        let model = format!("borea/{name}");
        let folder = folder.to_str().unwrap();
        let args = [
            "publish",
            folder,
            "--as",
            &model,
            "--version",
            "1",
            "--licence",
            licence,
            "--releasable-to",
            "all",
            "--derived-from",
            &of,
        ];
        borea.json(&args)["release"].as_str().unwrap().to_owned()
    };
    derive("tuned", 2, "Apache-2.0");
    derive("mit", 3, "MIT");
    c.http.post("/v1/sync", &json!({}));
    let problem = c.pull("borea/mit").unwrap_err();
    assert_eq!(refusals(&problem), ["no-alba"], "{problem}");
    c.pull("borea/tuned").unwrap_or_else(|problem| panic!("{problem}"));
    // The base's producer recalls the lineage: what borea made of it is refused everywhere.
    alba.ok(&[
        "recall",
        "alba/base@1",
        "--lineage",
        "--reason",
        "poisoned",
        "--severity",
        "critical",
        "--yes",
    ]);
    until("the recall to reach what was made of it", || {
        (c.http.get("/v1/models/borea/tuned")["releases"][0]["recalled"] == true).then_some(())
    });
    let problem = c.serve("borea/tuned").unwrap_err();
    assert!(problem.to_string().contains("poisoned"), "{problem}");
    let explained = cora.json(&["policy", "explain", "borea/tuned", "--as", "borea"]);
    assert_eq!(explained["action"], "release", "{explained}");
    assert_eq!(explained["decision"]["allowed"], false, "{explained}");
}

#[test]
fn a_rule_about_release_closes_every_door() {
    let net = Net::new();
    // borea and cora do not know each other: else borea, which may have it, would pass it on.
    let [alba, borea, cora] = ["alba", "borea", "cora"].map(|name| net.nation(name));
    for ally in [&borea, &cora] {
        alba.trust(ally);
        ally.trust(&alba);
    }
    policy(
        &alba,
        "@id(\"not-to-cora\")\n@reason(\"{nation} is under embargo\")\n@advice(\"wait\")\n\
         forbid (principal == Nation::\"cora\", action == Action::\"release\", resource);\n",
    );
    let release = alba.publish(&small(&net, "model", 1), "open", "1", &["--releasable-to", "all"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    // cora hears nothing of it from alba, though the release is for everybody, and gets no byte by its digest.
    c.http.post("/v1/sync", &json!({}));
    for reference in ["alba/open", &release] {
        let problem = c.pull(reference).unwrap_err();
        assert_eq!(problem["code"], "not_found", "{problem}");
    }
    b.pull("alba/open").unwrap_or_else(|problem| panic!("{problem}"));
    let explained = alba.json(&["policy", "explain", "alba/open", "--as", "cora"]);
    assert_eq!(explained["decision"]["allowed"], false, "{explained}");
    // The rule goes while alba runs: cora asks again from the beginning and has it.
    fs::write(alba.path.join("policy.cedar"), "// no embargo any more\n").unwrap();
    until("alba's policy to change", || {
        let rules = a.http.get("/v1/policy")["rules"].to_string();
        (!rules.contains("not-to-cora")).then_some(())
    });
    until("cora to learn of it", || {
        c.http.post("/v1/sync", &json!({}));
        (!c.http.get("/v1/models").as_array()?.is_empty()).then_some(())
    });
    c.pull("alba/open").unwrap_or_else(|problem| panic!("{problem}"));
}

#[test]
fn a_broken_policy_file_changes_nothing_until_it_is_mended() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let file = cora.path.join("policy.cedar");
    policy(
        &cora,
        "@id(\"no-mit\")\n@reason(\"{licence}\")\n@advice(\"relicense\")\nforbid (principal, action, resource) when { resource.licence == \"MIT\" };\n",
    );
    alba.publish(&small(&net, "model", 1), "small", "1", &["--releasable-to", "all"]);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    let mut watched = c.http.events("GET", "/v1/events?kinds=alert,policy", None);
    fs::write(&file, "@id(\"broken\")\nforbid (principal, action, resource) when { context.nope };\n")
        .unwrap();
    let alert = watched.find(std::time::Duration::from_secs(30), "the alert", |event| event.name == "alert");
    let message = alert.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("policy.cedar") && message.contains("1:1") && message.contains("stays in force"),
        "{message}"
    );
    // The rules before are in force, which everybody sees.
    let shown = cora.json(&["policy", "show"]);
    assert!(shown["rules"].to_string().contains("no-mit") && shown["error"].is_string(), "{shown}");
    cora.run(&["policy", "show"]).expect(0, &["warning", "no-mit"]);
    cora.run(&["policy", "check"]).expect(2, &["policy.cedar:1:1", "without saying why", "help:"]);
    // Mended: taken up without a restart.
    fs::write(&file, "@id(\"no-safetensors\")\n@reason(\"{format}\")\n@advice(\"take GGUF\")\nforbid (principal, action == Action::\"admit\", resource) when { resource.format == \"safetensors\" };\n").unwrap();
    watched.find(std::time::Duration::from_secs(30), "the new policy", |event| event.name == "policy");
    cora.run(&["policy", "check"]).expect(0, &["is sound"]);
    assert_eq!(refusals(&c.pull("alba/small").unwrap_err()), ["no-safetensors"]);
    // Removed altogether: that is broken too, and not a policy without rules.
    fs::remove_file(&file).unwrap();
    watched.find(std::time::Duration::from_secs(30), "the second alert", |event| event.name == "alert");
    assert_eq!(refusals(&c.pull("alba/small").unwrap_err()), ["no-safetensors"]);
    // A node does not start by other rules than its operator wrote.
    c.stop();
    fs::write(&file, "forbid (").unwrap();
    cora.run(&["node"]).expect(2, &["policy.cedar", "1:"]);
    fs::write(&file, "// nothing of our own\n").unwrap();
    let c = cora.start();
    c.connect(&a);
    c.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
}

#[test]
fn cases_are_run_without_a_node() {
    let net = Net::new();
    let home = net.nation("cora");
    let folder = net.folder("ci");
    let (policy, cases) = (folder.join("policy.cedar"), folder.join("cases.toml"));
    fs::write(&policy, TWO_VOUCH).unwrap();
    let vouch = |nation: &str| {
        format!(
            "[[case.evidence.attestations]]\nnation = \"{nation}\"\nsuite = \"mmlu\"\nverdict = \"pass\"\n"
        )
    };
    let case = |name: &str, expect: &str, rest: &str| {
        format!("[[case]]\nname = \"{name}\"\nexpect = \"{expect}\"\n{rest}\n")
    };
    let both = format!("{}{}", vouch("borea"), vouch("dora"));
    let text = [
        case("two vouch", "allow", &both),
        case("one vouches", "refuse", &format!("refusedBy = [\"two-allies-vouch\"]\n{}", vouch("borea"))),
        case(
            "shipped rules hold too",
            "refuse",
            "refusedBy = [\"two-allies-vouch\", \"safe-formats\"]\nevidence = { unsafeFiles = [{ path = \"m.bin\", why = \"a pickle\" }] }\n",
        ),
    ];
    fs::write(&cases, text.concat()).unwrap();
    let (policy, cases) = (policy.to_str().unwrap(), cases.to_str().unwrap().to_owned());
    home.run(&["policy", "test", &cases, "--policy", policy]).expect(0, &["3 cases, 0 otherwise"]);
    home.run(&["policy", "test", &cases]).expect(5, &["one vouches", "was allowed"]);
    fs::write(&cases, case("x", "maybe", "")).unwrap();
    home.run(&["policy", "test", &cases]).expect(2, &["cases.toml", "line 3"]);
    fs::write(&cases, case("x", "allow", "evidence = { colour = 1 }")).unwrap();
    home.run(&["policy", "test", &cases]).expect(2, &["colour"]);
    home.run(&["policy", "show", "--schema"]).expect(0, &["entity Release"]);
    let shipped = home.ok(&["policy", "show", "--shipped"]).stdout;
    let own = folder.join("shipped.cedar");
    fs::write(&own, shipped).unwrap();
    home.run(&["policy", "check", own.to_str().unwrap(), "--alone"]).expect(0, &["9 rules"]);
    home.run(&["policy", "check", own.to_str().unwrap()]).expect(2, &["there already"]);
}

#[test]
fn releases_with_full_evidence_are_admitted_one_after_the_other() {
    let net = Net::new();
    let count = std::env::var("STEELYARD_ADMISSIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    // Each one that is refused panics.
    tests::bench::admission::prepare(net.path(), count);
    println!("{count} releases, in seconds: {:?}", tests::bench::admission::admit_all(net.path()));
}
