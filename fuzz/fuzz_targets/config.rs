//! The text of a configuration file: no panic, and a dump that reads back.
#![no_main]

#[path = "../../crates/config/tests/property/mod.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|text: &str| {
    property::holds(text);
});
