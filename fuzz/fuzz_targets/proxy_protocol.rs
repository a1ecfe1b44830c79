//! PROXY protocol headers: what is read is the same however much follows, and every beginning of it is partial.
#![no_main]

use cloverleaf_net::proxy_protocol::{Addresses, Read, Version, encode_v1, encode_v2, read};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(Read::Header(header, length)) = read(data) else { return };
    for cut in 0..length {
        assert_eq!(read(&data[..cut]), Ok(Read::Partial), "cut at {cut}");
    }
    assert_eq!(read(&data[..length]), Ok(Read::Header(header, length)));
    let mut again = Vec::new();
    let tlvs: Vec<_> = header.tlvs.filter(|(kind, _)| *kind != 3).collect();
    match (header.version, header.addresses) {
        (Version::V1, Addresses::Inet { source, destination }) => {
            encode_v1(&mut again, source, destination);
        }
        (Version::V1, _) => return,
        (Version::V2, addresses) => encode_v2(&mut again, addresses, &tlvs).unwrap(),
    }
    let Ok(Read::Header(same, _)) = read(&again) else { panic!("{again:?}") };
    // Mapped addresses are written as what they are mapped from.
    let canonical = |addresses| match addresses {
        Addresses::Inet { source, destination } => Some(
            [source, destination].map(|a: std::net::SocketAddr| (a.ip().to_canonical(), a.port())),
        ),
        _ => None,
    };
    assert_eq!(canonical(same.addresses), canonical(header.addresses));
});
