//! A client and a server that handshake over a pipe.

use std::time::Duration;

use cloverleaf_tls::{ClientStream, ClientTls, ConnectError, Refused, ServerStream, Termination};
use model::{
    Certificate, Diagnostics, HttpVersions, PemSource, Place, TlsTermination, TlsVersion,
    UpstreamTls, Verification,
};
use testkit::{Authority, Issued};
use tokio::io::DuplexStream;

/// No handshake here takes longer.
const WITHIN: Duration = Duration::from_secs(20);

/// Bytes in the pipe: less than a record, so that everything comes in pieces.
const PIPE_BYTES: usize = 1000;

pub(crate) fn certificate(issued: &Issued) -> Certificate {
    Certificate {
        chain: PemSource::File(issued.chain_file.clone()),
        key: PemSource::File(issued.key_file.clone()),
        hosts: Vec::new(),
        client_verification: None,
        place: Place::at("a.yaml".into(), 1, 1),
    }
}

pub(crate) fn termination(issued: &[&Issued], min_version: TlsVersion) -> TlsTermination {
    let certificates = issued.iter().map(|issued| certificate(issued)).collect();
    TlsTermination { certificates, first_is_default: true, min_version }
}

/// With every version of HTTP.
pub(crate) fn load(described: &TlsTermination) -> Result<Termination, Diagnostics> {
    Termination::load(described, HttpVersions::All)
}

pub(crate) fn server(issued: &[&Issued]) -> Termination {
    load(&termination(issued, TlsVersion::V1_2)).unwrap()
}

pub(crate) fn place() -> Place {
    Place::whole("a test")
}

/// Trusts one authority.
pub(crate) fn client(authority: &Authority) -> ClientTls {
    let verification = Verification::Authorities(PemSource::File(authority.file()));
    ClientTls::load(&UpstreamTls { verification, server_name: None }, &place()).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) type Ends = (
    Result<ServerStream<DuplexStream>, Refused<DuplexStream>>,
    Result<ClientStream<DuplexStream>, ConnectError>,
);

/// Handshakes over a pipe; what each side made of it.
pub(crate) async fn handshake(server: &Termination, client: &ClientTls, host: &str) -> Ends {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let both = async { tokio::join!(server.accept(near), client.connect(far, host)) };
    tokio::time::timeout(WITHIN, both).await.unwrap()
}

/// Handshakes over a pipe, which has to work.
pub(crate) async fn connected(
    server: &Termination,
    client: &ClientTls,
    host: &str,
) -> (ServerStream<DuplexStream>, ClientStream<DuplexStream>) {
    let (server, client) = handshake(server, client, host).await;
    (server.unwrap(), client.unwrap())
}
