//! What a connection costs on which nothing moves. Alone in its process, because it asks how much memory that has.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use cloverleaf_tls::{ClientTls, ServerStream, Termination};
use model::{
    Certificate, HttpVersions, PemSource, Place, TlsTermination, TlsVersion, UpstreamTls,
    Verification,
};
use testkit::Authority;
use testkit::running::resident_bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A pipe that needs no memory while it is empty.
#[derive(Default)]
struct Pipe {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
}

struct End {
    pipe: Rc<RefCell<Pipe>>,
    is_server: bool,
}

impl End {
    fn pair() -> (Self, Self) {
        let pipe = Rc::<RefCell<Pipe>>::default();
        (Self { pipe: pipe.clone(), is_server: true }, Self { pipe, is_server: false })
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &mut *self.pipe.borrow_mut();
        let queue = if self.is_server { &mut pipe.to_server } else { &mut pipe.to_client };
        if queue.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = buf.remaining().min(queue.len());
        let bytes: Vec<u8> = queue.drain(..count).collect();
        buf.put_slice(&bytes);
        queue.shrink_to_fit();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pipe = &mut *self.pipe.borrow_mut();
        let queue = if self.is_server { &mut pipe.to_client } else { &mut pipe.to_server };
        queue.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection over which something has gone both ways, and whose client needs no memory any more.
async fn used(server: &Termination, client: &ClientTls) -> ServerStream<End> {
    let (near, far) = End::pair();
    let (stream, client) = tokio::join!(server.accept(near), client.connect(far, "a.test"));
    let (Ok(mut stream), Ok(mut client)) = (stream, client) else { panic!("no handshake") };
    let mut place = vec![0; 40_000];
    client.write_all(&place).await.unwrap();
    stream.read_exact(&mut place).await.unwrap();
    stream.write_all(&place).await.unwrap();
    stream.flush().await.unwrap();
    client.read_exact(&mut place).await.unwrap();
    stream
}

#[test]
fn an_idle_connection_needs_its_keys_and_little_else() {
    /// More than it is, and less than with a buffer of a page.
    const BYTES_MAX: u64 = 5 * 1024;
    const CONNECTIONS: usize = 2_000;
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let certificate = Certificate {
        chain: PemSource::File(issued.chain_file.clone()),
        key: PemSource::File(issued.key_file.clone()),
        hosts: Vec::new(),
        client_verification: None,
        place: Place::whole("a test"),
    };
    let described = TlsTermination {
        certificates: vec![certificate],
        first_is_default: true,
        min_version: TlsVersion::V1_2,
    };
    let server = Termination::load(&described, HttpVersions::All).unwrap();
    let verification = Verification::Authorities(PemSource::File(authority.file()));
    let upstream = UpstreamTls { verification, server_name: None };
    let client = ClientTls::load(&upstream, &Place::whole("a test")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let connect = |count: usize| {
        runtime.block_on(async {
            let mut streams = Vec::with_capacity(count);
            for _ in 0..count {
                streams.push(used(&server, &client).await);
            }
            streams
        })
    };
    // What the first ones need once.
    let first = connect(CONNECTIONS / 10);
    let before = resident_bytes(std::process::id());
    let streams = connect(CONNECTIONS);
    let after = resident_bytes(std::process::id());
    let each = (after - before) / CONNECTIONS as u64;
    println!(
        "an idle connection needs {each} bytes, {} of them in place",
        size_of_val(&streams[0])
    );
    assert!((1..=BYTES_MAX).contains(&each), "{each} bytes");
    drop((first, streams));
}
