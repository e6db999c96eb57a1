//! How a transfer is shown to people: one bar for all of it, a row for each peer, and what did not have to travel.

use std::collections::BTreeSet;
use std::time::Duration;

use node::api::types::{PeerShare, PeerState, TransferInfo, TransferState};

use crate::human;
use crate::output::{BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell};
use crate::progress::Bar;

/// Time left beyond which no figure is worth showing.
const LONGEST_LEFT: Duration = Duration::from_secs(100 * 3600);

/// What is being done, as one bar shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Finding,
    Fetching,
    /// Every chunk is here; the files are hashed once more as wholes.
    Verifying,
}

fn phase(info: &TransferInfo) -> Phase {
    match info.state {
        TransferState::Fetching if info.bytes_total > 0 && info.bytes_done >= info.bytes_total => {
            Phase::Verifying
        }
        TransferState::Fetching => Phase::Fetching,
        TransferState::Verifying => Phase::Verifying,
        _ => Phase::Finding,
    }
}

/// Shows on `bar` how far a transfer is.
pub(crate) fn show(bar: &Bar, info: &TransferInfo) {
    match phase(info) {
        Phase::Finding => bar.message(&format!("finding {}", info.reference)),
        Phase::Fetching => {
            let mut beside = String::new();
            if info.rate > 0 {
                beside = format!("{}/s", human::bytes(info.rate));
                if let Some(left) = left(info) {
                    beside = format!("{beside}, {} left", human::duration(left));
                }
            }
            bar.overall("fetching", info.bytes_done, info.bytes_total, &beside, &origin(info));
        }
        Phase::Verifying if info.bytes_verified > 0 => {
            bar.overall(
                "verifying",
                info.bytes_verified,
                info.bytes_total,
                "",
                "each file once more as a whole",
            );
        }
        Phase::Verifying => bar.message("verifying each file once more as a whole"),
    }
}

/// How long the rest takes at the rate of now; `None` while that says little.
fn left(info: &TransferInfo) -> Option<Duration> {
    let seconds = info.bytes_total.saturating_sub(info.bytes_done).checked_div(info.rate)?;
    // Tenths of a second would only flicker.
    Some(Duration::from_secs(seconds.max(1))).filter(|left| *left < LONGEST_LEFT)
}

/// `from 3 peers of alba and borea; 12.0 MiB from files here; 8.0 MiB saved by the codec`.
fn origin(info: &TransferInfo) -> String {
    let bringing: Vec<&PeerShare> = info.peers.iter().filter(|peer| peer.bytes > 0).collect();
    let mut parts = Vec::new();
    if !bringing.is_empty() {
        let nations: BTreeSet<&str> = bringing.iter().map(|peer| peer.nation.as_str()).collect();
        let nations: Vec<&str> = nations.into_iter().collect();
        parts.push(format!(
            "from {} of {}",
            human::count(bringing.len() as u64, "peer"),
            human::list(&nations)
        ));
    }
    if info.bytes_local > 0 {
        parts.push(format!("{} from files here", human::bytes(info.bytes_local)));
    }
    let saved = saved(info);
    if saved > 0 {
        parts.push(format!("{} saved by the codec", human::bytes(saved)));
    }
    parts.join("; ")
}

/// Bytes that did not travel because chunks came encoded.
fn saved(info: &TransferInfo) -> u64 {
    info.peers.iter().map(peer_saved).sum()
}

/// As [`saved`], of one peer. One that reports no bytes on the wire says nothing about it.
fn peer_saved(peer: &PeerShare) -> u64 {
    if peer.bytes_wire == 0 { 0 } else { peer.bytes.saturating_sub(peer.bytes_wire) }
}

/// `part` of `whole` in whole percent.
fn percent(part: u64, whole: u64) -> u64 {
    let (part, whole) = (u128::from(part), u128::from(whole));
    ((part * 100 + whole / 2).checked_div(whole).unwrap_or(0)) as u64
}

/// What of a finished transfer did not come over the network, a sentence; empty when all of it did.
pub(crate) fn spared(info: &TransferInfo) -> String {
    let mut parts = Vec::new();
    if info.bytes_resumed > 0 {
        parts.push(format!(
            "{} of {} were here before",
            human::bytes(info.bytes_resumed),
            human::bytes(info.bytes_total)
        ));
    }
    if info.bytes_local > 0 {
        parts.push(format!("{} were taken from other files here", human::bytes(info.bytes_local)));
    }
    let saved = saved(info);
    if saved > 0 {
        let brought: u64 = info.peers.iter().map(|peer| peer.bytes).sum();
        parts.push(format!("the codec saved {} ({} %)", human::bytes(saved), percent(saved, brought)));
    }
    parts.join("; ")
}

/// Bytes that peers brought.
pub(crate) fn fetched(info: &TransferInfo) -> u64 {
    info.bytes_done.saturating_sub(info.bytes_resumed).saturating_sub(info.bytes_local)
}

/// Who brought what; nothing without peers.
pub(crate) fn shares(info: &TransferInfo) -> String {
    let over = info.state.is_over();
    let mut peers: Vec<&PeerShare> =
        info.peers.iter().filter(|peer| !over || peer.bytes > 0 || peer.bad_chunks > 0).collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.bytes));
    let brought: u64 = peers.iter().map(|peer| peer.bytes).sum();
    let encoded = peers.iter().any(|peer| peer_saved(peer) > 0);
    let mut head = vec!["from", "peer"];
    if !over {
        head.extend(["state", "rate"]);
    }
    head.extend(["bytes", "share", "chunks"]);
    if encoded {
        head.push("saved");
    }
    head.push("");
    let mut table = Table::new(&head);
    for peer in peers {
        let mut row = vec![cell(NAME, peer.nation.as_str()), cell(DIM, human::peer(&peer.peer_id))];
        if !over {
            let (word, style) = standing(peer);
            row.push(cell(style, word));
            let rate = if peer.rate > 0 { format!("{}/s", human::bytes(peer.rate)) } else { String::new() };
            row.push(Cell::from(rate).right());
        }
        row.push(Cell::from(human::bytes(peer.bytes)).right());
        row.push(Cell::from(format!("{} %", percent(peer.bytes, brought))).right());
        row.push(Cell::from(peer.chunks.to_string()).right());
        if encoded {
            row.push(Cell::from(format!("{} %", percent(peer_saved(peer), peer.bytes))).right());
        }
        row.push(match (peer.bad_chunks, peer.banned) {
            (0, false) => cell(DIM, ""),
            (0, true) => cell(BAD, "✗ banned"),
            (bad, true) => cell(BAD, format!("✗ {} with wrong bytes: banned", human::count(bad, "chunk"))),
            (bad, false) => cell(BAD, format!("✗ {} with wrong bytes", human::count(bad, "chunk"))),
        });
        table.row(row);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

fn standing(peer: &PeerShare) -> (&'static str, anstyle::Style) {
    match peer.state {
        _ if peer.banned => ("banned", BAD),
        PeerState::Banned => ("banned", BAD),
        PeerState::Active => ("sending", GOOD),
        PeerState::Idle => ("idle", DIM),
        PeerState::Choked => ("too slow", WARN),
        PeerState::Gone => ("gone", DIM),
    }
}

/// A state's word and colour.
pub(crate) fn state(info: &TransferInfo) -> (&'static str, anstyle::Style) {
    match info.state {
        TransferState::Done => ("done", GOOD),
        TransferState::Failed => ("failed", BAD),
        TransferState::Cancelled => ("cancelled", DIM),
        _ => match phase(info) {
            Phase::Finding => ("finding", WARN),
            Phase::Fetching => ("fetching", WARN),
            Phase::Verifying => ("verifying", WARN),
        },
    }
}

/// `text`, unless the size is not known yet.
fn known(info: &TransferInfo, text: String) -> String {
    if info.bytes_total == 0 { String::new() } else { text }
}

/// What it fetches, as people name it.
pub(crate) fn name(info: &TransferInfo) -> String {
    match (&info.model, &info.version) {
        (Some(model), Some(version)) => format!("{model}@{version}"),
        _ => info.reference.clone(),
    }
}

/// One row for each of `transfers`.
pub(crate) fn table(transfers: &[TransferInfo]) -> Table {
    let now = registry::Timestamp::now();
    let mut table =
        Table::new(&["id", "release", "state", "done", "of", "", "rate", "from", "saved", "started"]);
    for info in transfers {
        let (word, style) = state(info);
        let mut from: Vec<&str> =
            info.peers.iter().filter(|peer| peer.bytes > 0).map(|peer| peer.nation.as_str()).collect();
        from.sort_unstable();
        from.dedup();
        let rate = if phase(info) == Phase::Fetching {
            format!("{}/s", human::bytes(info.rate))
        } else {
            String::new()
        };
        let spared = info.bytes_resumed + info.bytes_local + saved(info);
        table.row([
            Cell::from(info.id.to_string()).right(),
            cell(NAME, name(info)),
            cell(style, word),
            Cell::from(known(info, human::bytes(info.bytes_done))).right(),
            Cell::from(known(info, human::bytes(info.bytes_total))).right(),
            Cell::from(known(info, format!("{} %", percent(info.bytes_done, info.bytes_total)))).right(),
            Cell::from(rate).right(),
            from.join(", ").into(),
            Cell::from(if spared > 0 { human::bytes(spared) } else { String::new() }).right(),
            cell(DIM, human::relative(info.started, now)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn transfer() -> TransferInfo {
        serde_json::from_value(serde_json::json!({
            "id": 1, "reference": "alba/m", "release": null, "model": null, "version": null,
            "state": "fetching", "bytes_total": 4 << 20, "bytes_done": 3 << 20, "bytes_resumed": 0,
            "bytes_local": 1 << 20, "bytes_wire": 1 << 20, "rate": 512 << 10,
            "peers": [
                { "peer_id": "12D3KooWaaaaaaaaaaaa", "nation": "borea", "state": "active", "bytes": 1 << 20,
                  "bytes_wire": 700 << 10, "rate": 256 << 10, "chunks": 4, "bad_chunks": 0, "banned": false },
                { "peer_id": "12D3KooWbbbbbbbbbbbb", "nation": "alba", "bytes": 1 << 20, "chunks": 4,
                  "bad_chunks": 1, "banned": true },
            ],
            "started": "2026-11-23T12:00:00Z", "finished": null, "error": null,
        }))
        .unwrap()
    }

    #[test]
    fn the_bar_says_how_long_from_whom_and_what_was_spared() {
        let info = transfer();
        assert_eq!(phase(&info), Phase::Fetching);
        assert_eq!(left(&info), Some(Duration::from_secs(2)));
        assert_eq!(
            origin(&info),
            "from 2 peers of alba and borea; 1.00 MiB from files here; 324.0 KiB saved by the codec"
        );
        assert_eq!(fetched(&info), 2 << 20);
        let stalled = TransferInfo { rate: 0, ..transfer() };
        assert_eq!(left(&stalled), None);
    }

    #[test]
    fn the_last_byte_is_followed_by_a_phase_of_its_own() {
        let info = TransferInfo { bytes_done: 4 << 20, ..transfer() };
        assert_eq!((phase(&info), state(&info).0), (Phase::Verifying, "verifying"));
    }

    #[test]
    fn every_peer_has_a_row_while_it_runs() {
        let plain = anstream::adapter::strip_str(&shares(&transfer())).to_string();
        assert_eq!(
            plain,
            "from   peer       state           rate     bytes  share  chunks  saved  \n\
             borea  …aaaaaaaa  sending  256.0 KiB/s  1.00 MiB   50 %       4   32 %  \n\
             alba   …bbbbbbbb  banned                1.00 MiB   50 %       4    0 %  ✗ 1 chunk with wrong bytes: banned\n"
        );
        let idle = TransferInfo { peers: Vec::new(), ..transfer() };
        assert_eq!(shares(&idle), "");
    }
}
