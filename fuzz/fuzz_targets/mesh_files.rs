//! The three files of a mesh: nothing panics, and what is read and written again is the same.
#![no_main]

use std::path::Path;

use cloverleaf_mesh::files::{hosts, mappings, settings};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file = "f".into();
    let (read, _) = mappings::parse(&file, text);
    let item = |m: &mappings::Mapping| {
        format!("{}:{}:{}:{}\n", m.cluster_port, m.host_port, m.connections_max, m.wants_header)
    };
    let written: String = read.iter().map(item).collect();
    let (again, found) = mappings::parse(&file, &written);
    assert_eq!(again, read);
    assert!(!found.has_errors());
    let (read, _) = hosts::parse(&file, text);
    let written: String = read.iter().map(|host| format!("{host}\n")).collect();
    assert_eq!(hosts::parse(&file, &written).0, read);
    let _ = settings::parse(&file, Path::new("/"), text);
});
