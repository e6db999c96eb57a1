//! Why something could not be fetched.

use std::io;

/// Why something could not be fetched from an HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No address that can be asked.
    #[error("`{url}` can't be asked: {why}")]
    Url {
        /// The address.
        url: String,
        /// Why not.
        why: &'static str,
    },
    /// The system's certificate authorities can't be read.
    #[error(
        "the system's certificate authorities can't be read: {0}; install them, or name a file in SSL_CERT_FILE"
    )]
    Roots(io::Error),
    /// No connection, or a broken one.
    #[error("{url}: {why}; check the address and the network")]
    Connect {
        /// What was asked for.
        url: String,
        /// What the system said.
        why: String,
    },
    /// Nothing came for too long.
    #[error("{url}: nothing came for {seconds} s; run the command again, it goes on where it stopped")]
    Stalled {
        /// What was asked for.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// Sent on too often, or to where nobody should be sent.
    #[error("{url} sends on to elsewhere, {why}; ask whoever runs it")]
    Redirect {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another answer than the one wanted.
    #[error("{url} answers {status}{words}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the server said, or what it means.
        words: String,
    },
    /// More than may be.
    #[error("{url} sends more than {limit} bytes; it is not what was asked for")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// Not what was expected.
    #[error("{url} answers with something else: {why}; is it an endpoint of that kind?")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A token that would be seen by others.
    #[error(
        "the token is not sent to {host} over plain HTTP, where anybody on the way reads it; use https, or leave the token out"
    )]
    Exposed {
        /// The host.
        host: String,
    },
    /// A token that can't be sent.
    #[error("the token in the file has characters that no token has; write it alone on one line")]
    Token,
}

impl FetchError {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
