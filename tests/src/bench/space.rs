//! Machines on one switch, each with an uplink of its own: network namespaces on a bridge, with a token bucket (`tbf`) at
//! each one's way out. Downlinks are as fast as the machine.

use std::path::Path;
use std::process::Command;

use super::guard;

/// What leaves at once after a pause, in bytes: room for one segmented packet of 64 KiB and little beside the seconds measured.
const BURST: u64 = 128 << 10;
/// Longest time that a packet waits before the link: a usual router's buffer.
const LATENCY: &str = "50ms";
/// The machines' addresses are `10.77.0.1` and on.
const SUBNET: &str = "10.77.0";

/// Network namespaces on one bridge. The namespaces go with it.
#[derive(Debug)]
pub struct Spaces {
    prefix: String,
    names: Vec<String>,
}

/// What an uplink has sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Bytes as the interface counts them: segments that the kernel cuts late are counted with one header.
    pub interface: u64,
    /// Bytes as the link's shaper counts them: every segment with its headers.
    pub link: u64,
}

impl Spaces {
    /// `count` machines with an uplink of `bits` a second each.
    ///
    /// # Errors
    /// What is missing, for people: root, iproute2, or the kernel's `tbf`.
    pub fn new(folder: &Path, label: &str, count: usize, bits: u64) -> Result<Self, String> {
        let prefix = format!("{}-{label}", guard::run_name(folder));
        let mut spaces = Self { names: (0..count).map(|i| format!("{prefix}-{i}")).collect(), prefix };
        spaces.build(bits)?;
        Ok(spaces)
    }

    fn build(&mut self, bits: u64) -> Result<(), String> {
        let switch = format!("{}-switch", self.prefix);
        self.names.push(switch.clone());
        for name in &self.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        self.names.pop();
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        for (index, name) in self.names.iter().enumerate() {
            let port = format!("port{index}");
            let address = format!("{}/24", address(index));
            ip(&[
                "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", &port, "netns", &switch,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", name, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
            let (rate, burst) = (format!("{bits}bit"), BURST.to_string());
            let shape = ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", &rate, "burst", &burst];
            call("tc", &[&["-n", name][..], &shape, &["latency", LATENCY]].concat())?;
        }
        Ok(())
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The namespace's name.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// A command that runs on that machine, in `folder`.
    pub fn command(&self, index: usize, program: &str, folder: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(index), program]).current_dir(folder);
        command
    }

    /// What the machine's uplink has sent so far.
    pub fn sent(&self, index: usize) -> Sent {
        let name = self.name(index);
        let read = |program, args: &[&str]| -> serde_json::Value {
            let text = call(program, args).unwrap_or_else(|error| panic!("{error}"));
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{program} {args:?}: {error}: {text}"))
        };
        let links = read("ip", &["-n", name, "-s", "-j", "link", "show", "dev", "eth0"]);
        let shapers = read("tc", &["-n", name, "-s", "-j", "qdisc", "show", "dev", "eth0"]);
        let number =
            |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("no count: {value}"));
        Sent { interface: number(&links[0]["stats64"]["tx"]["bytes"]), link: number(&shapers[0]["bytes"]) }
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        // What is left after a failed start or a kill, the guard removes.
        for name in self.names.iter().cloned().chain([format!("{}-switch", self.prefix)]) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The address of that machine.
pub fn address(index: usize) -> String {
    format!("{SUBNET}.{}", index + 1)
}

fn ip(args: &[&str]) -> Result<String, String> {
    call("ip", args)
}

fn call(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("{program}: {error}; install iproute2"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!(
        "`{program} {}`: {said} (network namespaces need root, and the kernel's tbf)",
        args.join(" ")
    ))
}
