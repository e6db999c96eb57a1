//! The node's orders, one JSON object a line, obeyed by a thread of its own.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use registry::Digest;
use registry::serving::{Access, MAX_LINE, Order, Proving, StopCode};
use tokio::sync::{mpsc, watch};

use super::launch::Input;
use crate::gate::growing::Arrivals;
use crate::halt::{Cause, Halt};
use crate::lease::Leash;
use crate::receipts::Receipts;
use crate::server::Draining;

/// Where orders go.
pub(super) struct Desk {
    pub(super) halt: Halt,
    pub(super) leash: Leash,
    pub(super) access: watch::Sender<Access>,
    pub(super) prove: mpsc::Sender<Proving>,
    pub(super) receipts: Receipts,
    pub(super) arrivals: Arrivals,
    /// Whether it may answer.
    pub(super) answer: watch::Sender<bool>,
    pub(super) drain: mpsc::Sender<Draining>,
    /// What ends each adapter's requests, by its release.
    pub(super) adapters: Vec<(Digest, Halt)>,
}

/// Starts the thread that obeys.
pub(super) fn obey_from_now_on(mut input: Input, desk: Desk) -> io::Result<()> {
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || obey(&mut input, &desk)).map(drop)
}

/// Obeys orders until the input ends, which means that the node is gone.
pub(super) fn obey(input: &mut impl BufRead, desk: &Desk) {
    let Desk { halt, leash, access, prove, receipts, arrivals, answer, drain, adapters } = desk;
    loop {
        let line = match read_line(input) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the node's orders can't be read");
                break;
            }
        };
        match serde_json::from_slice(&line) {
            Ok(Order::Stop { code, reason }) => halt.set(Cause { code, reason }),
            Ok(Order::Lease(end)) => leash.renew(end, halt),
            Ok(Order::Access(now)) => drop(access.send_replace(now)),
            // One at a time; the node asks again for one that was left out.
            Ok(Order::Prove(proving)) => drop(prove.try_send(proving)),
            Ok(Order::Receipt { id, receipt }) => receipts.answer(id, receipt),
            Ok(Order::Here { file, runs }) => {
                if !arrivals.landed(file, runs) {
                    let reason = "the node told of more chunks than any release has".to_owned();
                    halt.set(Cause { code: StopCode::Requested, reason });
                }
            }
            Ok(Order::Withdraw { release, code, reason }) => {
                let adapter = adapters.iter().find(|(adapter, _)| *adapter == release);
                // Where none is known by that name, it may be any: nothing is served any more.
                adapter.map_or(halt, |(_, halt)| halt).set(Cause { code, reason });
            }
            Ok(Order::Answer) => drop(answer.send_replace(true)),
            // The first counts.
            Ok(Order::Drain { reason, limit_ms }) => {
                drop(drain.try_send(Draining { reason, limit: Duration::from_millis(limit_ms) }));
            }
            // An order that can't be understood may have been "stop".
            Err(error) => halt.set(Cause {
                code: StopCode::Requested,
                reason: format!("the node gave an order that this worker does not know ({error})"),
            }),
        }
    }
    halt.set(Cause { code: StopCode::Requested, reason: "the node is gone".to_owned() });
}

/// One line without its end; `None` at the end of the input.
pub(super) fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        // The last line may lack its end, but then it is shorter than the limit.
        Some(last) if line.len() + 1 < MAX_LINE => {
            line.push(last);
            Ok(Some(line))
        }
        Some(_) => Err(io::Error::other(format!("a line of more than {MAX_LINE} bytes"))),
    }
}
