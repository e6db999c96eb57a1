//! Nodes of several nations for a benchmark: placed on machines of their own, pinned to each other, connected.

use std::time::Duration;

use super::space::{Spaces, address};
use crate::net::Settings;
use crate::wait::within;
use crate::{Daemon, Home, meter};

/// Where a node or a peer of another make listens on its machine.
pub const PORT: u16 = 4801;
/// Many nodes on few cores are connected and know a release by then.
const FRIENDS: Duration = Duration::from_secs(180);

/// Sets the home's node to that machine, connected with `peers`; answers its address with `/p2p/ID`.
pub fn place(home: &mut Home, spaces: &Spaces, index: usize, peers: &[String]) -> String {
    let p2p = format!("/ip4/{}/tcp/{PORT}", address(index));
    home.configure(&Settings { p2p: p2p.clone(), peers: peers.to_vec(), ..Settings::default() });
    home.netns = Some(spaces.name(index).to_owned());
    let identity = crate::hostile::Identity::of(home).expect("the node's key");
    format!("{p2p}/p2p/{}", identity.peer_id())
}

/// Pins every nation at every node.
pub fn pin_all(daemons: &[&Daemon]) {
    for one in daemons {
        for other in daemons.iter().filter(|other| other.home.nation != one.home.nation) {
            one.pin(&other.home);
        }
    }
}

/// Waits until the node has so many peers and knows the release.
pub fn know(daemon: &Daemon, peers: usize, reference: &str) {
    let nation = &daemon.home.nation;
    within(FRIENDS, &format!("{nation} to have {peers} peers"), || {
        let count = daemon.http.get("/v1/peers").as_array().map_or(0, Vec::len);
        (count >= peers).then_some(())
    });
    within(FRIENDS, &format!("{nation} to know {reference}"), || {
        let reply = daemon.http.try_request("GET", &format!("/v1/resolve?ref={reference}"), None).ok()?;
        (reply.status == 200).then_some(())
    });
}

/// CPU seconds of all these processes so far.
pub fn cpu(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| meter::cpu_seconds(*pid)).sum()
}
