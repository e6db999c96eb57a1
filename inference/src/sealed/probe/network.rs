//! Ways to a network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::super::sys::{Arg, Page, Probe, attempt, close};
use super::Found;

/// A refusal comes at once; a connection would take longer than this only if it is being made.
const PATIENCE: Duration = Duration::from_millis(200);
/// Socket families, by their numbers.
const FAMILIES: [(&str, u64, u64); 9] = [
    ("AF_UNIX", 1, STREAM),
    ("AF_INET", 2, STREAM),
    ("AF_INET6", 10, STREAM),
    ("AF_INET, raw", 2, RAW),
    ("AF_NETLINK", 16, RAW),
    ("AF_PACKET", 17, RAW),
    ("AF_ALG", 38, SEQPACKET),
    ("AF_VSOCK", 40, STREAM),
    ("AF_XDP", 44, RAW),
];
/// `AF_INET`.
const FAMILY_INET: u64 = 2;
/// Bytes of a `sockaddr_in`.
const ADDRESS_LENGTH: u64 = 16;
const STREAM: u64 = 1;
const RAW: u64 = 3;
const SEQPACKET: u64 = 5;

pub(super) fn attempts(found: &mut Found, elsewhere: &[SocketAddr]) {
    for address in elsewhere {
        found.note(format!("connect to {address}"), connect(*address));
    }
    // One that listens on this very host, so that nothing but a wall is in the way.
    let near = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let port = near.as_ref().ok().and_then(|near| near.local_addr().ok()).map_or(1, |address| address.port());
    found.note("listen on a port of its own", near.as_ref().map(drop).map_err(again));
    found.note("connect to a loopback address", connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    found.note(
        "send a UDP datagram",
        UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", "127.0.0.1:9")),
    );
    found.note("look a name up (DNS)", ("localhost", 80).to_socket_addrs());
    found.note("talk to the host's D-Bus", UnixStream::connect("/run/dbus/system_bus_socket"));
    for (name, family, kind) in FAMILIES {
        let mut args = [family, kind, 0].map(Arg::Number);
        found.note(format!("socket({name})"), attempt(Probe::SOCKET, &mut args).map(close));
    }
    let mut pair = [0; 4096];
    let mut args = [Arg::Number(1), Arg::Number(STREAM), Arg::Number(0), Arg::Page(&mut pair)];
    found.note("socketpair", attempt(Probe::SOCKETPAIR, &mut args));
    for (what, call, more) in [
        ("bind a socket that it has", Probe::BIND, Vec::new()),
        ("listen on a socket that it has", Probe::LISTEN, vec![8]),
    ] {
        let has = a_socket();
        let mut at = address(0);
        let mut args = vec![Arg::Number(has)];
        if more.is_empty() {
            args.extend([Arg::Page(&mut at), Arg::Number(ADDRESS_LENGTH)]);
        }
        args.extend(more.into_iter().map(Arg::Number));
        found.note(what, attempt(call, &mut args));
        let_go(has);
    }
    found.note("connect a socket that it has", connect_anew(port));
    found.note("connect a socket by sending (TCP Fast Open)", fast_open(port));
}

fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn connect(address: SocketAddr) -> io::Result<()> {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        // It is on its way; only an answer is missing.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        other => other.map(drop),
    }
}

/// `sockaddr_in` of a port on this host.
fn address(port: u16) -> Page {
    let mut page = [0; 4096];
    page[..2].copy_from_slice(&(FAMILY_INET as u16).to_ne_bytes());
    page[2..4].copy_from_slice(&port.to_be_bytes());
    page[4..8].copy_from_slice(&[127, 0, 0, 1]);
    page
}

/// A new socket, where one can be made, else the one that every worker has: its standard input.
fn a_socket() -> u64 {
    let mut args = [FAMILY_INET, STREAM, 0].map(Arg::Number);
    attempt(Probe::SOCKET, &mut args).map_or(0, |made| made as u64)
}

fn let_go(socket: u64) {
    if socket > 2 {
        close(socket as usize);
    }
}

fn connect_anew(port: u16) -> io::Result<usize> {
    let (has, mut to) = (a_socket(), address(port));
    let mut args = [Arg::Number(has), Arg::Page(&mut to), Arg::Number(ADDRESS_LENGTH)];
    let result = attempt(Probe::CONNECT, &mut args);
    let_go(has);
    result
}

fn fast_open(port: u16) -> io::Result<usize> {
    const MSG_FASTOPEN: u64 = 0x2000_0000;
    const MSG_NOSIGNAL: u64 = 0x4000;
    let (has, mut to, mut word) = (a_socket(), address(port), [0; 4096]);
    let mut args = [
        Arg::Number(has),
        Arg::Page(&mut word),
        Arg::Number(1),
        Arg::Number(MSG_FASTOPEN | MSG_NOSIGNAL),
        Arg::Page(&mut to),
        Arg::Number(ADDRESS_LENGTH),
    ];
    let result = attempt(Probe::SENDTO, &mut args);
    let_go(has);
    result
}
