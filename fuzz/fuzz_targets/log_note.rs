#![no_main]

#[path = "../registry.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::log_note(data));
