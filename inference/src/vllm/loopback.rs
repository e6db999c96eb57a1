//! Switches the loopback interface of a new network namespace on: the only link that there is in it.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `NLMSG_ERROR`, `IFF_UP` (rtnetlink(7)).
const NEW_LINK: u16 = 16;
const REQUEST_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;
const UP: u32 = 1;
/// The number of the loopback interface, which is the first of each namespace.
const LOOPBACK: i32 = 1;
/// Bytes of a message's head, and of the question.
const HEAD: usize = 16;
const LENGTH: usize = HEAD + 16;

/// Switches it on.
pub(crate) fn up() -> io::Result<()> {
    // Of its protocols the first, number 0: NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &question(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    understood(answer.get(..count).unwrap_or_default())
}

fn question() -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = message.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &(LENGTH as u32).to_ne_bytes());
    put(4, &NEW_LINK.to_ne_bytes());
    put(6, &REQUEST_ACK.to_ne_bytes());
    put(HEAD + 4, &LOOPBACK.to_ne_bytes());
    // The flag, and which flags are meant.
    put(HEAD + 8, &UP.to_ne_bytes());
    put(HEAD + 12, &UP.to_ne_bytes());
    message
}

/// The kernel answers with an error number, 0 for none, negative otherwise.
fn understood(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let number = answer.get(HEAD..HEAD + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, number) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(number)) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        _ => Err(io::Error::other("the kernel's answer about the loopback interface is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answers_are_understood() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = [0; 36];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&number.to_ne_bytes());
            understood(&bytes)
        };
        assert!(answer(ERROR, 0).is_ok());
        assert_eq!(answer(ERROR, -1).map_err(|error| error.raw_os_error()), Err(Some(1)));
        assert!(answer(NEW_LINK, 0).is_err());
        assert!(understood(&[]).is_err());
        assert_eq!(question().len(), 32);
    }
}
