//! Requests and answers of peers: what is read is the same however much follows, and no beginning of it is anything.
#![no_main]

use cloverleaf_mesh::peer::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, read_reply, read_request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((port, length))) = read_request(data) {
        assert!(port > 0 && length <= REQUEST_BYTES_MAX);
        assert!((0..length).all(|cut| read_request(&data[..cut]) == Ok(None)));
        assert_eq!(read_request(&data[..length]), Ok(Some((port, length))));
    } else if data.len() >= REQUEST_BYTES_MAX {
        assert!(read_request(data).is_err());
    }
    if let Ok(Some((reply, length))) = read_reply(data) {
        assert_eq!(reply.encode(), &data[..length]);
    } else if data.len() >= REPLY_BYTES_MAX {
        assert!(read_reply(data).is_err());
    }
});
