//! Networks of a test's own: namespaces on a public segment, some of them behind routers that translate addresses.
//!
//! ```text
//!        192.168.1.2        192.168.1.1 | 203.0.113.2
//!   host "alba" ----------- router -------------+
//!                                               |  a bridge: the public segment
//!   host "borea" 203.0.113.10 ------------------+
//! ```
//!
//! Everything goes away with the [`Lab`]. It needs root, `ip` and `nft`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Tells the labs of one process apart.
static LABS: AtomicU32 = AtomicU32::new(0);

/// How a router translates the addresses of what goes out. All of them let in only answers, and say nothing to the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// The port stays, whoever is spoken to.
    Preserving,
    /// This port becomes that port, whoever is spoken to.
    Mapped(u16, u16),
    /// Another port for everybody who is spoken to: no hole can be punched.
    Symmetric,
}

impl Nat {
    fn rules(self) -> String {
        let masquerade = match self {
            Self::Preserving => "masquerade".to_owned(),
            Self::Mapped(from, to) => format!(
                "udp sport {from} masquerade to :{to}; add rule ip nat post oifname \"wan\" tcp sport {from} masquerade \
                 to :{to}; add rule ip nat post oifname \"wan\" masquerade"
            ),
            Self::Symmetric => "masquerade fully-random".to_owned(),
        };
        format!(
            "add table ip nat; add chain ip nat post {{ type nat hook postrouting priority 100; }}; \
             add rule ip nat post oifname \"wan\" {masquerade}; add table ip filter; \
             add chain ip filter input {{ type filter hook input priority 0; }}; \
             add chain ip filter forward {{ type filter hook forward priority 0; }}; \
             add rule ip filter input iifname \"wan\" ct state != {{ established, related }} drop; \
             add rule ip filter forward iifname \"wan\" ct state != {{ established, related }} drop"
        )
    }
}

/// A public segment with hosts.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    spaces: Vec<String>,
    routers: u8,
}

impl Lab {
    /// An empty public segment, or why there can be none.
    pub fn new() -> Result<Self, String> {
        if !Path::new("/proc/self/ns/net").exists() {
            return Err("the kernel has no network namespaces".to_owned());
        }
        run("nft", &["--version"], None).map_err(|why| format!("nftables is missing: {why}"))?;
        let count = LABS.fetch_add(1, Ordering::Relaxed);
        let mut lab =
            Self { prefix: format!("sy{}-{count}-", std::process::id()), spaces: Vec::new(), routers: 0 };
        lab.space("net").map_err(|why| format!("network namespaces can't be made: {why}"))?;
        lab.ip("net", "link add name segment type bridge")
            .map_err(|why| format!("no bridge can be made: {why}"))?;
        lab.ip("net", "link set segment up")?;
        // Asked of the kernel before a test relies on it.
        lab.nft("net", &Nat::Symmetric.rules())
            .map_err(|why| format!("the kernel can't translate: {why}"))?;
        lab.nft("net", "flush ruleset")?;
        Ok(lab)
    }

    /// A host on the public segment; answers its namespace.
    pub fn public(&mut self, host: &str, address: &str) -> Result<String, String> {
        self.space(host)?;
        self.plug(host, "eth", address)?;
        Ok(self.name(host))
    }

    /// A host in a network of its own behind a router with `address` on the public segment; answers its namespace.
    pub fn behind(&mut self, host: &str, address: &str, nat: Nat) -> Result<String, String> {
        let router = format!("{host}-r");
        self.routers += 1;
        let inside = format!("192.168.{}", self.routers);
        self.space(host)?;
        self.space(&router)?;
        self.plug(&router, "wan", address)?;
        let name = self.name(host);
        self.ip(&router, &format!("link add name lan type veth peer name eth netns {name}"))?;
        self.ip(&router, &format!("address add {inside}.1/24 dev lan"))?;
        self.ip(&router, "link set lan up")?;
        self.ip(host, &format!("address add {inside}.2/24 dev eth"))?;
        self.ip(host, "link set eth up")?;
        self.ip(host, &format!("route add default via {inside}.1"))?;
        let forward = ["netns", "exec", &self.name(&router), "tee", "/proc/sys/net/ipv4/ip_forward"];
        run("ip", &forward, Some("1"))?;
        self.nft(&router, &nat.rules())?;
        Ok(name)
    }

    /// Bytes that a public host has received and sent on the segment.
    pub fn bytes(&self, host: &str) -> u64 {
        let args = ["-n", &self.name(host), "-s", "-j", "link", "show", "eth"];
        let text = run("ip", &args, None).expect("the interface's counters");
        let counters: Value = serde_json::from_str(&text).expect("JSON of ip");
        let count = |way: &str| counters[0]["stats64"][way]["bytes"].as_u64().expect("a counter");
        count("rx") + count("tx")
    }

    fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    fn space(&mut self, host: &str) -> Result<(), String> {
        let name = self.name(host);
        run("ip", &["netns", "add", &name], None)?;
        self.spaces.push(name);
        self.ip(host, "link set lo up")
    }

    /// Connects a host to the segment by an interface with this name.
    fn plug(&mut self, host: &str, interface: &str, address: &str) -> Result<(), String> {
        let port = format!("p{}", self.spaces.len());
        let name = self.name(host);
        self.ip("net", &format!("link add name {port} type veth peer name {interface} netns {name}"))?;
        self.ip("net", &format!("link set {port} master segment up"))?;
        self.ip(host, &format!("address add {address}/24 dev {interface}"))?;
        self.ip(host, &format!("link set {interface} up"))
    }

    fn ip(&self, host: &str, args: &str) -> Result<(), String> {
        let name = self.name(host);
        let all: Vec<&str> = ["-n", &name].into_iter().chain(args.split(' ')).collect();
        run("ip", &all, None).map(drop)
    }

    fn nft(&self, host: &str, rules: &str) -> Result<(), String> {
        run("ip", &["netns", "exec", &self.name(host), "nft", "-f", "-"], Some(rules)).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.spaces {
            // Interfaces go with their namespace.
            let _ = run("ip", &["netns", "delete", name], None);
        }
    }
}

/// Runs a program of the system; answers what it wrote.
fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<String, String> {
    let told = |why: String| format!("`{program} {}`: {why}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| told(error.to_string()))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(|error| told(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| told(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(told(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
