//! Equals that verify each other: who is let in, and in which words each refusal is told on both sides.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloverleaf_tls::{
    Admitted, ClientStream, Credentials, Mutual, MutualError, MutualErrorKind, ServerStream,
    SpiffePattern, host_key, looks_like_tls,
};
use model::{Diagnostics, PemSource};
use testkit::certs::Wanted;
use testkit::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::common::{place, runtime};

const ALPN: &[u8] = b"test/1";
const WITHIN: Duration = Duration::from_secs(20);
const PIPE_BYTES: usize = 64 * 1024;

fn credentials(issued: &Issued, authority: &Authority) -> Credentials {
    Credentials {
        certificate: PemSource::File(issued.chain_file.clone()),
        key: PemSource::File(issued.key_file.clone()),
        authorities: PemSource::File(authority.file()),
    }
}

fn hosts(hosts: &[&str]) -> Admitted {
    Admitted::Hosts(Arc::new(hosts.iter().map(|host| host_key(host)).collect::<HashSet<_>>()))
}

fn ids(patterns: &[&str]) -> Admitted {
    Admitted::Ids(patterns.iter().map(|text| SpiffePattern::parse(text).unwrap()).collect())
}

fn load(issued: &Issued, authority: &Authority, admitted: Admitted) -> Mutual {
    Mutual::load(&credentials(issued, authority), admitted, ALPN, &place()).unwrap()
}

type Accepted = Result<(ServerStream<DuplexStream>, [u8; 4]), MutualError>;
type Dialled = Result<(ClientStream<DuplexStream>, [u8; 4]), MutualError>;

/// Handshakes, after the first bytes were looked at as a listener does; then each side says four bytes.
async fn meet(acceptor: &Mutual, dialler: &Mutual, host: &str) -> (Accepted, Dialled) {
    let (mut near, far) = duplex(PIPE_BYTES);
    let accepts = async {
        let mut first = vec![0; 100];
        let count = near.read(&mut first).await?;
        assert!(looks_like_tls(&first[..count]));
        let mut stream = acceptor.accept(near, &first[..count]).await?;
        stream.write_all(b"pong").await?;
        stream.flush().await?;
        let mut got = [0; 4];
        stream.read_exact(&mut got).await?;
        Ok((stream, got))
    };
    let dials = async {
        let mut stream = dialler.connect(far, host).await?;
        let mut got = [0; 4];
        // What was held back goes out with the first write.
        stream.write_all(b"ping").await?;
        match stream.read_exact(&mut got).await {
            Ok(_) => Ok((stream, got)),
            Err(error) => Err(MutualError::after_handshake(&error).unwrap_or_else(|| error.into())),
        }
    };
    let both = async { tokio::join!(accepts, dials) };
    tokio::time::timeout(WITHIN, both).await.unwrap()
}

/// What each side made of it: `None` for a connection.
type Outcome = (Option<MutualErrorKind>, Option<MutualErrorKind>);

fn outcome(acceptor: &Mutual, dialler: &Mutual, host: &str) -> Outcome {
    let (accepted, dialled) = runtime().block_on(meet(acceptor, dialler, host));
    if let (Ok((_, said)), Ok((_, answered))) = (&accepted, &dialled) {
        assert_eq!((said, answered), (b"ping", b"pong"));
    }
    (accepted.err().map(|e| e.kind()), dialled.err().map(|e| e.kind()))
}

#[test]
fn hosts_of_one_authority_connect_and_each_refusal_has_its_word() {
    use MutualErrorKind as Kind;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cluster = || hosts(&["10.0.0.1", "b.test"]);
    let acceptor = load(&ours.issue(&Wanted::peer(&["10.0.0.1"])), &ours, cluster());
    let b = Wanted::peer(&["b.test"]);
    let good = load(&ours.issue(&b), &ours, cluster());
    assert_eq!(outcome(&acceptor, &good, "10.0.0.1"), (None, None));
    // Who dials verifies first; who accepts then hears that it is refused.
    let named = |kind| (Some(Kind::Refused), Some(kind));
    assert_eq!(outcome(&acceptor, &good, "10.0.0.2"), named(Kind::WrongPeer));
    for (wanted, kind) in [
        (Wanted::peer(&["10.0.0.1"]).expired(), Kind::Expired),
        (Wanted::peer(&["10.0.0.1"]).not_yet_valid(), Kind::NotYetValid),
        (Wanted::peer(&["*.0.0.1", "x.test"]).common_name("10.0.0.1"), Kind::WrongPeer),
    ] {
        let acceptor = load(&ours.issue(&wanted), &ours, cluster());
        assert_eq!(outcome(&acceptor, &good, "10.0.0.1"), named(kind), "{wanted:?}");
    }
    // Another authority, and another one with the same name.
    let doubles = (Authority::named("one name"), Authority::named("one name"));
    let stranger = load(&theirs.issue(&Wanted::peer(&["10.0.0.1"])), &ours, cluster());
    assert_eq!(outcome(&stranger, &good, "10.0.0.1"), named(Kind::Untrusted));
    let double = load(&doubles.0.issue(&Wanted::peer(&["10.0.0.1"])), &doubles.1, cluster());
    let deceived = load(&doubles.1.issue(&b), &doubles.1, cluster());
    assert_eq!(outcome(&double, &deceived, "10.0.0.1"), named(Kind::Untrusted));
    // Now it is the one who dials whose certificate is wrong.
    let named = |kind| (Some(kind), Some(Kind::Refused));
    for (issued, kind) in [
        (ours.issue(&b.clone().expired()), Kind::Expired),
        (ours.issue(&b.clone().not_yet_valid()), Kind::NotYetValid),
        (ours.issue(&Wanted::peer(&["c.test"])), Kind::WrongPeer),
        (ours.issue(&Wanted::peer(&[]).common_name("b.test")), Kind::WrongPeer),
        (theirs.issue(&b), Kind::Untrusted),
    ] {
        let dialler = load(&issued, &ours, cluster());
        assert_eq!(outcome(&acceptor, &dialler, "10.0.0.1"), named(kind), "{kind:?}");
    }
}

#[test]
fn workloads_are_known_by_their_ids() {
    use MutualErrorKind as Kind;
    let authority = Authority::new();
    let admitted = || ids(&["spiffe://cluster.test/mesh/*"]);
    let with = |wanted: Wanted| load(&authority.issue(&wanted), &authority, admitted());
    let id = |path: &str| Wanted::peer(&[]).uri(&format!("spiffe://cluster.test{path}"));
    let acceptor = with(id("/mesh/1"));
    assert_eq!(acceptor.names(), "spiffe://cluster.test/mesh/1");
    assert_eq!(outcome(&acceptor, &with(id("/mesh/2")), "10.0.0.1"), (None, None));
    for wanted in [
        id("/other/2"),
        id("/mesh/2").uri("spiffe://cluster.test/mesh/3"),
        id("/mesh/2").authority(),
        Wanted::peer(&["10.0.0.1"]),
        Wanted::peer(&[]).uri("spiffe://else.test/mesh/2"),
    ] {
        let wrong = with(wanted);
        let (accepted, dialled) = outcome(&acceptor, &wrong, "10.0.0.1");
        // An authority's own certificate is not even looked at.
        assert!(matches!(accepted, Some(Kind::WrongPeer | Kind::BadCertificate)), "{accepted:?}");
        assert_eq!(dialled, Some(Kind::Refused));
        let (_, dialled) = outcome(&wrong, &acceptor, "10.0.0.1");
        assert!(matches!(dialled, Some(Kind::WrongPeer | Kind::BadCertificate)), "{dialled:?}");
    }
}

#[test]
fn the_next_connection_resumes_and_a_change_of_who_is_admitted_ends_that() {
    let authority = Authority::new();
    let both = hosts(&["a.test", "b.test"]);
    let acceptor = load(&authority.issue(&Wanted::peer(&["a.test"])), &authority, both.clone());
    let dialler = load(&authority.issue(&Wanted::peer(&["b.test"])), &authority, both.clone());
    let resumed = |acceptor: &Mutual, dialler: &Mutual| {
        let (accepted, dialled) = runtime().block_on(meet(acceptor, dialler, "a.test"));
        let (accepted, dialled) = (accepted.unwrap().0, dialled.unwrap().0);
        assert_eq!(accepted.resumed(), dialled.resumed());
        dialled.resumed()
    };
    assert!(!resumed(&acceptor, &dialler));
    assert!(resumed(&acceptor, &dialler));
    assert!(!resumed(&acceptor.admitting(both), &dialler));
    let without = acceptor.admitting(hosts(&["a.test"]));
    let wrong = Some(MutualErrorKind::WrongPeer);
    assert_eq!(outcome(&without, &dialler, "a.test"), (wrong, Some(MutualErrorKind::Refused)));
}

#[test]
fn a_session_ends_with_its_certificates() {
    const LIFE: Duration = Duration::from_secs(3);
    let authority = Authority::new();
    let both = || hosts(&["a.test", "b.test"]);
    let now = SystemTime::now();
    let short = Wanted::peer(&["b.test"]).valid(now - Duration::from_secs(60), now + LIFE);
    let acceptor = load(&authority.issue(&Wanted::peer(&["a.test"])), &authority, both());
    let dialler = load(&authority.issue(&short), &authority, both());
    assert_eq!(outcome(&acceptor, &dialler, "a.test"), (None, None));
    // Certificates count in whole seconds.
    let over = dialler.expires() + Duration::from_secs(2);
    std::thread::sleep(over.duration_since(SystemTime::now()).unwrap_or_default());
    let (accepted, _) = outcome(&acceptor, &dialler, "a.test");
    assert_eq!(accepted, Some(MutualErrorKind::Expired));
    assert!(acceptor.expires() > now + Duration::from_secs(86_400));
}

#[test]
fn what_is_not_this_protocol_is_refused() {
    use MutualErrorKind as Kind;
    let authority = Authority::new();
    let issued = authority.issue(&Wanted::peer(&["a.test"]));
    let this = load(&issued, &authority, hosts(&["a.test"]));
    let described = credentials(&issued, &authority);
    let other = Mutual::load(&described, hosts(&["a.test"]), b"other/1", &place()).unwrap();
    let (accepted, dialled) = outcome(&this, &other, "a.test");
    assert_eq!((accepted, dialled), (Some(Kind::Handshake), Some(Kind::Handshake)));
    for (answer, expected) in [
        (&b""[..], Kind::Closed),
        (b"BUSY\r\nhello", Kind::NotTls),
        (b"\x15\x03\x03\x00\x02\x02\x46", Kind::Handshake),
        (b"\x15\x03\x03\x00\x02\x02\x2a", Kind::Refused),
    ] {
        let kind = runtime().block_on(async {
            let (mut near, far) = duplex(PIPE_BYTES);
            let answers = async {
                let mut hello = [0; 16];
                near.read_exact(&mut hello).await.unwrap();
                near.write_all(answer).await.unwrap();
                near.shutdown().await.unwrap();
                let _ = near.read_to_end(&mut Vec::new()).await;
            };
            let (_, dialled) = tokio::join!(answers, this.connect(far, "a.test"));
            dialled.unwrap_err().kind()
        });
        assert_eq!(kind, expected, "{answer:?}");
    }
    for (sent, expected) in [
        (&b"\x16\x03\x01\x00\x05hello"[..], Kind::Handshake),
        (b"\x16\x03\x01", Kind::Closed),
        (b"\x16oops, this is no record at all", Kind::Handshake),
    ] {
        let kind = runtime().block_on(async {
            let (near, mut far) = duplex(PIPE_BYTES);
            far.shutdown().await.unwrap();
            this.accept(near, sent).await.unwrap_err().kind()
        });
        assert_eq!(kind, expected, "{sent:?}");
    }
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.issue(&Wanted::peer(&["a.test"]));
    let other = ours.issue(&Wanted::peer(&["a.test"]));
    let tried = |credentials: &Credentials| -> Result<Diagnostics, Diagnostics> {
        Mutual::load(credentials, hosts(&[]), ALPN, &place()).map(|m| m.warnings().clone())
    };
    let described = |issued: &Issued| credentials(issued, &ours);
    assert!(tried(&described(&good)).unwrap().0.is_empty());
    let file = |path: &std::path::Path| PemSource::File(path.to_owned());
    for (credentials, problem) in [
        (Credentials { key: file(&other.key_file), ..described(&good) }, "does not belong"),
        (
            Credentials { certificate: file(&good.key_file), ..described(&good) },
            "no certificate in",
        ),
        (
            Credentials { authorities: file(&good.key_file), ..described(&good) },
            "no certificate in",
        ),
        (Credentials { authorities: file(ours.dir()), ..described(&good) }, "cannot read"),
        (described(&ours.server(&["a.test"])), "both directions"),
        (described(&ours.issue(&Wanted::client("a.test"))), "both directions"),
    ] {
        let found = tried(&credentials).unwrap_err().to_string();
        assert!(found.contains(problem), "{found}");
        assert!(!found.contains("PRIVATE KEY-----"), "{found}");
    }
    let soon = SystemTime::now() + Duration::from_secs(3_600);
    let soon = Wanted::peer(&["a.test"]).valid(SystemTime::now(), soon);
    for (issued, warning) in [
        (ours.issue(&soon), "expires in"),
        (ours.issue(&Wanted::peer(&["a.test"]).expired()), "expired 24 h ago"),
        (theirs.issue(&Wanted::peer(&["a.test"])), "signed by none of the authorities"),
    ] {
        let found = tried(&described(&issued)).unwrap().to_string();
        assert!(found.contains(warning), "{found}");
    }
}
