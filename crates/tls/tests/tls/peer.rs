//! The other end of a connection by rustls' own, buffered connections, and one that can send whatever it likes.

use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::unbuffered::ConnectionState;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ConnectionTrafficSecrets, ContentType,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SideData, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use testkit::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn client_config(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

fn name() -> ServerName<'static> {
    ServerName::try_from("a.test").unwrap()
}

pub(crate) fn client_1_2(authority: &Authority) -> ClientConnection {
    ClientConnection::new(Arc::new(client_config(authority, &TLS12)), name()).unwrap()
}

pub(crate) fn client_1_3(authority: &Authority) -> ClientConnection {
    ClientConnection::new(Arc::new(client_config(authority, &TLS13)), name()).unwrap()
}

pub(crate) fn server_1_2(issued: &Issued) -> ServerConnection {
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&TLS12]).unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.enable_secret_extraction = true;
    ServerConnection::new(Arc::new(config)).unwrap()
}

/// A connection of rustls over a pipe.
pub(crate) struct Peer<C> {
    pub(crate) tls: C,
    pub(crate) io: DuplexStream,
}

impl<C, D> Peer<C>
where
    C: DerefMut + Deref<Target = ConnectionCommon<D>>,
    D: SideData,
{
    pub(crate) fn new(tls: C, io: DuplexStream) -> Self {
        Self { tls, io }
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        self.io.write_all(&sealed).await.unwrap();
    }

    /// Takes in what comes next.
    ///
    /// # Errors
    /// As rustls says, an alert among them.
    pub(crate) async fn receive(&mut self) -> Result<(), rustls::Error> {
        let mut place = [0; 4096];
        let count = self.io.read(&mut place).await.unwrap();
        let mut arrived = &place[..count];
        while !arrived.is_empty() {
            self.tls.read_tls(&mut arrived).unwrap();
            self.tls.process_new_packets()?;
        }
        Ok(())
    }

    pub(crate) async fn handshake(&mut self) {
        self.flush().await;
        while self.tls.is_handshaking() {
            self.receive().await.unwrap();
            self.flush().await;
        }
    }

    pub(crate) async fn send(&mut self, payload: &[u8]) {
        self.tls.writer().write_all(payload).unwrap();
        self.flush().await;
    }

    /// Waits for so much payload.
    pub(crate) async fn expect(&mut self, bytes: usize) -> Vec<u8> {
        let mut heard = vec![0; bytes];
        let mut count = 0;
        while count < bytes {
            match self.tls.reader().read(&mut heard[count..]) {
                Ok(more) => count += more,
                Err(_) => self.receive().await.unwrap(),
            }
        }
        heard
    }

    /// Says the words and the end, and hears as much.
    pub(crate) async fn converse(&mut self, words: &[&[u8]], bytes: usize) {
        self.handshake().await;
        for word in words {
            self.send(word).await;
        }
        self.tls.send_close_notify();
        self.flush().await;
        assert_eq!(self.expect(bytes).await, words.concat());
    }
}

/// What seals records of any kind, in the place of a connection after its handshake.
pub(crate) struct Sealer {
    suite: SupportedCipherSuite,
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
}

impl Sealer {
    fn new(suite: SupportedCipherSuite, (number, keys): (u64, ConnectionTrafficSecrets)) -> Self {
        let (key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("no other suite is known here"),
        };
        let mut sealer = Self { suite, encrypter: encrypter(suite, key, &iv), number: 0 };
        // The keys count along, from the first record on.
        while sealer.number < number {
            let _ = sealer.seal(ContentType::Alert, &[]);
        }
        sealer
    }

    /// One record.
    pub(crate) fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::from(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.encrypter.encrypt(message, self.number).unwrap().encode();
        self.number += 1;
        sealed
    }

    /// As after a change of keys.
    pub(crate) fn change(&mut self, keys: (u64, ConnectionTrafficSecrets)) {
        *self = Self::new(self.suite, keys);
    }
}

fn encrypter(suite: SupportedCipherSuite, key: AeadKey, iv: &Iv) -> Box<dyn MessageEncrypter> {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, Iv::copy(iv.as_ref())),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}

/// The server's part of a handshake in TLS 1.2, and then what seals in its place.
pub(crate) async fn sealing_server_1_2(
    issued: &Issued,
    io: DuplexStream,
) -> (Sealer, DuplexStream) {
    let mut peer = Peer::new(server_1_2(issued), io);
    peer.handshake().await;
    let suite = peer.tls.negotiated_cipher_suite().unwrap();
    (Sealer::new(suite, peer.tls.dangerous_extract_secrets().unwrap().tx), peer.io)
}

/// A client in TLS 1.3 after its handshake: what seals in its place, and what changes its keys.
pub(crate) struct SealingClient {
    pub(crate) sealer: Sealer,
    pub(crate) kernel: rustls::kernel::KernelConnection<rustls::client::ClientConnectionData>,
    pub(crate) io: DuplexStream,
}

impl SealingClient {
    pub(crate) async fn handshake(authority: &Authority, mut io: DuplexStream) -> Self {
        let config = Arc::new(client_config(authority, &TLS13));
        let mut tls = UnbufferedClientConnection::new(config, name()).unwrap();
        let (mut arrived, mut sealed) = (Vec::new(), Vec::new());
        loop {
            let status = tls.process_tls_records(&mut arrived);
            let discard = status.discard;
            let blocked = match status.state.unwrap() {
                ConnectionState::EncodeTlsData(mut message) => {
                    let mut place = vec![0; 20_000];
                    let count = message.encode(&mut place).unwrap();
                    sealed.extend_from_slice(&place[..count]);
                    false
                }
                ConnectionState::TransmitTlsData(message) => {
                    io.write_all(&sealed).await.unwrap();
                    sealed.clear();
                    message.done();
                    false
                }
                ConnectionState::BlockedHandshake => true,
                ConnectionState::WriteTraffic(_) => break,
                other => panic!("{other:?}"),
            };
            arrived.drain(..discard);
            if blocked {
                io.read_buf(&mut arrived).await.unwrap();
            }
        }
        let (secrets, kernel) = tls.dangerous_into_kernel_connection().unwrap();
        Self { sealer: Sealer::new(kernel.negotiated_cipher_suite(), secrets.tx), kernel, io }
    }
}
