//! Reading files: paths in them, and what cannot be read.

use std::fs;
use std::path::Path;

use cloverleaf_config::{Overrides, load};

fn diagnostics(path: &Path) -> String {
    let (config, diagnostics) = load(path, &Overrides::default());
    assert!(config.is_none());
    diagnostics.to_string()
}

#[test]
fn relative_paths_begin_at_the_files_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cloverleaf.yaml");
    let text = "\
listeners:
  - name: web
    address: 127.0.0.1:0
    tls: {certificates: [{certificate: tls/cert.pem, key: /abs/key.pem}]}
upstreams:
  - {name: a, host: h, scheme: https, tls: {authorities: ca.pem}}
";
    fs::write(&file, text).unwrap();
    let (config, diagnostics) = load(&file, &Overrides::default());
    assert_eq!(diagnostics.to_string(), "");
    let mut files = config.unwrap().files;
    files.sort();
    let mut expected = vec![
        Path::new("/abs/key.pem").to_path_buf(),
        directory.path().join("ca.pem"),
        directory.path().join("tls/cert.pem"),
    ];
    expected.sort();
    assert_eq!(files, expected);
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml");
    let found = diagnostics(&missing);
    assert!(
        found.starts_with(&format!("{}: error: cannot be read: ", missing.display())),
        "{found}"
    );
    assert!(diagnostics(directory.path()).contains("cannot be read: "));
    let binary = directory.path().join("binary.yaml");
    fs::write(&binary, b"rules: []\nx: \xff\xfe").unwrap();
    let found = diagnostics(&binary);
    assert!(found.ends_with("binary.yaml:2:4: error: not UTF-8 text"), "{found}");
    let large = directory.path().join("large.yaml");
    fs::File::create(&large).unwrap().set_len(65 * 1024 * 1024).unwrap();
    let found = diagnostics(&large);
    assert!(found.contains("error: the file has more than 67108864 bytes"), "{found}");
}
