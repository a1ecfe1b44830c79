//! Agents that break the protocol, packet by packet: they lose their stream, and nobody else loses anything.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use model::{Certificate, PemSource, Place, UpstreamTls, Verification};
use testkit::certs::Wanted;
use testkit::wait_until;
use tls::ClientTls;
use tokio::net::TcpStream;
use tunnel::packet::{Decoder, Message, Packet};

use crate::support::{Agent, Tunnel, WITHIN, echo, round_trip};

const READY: &str = "konnectivity_network_proxy_server_ready_backend_connections";

/// An agent as the test plays it.
struct Played {
    /// Holds the connection.
    _send: SendRequest<Message>,
    out: SendStream<Message>,
    incoming: RecvStream,
    decoder: Decoder,
}

impl Played {
    /// One with a good certificate that says these things of itself.
    async fn new(tunnel: &Tunnel, fields: &[(&str, &str)]) -> Result<Self, String> {
        Self::with(tunnel, fields, &h2::client::Builder::new()).await
    }

    async fn with(
        tunnel: &Tunnel,
        fields: &[(&str, &str)],
        builder: &h2::client::Builder,
    ) -> Result<Self, String> {
        let shown = tunnel.authority.issue(&Wanted::client("played"));
        let place = Place::whole("a test");
        let verification = Verification::Authorities(PemSource::File(tunnel.authority.file()));
        let upstream = UpstreamTls { verification, server_name: None };
        let certificate = Certificate {
            chain: PemSource::File(shown.chain_file),
            key: PemSource::File(shown.key_file),
            hosts: Vec::new(),
            client_verification: None,
            place: place.clone(),
        };
        let tls = ClientTls::load(&upstream, &place).unwrap();
        let tls = tls.with_certificate(&certificate).unwrap().with_protocols(vec![b"h2".to_vec()]);
        let stream = TcpStream::connect(tunnel.agent_port.address()).await.unwrap();
        let stream = tls.connect(stream, "127.0.0.1").await.unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        net::task::spawn("connection", connection);
        let mut request = http::Request::post("http://localhost/AgentService/Connect")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut send = send.ready().await.unwrap();
        let request = request.body(()).unwrap();
        let (answer, out) = send.send_request(request, false).unwrap();
        let answer = tokio::time::timeout(WITHIN, answer).await.unwrap().unwrap();
        if let Some(status) = answer.headers().get("grpc-status") {
            return Err(status.to_str().unwrap().to_owned());
        }
        assert!(answer.headers().contains_key("serverid"));
        let incoming = answer.into_body();
        Ok(Self { _send: send, out, incoming, decoder: Decoder::default() })
    }

    fn send(&mut self, packet: &Packet) {
        let _ = self.out.send_data(Message::new(packet), false);
    }

    fn data(&mut self, connection: i64, bytes: usize) {
        self.send(&Packet::Data { connection, bytes: Bytes::from(vec![b'x'; bytes]) });
    }

    /// The next packet; `None` where the stream has ended.
    async fn next(&mut self) -> Option<Packet> {
        let next = async {
            loop {
                if let Some(packet) = self.decoder.next_packet().unwrap() {
                    return Some(packet);
                }
                let bytes = self.incoming.data().await?.ok()?;
                let _ = self.incoming.flow_control().release_capacity(bytes.len());
                self.decoder.push(bytes);
            }
        };
        tokio::time::timeout(WITHIN, next).await.expect("in time")
    }

    /// Answers the next dial with a connection of this number.
    async fn answer(&mut self, connection: i64) {
        loop {
            if let Packet::DialRequest { dial, .. } = self.next().await.expect("a dial") {
                let error = String::new();
                return self.send(&Packet::DialResponse { error, connection, dial });
            }
        }
    }

    async fn is_cut_off(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// A server with a good agent for `good`, and fields of one that plays to be for `bad`.
fn stage() -> (Tunnel, Agent) {
    let tunnel = Tunnel::server("http-connect", &["--proxy-strategies=destHost"]);
    let agent = tunnel.agent(&["--agent-identifiers=host=127.0.0.1"]);
    tunnel.wait_ready();
    (tunnel, agent)
}

/// Dials through the agent that plays, on a thread of its own, until the server answers or closes.
fn dial(tunnel: &Tunnel) -> std::os::unix::net::UnixStream {
    use std::io::Write;
    let mut stream = tunnel.socket();
    write!(stream, "CONNECT bad:1 HTTP/1.1\r\n\r\n").unwrap();
    stream
}

const BAD: &[(&str, &str)] = &[("agentid", "played"), ("agentidentifiers", "host=bad")];
const BAD_OF_OURS: &[(&str, &str)] =
    &[("agentid", "played"), ("agentidentifiers", "host=bad"), ("cloverleaf-tunnel", "1")];

/// Each way in which the agent breaks the protocol once it has been asked for a connection.
const WAYS: [(&str, &[(&str, &str)]); 5] = [
    ("sent more on connection 7 than it had credit for", BAD_OF_OURS),
    ("gave the number 7 to two connections", BAD),
    ("a message is compressed", BAD),
    ("a message is no packet", BAD),
    ("a message has", BAD),
];

async fn misbehave(agent: &mut Played, way: usize, tunnel: &Tunnel) {
    let raw = |bytes: &[u8]| {
        let mut message = Message::data(0, Bytes::copy_from_slice(bytes));
        // Without the head that it was given.
        let head = bytes::Buf::remaining(&message) - bytes.len();
        bytes::Buf::advance(&mut message, head);
        message
    };
    match way {
        // More than every buffer on the way to a client that does not read.
        0 => (0..64).for_each(|_| agent.data(7, 64 * 1024)),
        1 => {
            let second = dial(tunnel);
            agent.answer(7).await;
            drop(second);
        }
        2 => drop(agent.out.send_data(raw(b"\x01\0\0\0\0"), false)),
        3 => drop(agent.out.send_data(raw(b"\0\0\0\0\x02\x12\x7f"), false)),
        _ => drop(agent.out.send_data(raw(b"\0\xff\xff\xff\xff\x08\x01"), false)),
    }
}

#[test]
fn an_agent_that_breaks_the_protocol_is_cut_off_alone() {
    let (tunnel, _agent) = stage();
    let echo = echo();
    let mut other = tunnel.connected(echo);
    for (way, (reason, fields)) in WAYS.into_iter().enumerate() {
        run(async {
            let mut agent = Played::new(&tunnel, fields).await.unwrap();
            assert!(wait_until(WITHIN, || tunnel.metric(READY) == 2.0));
            let client = dial(&tunnel);
            agent.answer(7).await;
            misbehave(&mut agent, way, &tunnel).await;
            agent.is_cut_off().await;
            drop(client);
        });
        assert!(tunnel.server.wait_log(reason), "{reason}");
        assert!(wait_until(WITHIN, || tunnel.metric(READY) == 1.0), "{reason}");
        round_trip(&mut other).unwrap();
        round_trip(&mut tunnel.connected(echo)).unwrap();
    }
    let pending = "konnectivity_network_proxy_server_pending_backend_dials";
    assert!(wait_until(WITHIN, || tunnel.metric(pending) == 0.0));
}

#[test]
fn what_an_agent_says_without_being_asked_is_answered_or_passed_over() {
    let (tunnel, _agent) = stage();
    run(async {
        let mut agent = Played::new(&tunnel, BAD).await.unwrap();
        // Nobody's dial, connection, and a request that only servers make.
        let (error, address) = (String::new(), "127.0.0.1:1".to_owned());
        agent.send(&Packet::DialResponse { error: error.clone(), connection: 9, dial: 1234 });
        assert_eq!(agent.next().await, Some(Packet::CloseRequest { connection: 9 }));
        agent.send(&Packet::CloseResponse { error, connection: 9 });
        agent.data(11, 100);
        assert_eq!(agent.next().await, Some(Packet::CloseRequest { connection: 11 }));
        let protocol = "tcp".to_owned();
        agent.send(&Packet::DialRequest { protocol, address, dial: 1 });
        agent.send(&Packet::Credit { connection: i64::MIN, bytes: u64::MAX });
        agent.send(&Packet::CloseDial { dial: 99 });
        agent.send(&Packet::CloseRequest { connection: 0 });
        // It is a good agent otherwise.
        let client = dial(&tunnel);
        agent.answer(i64::MAX).await;
        agent.data(i64::MAX, 5);
        let mut client = client;
        let answered = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let head = crate::support::head(&mut client);
            let mut bytes = [0; 5];
            client.read_exact(&mut bytes).unwrap();
            (head, bytes)
        });
        let (head, bytes) = answered.await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && bytes == *b"xxxxx", "{head}");
    });
    let late = "konnectivity_network_proxy_server_dial_failure_count\
                {reason=\"unrecognized_response\"}";
    assert_eq!(tunnel.metric(late), 1.0);
}

#[test]
fn an_agent_that_does_not_say_who_it_is_once_is_refused() {
    let (tunnel, _agent) = stage();
    run(async {
        let long = "x".repeat(2000);
        for fields in [
            &[][..],
            &[("agentid", "a"), ("agentid", "b")],
            &[("agentid", long.as_str())],
            &[("agentid", "a"), ("agentidentifiers", "host=%ff")],
        ] {
            assert!(Played::new(&tunnel, fields).await.is_err(), "{fields:?}");
        }
    });
    assert_eq!(tunnel.metric(READY), 1.0);
    assert!(tunnel.server.wait_log("an agent was refused"));
}

#[test]
fn payload_in_many_small_packets_waits_behind_a_stall_without_harm() {
    use std::io::Read;
    const PACKETS: usize = 40_000;
    let (tunnel, _agent) = stage();
    run(async {
        let mut agent = Played::new(&tunnel, BAD).await.unwrap();
        let deaf = dial(&tunnel);
        agent.answer(7).await;
        let mut reads = dial(&tunnel);
        agent.answer(8).await;
        // Nothing is read of the stream as long as too much waits for the one.
        (0..48).for_each(|_| agent.data(7, 64 * 1024));
        (0..PACKETS).for_each(|_| agent.data(8, 1));
        let read = tokio::task::spawn_blocking(move || {
            crate::support::head(&mut reads);
            let mut bytes = vec![0; PACKETS];
            reads.read_exact(&mut bytes).map(|()| bytes)
        });
        let bytes = read.await.unwrap().unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'x'));
        drop(deaf);
    });
}
