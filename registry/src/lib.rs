//! What is true: content, statements, trust, policy and the store. No network, no HTTP.
//!
//! ```text
//! digest <- statement <- envelope <- trust <- policy <- store <- {publish, admit} <- node
//! ```
//!
//! What is left of `store` in that line touches no clock, no random numbers and no I/O (key files apart). Beside the line, `machine`
//! reads what the kernel says of memory.

pub mod admitted;
pub mod attachment;
pub mod chunk;
pub mod codec;
pub mod conformance;
pub mod digest;
pub mod envelope;
pub mod format;
pub mod key;
pub mod lease;
pub mod log;
pub mod machine;
pub mod mapped;
pub mod oms;
pub mod path;
pub mod policy;
pub mod receipt;
pub mod reference;
pub mod serving;
pub mod statement;
pub mod timestamp;
pub mod trust;

#[cfg(feature = "store")]
pub mod admit;
#[cfg(feature = "store")]
pub mod bundle;
#[cfg(feature = "store")]
pub mod checkout;
#[cfg(feature = "store")]
pub mod publish;
#[cfg(feature = "store")]
pub mod releasable;
#[cfg(feature = "store")]
pub mod store;

pub use admitted::Admitted;
pub use digest::{Digest, Sha256};
pub use envelope::{Envelope, Signed, Verified};
pub use reference::{ChannelName, Model, Name, Nation, Reference, Version};
pub use timestamp::Timestamp;

/// Foreign text as an error message may show it: at most 80 characters, control characters made visible.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}
