//! Arbitrary text as a frame of the web-apps' sub-protocol: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| ferry_app::fuzzing::frame(text));
