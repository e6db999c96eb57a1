#![no_main]
#![allow(dead_code, unused_imports)]

// The sources alone: the crate would bring the whole network along.
#[path = "../../node/src"]
mod source {
    pub mod wire;
}
use source::wire;

#[path = "../node.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::wire(data));
