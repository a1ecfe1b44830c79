//! The keys of the small sections: `timeouts`, `limits`, `accessLog`, `shutdown`, `admin`, `echo`.

use super::{Key, Kind, Section};

pub(crate) static TIMEOUTS: Section = Section {
    path: "timeouts",
    id: "timeouts",
    doc: "How long anything may be waited for. The environment variable TIMEOUT replaces head, idle, \
          connect and response. Streams are bounded by idleness only, never by a total time.",
    keys: &[
        Key {
            name: "head",
            kind: Kind::Duration { zero: false },
            default: "`10s`",
            doc: "From the first byte of a request until its head is complete; also a TLS handshake.",
            example: "timeouts:\n  head: 5s\n",
        },
        Key {
            name: "idle",
            kind: Kind::Duration { zero: false },
            default: "`75s`",
            doc: "How long a client connection without a request stays open.",
            example: "timeouts:\n  idle: 2m\n",
        },
        Key {
            name: "connect",
            kind: Kind::Duration { zero: false },
            default: "`5s`",
            doc: "Until an upstream connection is up, TLS included, for each attempt.",
            example: "timeouts:\n  connect: 500ms\n",
        },
        Key {
            name: "response",
            kind: Kind::Duration { zero: false },
            default: "`60s`",
            doc: "From the request being sent until the head of the upstream's response; 504 beyond it.",
            example: "timeouts:\n  response: 30s\n",
        },
        Key {
            name: "streamIdle",
            kind: Kind::Duration { zero: false },
            default: "`5m`",
            doc: "How long a body, stream or upgraded connection may stand still in both directions.",
            example: "timeouts:\n  streamIdle: 1h\n",
        },
    ],
};

pub(crate) static LIMITS: Section = Section {
    path: "limits",
    id: "limits",
    doc: "Bounds on what a client or an upstream can make grow.",
    keys: &[
        Key {
            name: "headBytes",
            kind: Kind::Integer(1024, 16_777_216),
            default: "65536",
            doc: "Bytes of a request or response head, of trailers, and of an HTTP/2 header list. Beyond \
                  it 431 (request) or 502 (response).",
            example: "limits:\n  headBytes: 1048576\n",
        },
        Key {
            name: "headFields",
            kind: Kind::Integer(8, 256),
            default: "128",
            doc: "Fields in one head. Beyond it 431 or 502.",
            example: "limits:\n  headFields: 256\n",
        },
        Key {
            name: "connections",
            kind: Kind::Integer(1, 4_000_000),
            default: "100000",
            doc: "Client connections over all listeners. Beyond it new ones wait in the kernel's queue.",
            example: "limits:\n  connections: 20000\n",
        },
        Key {
            name: "h2Streams",
            kind: Kind::Integer(1, 65_536),
            default: "128",
            doc: "Concurrent streams of one HTTP/2 connection.",
            example: "limits:\n  h2Streams: 256\n",
        },
        Key {
            name: "requestsPerConnection",
            kind: Kind::Integer(0, 4_294_967_295),
            default: "0",
            doc: "Requests on one connection before it is closed in an orderly way; 0 is without bound.",
            example: "limits:\n  requestsPerConnection: 10000\n",
        },
        Key {
            name: "requestBody",
            kind: Kind::Size,
            default: "no bound",
            doc: "Bytes of a request's body; 413 beyond it. A rule's `maxRequestBody` goes before it.",
            example: "limits:\n  requestBody: 10MiB\n",
        },
        Key {
            name: "retries",
            kind: Kind::Integer(0, 10),
            default: "2",
            doc: "How many times a request may be sent again, to another endpoint or on a fresh \
                  connection, where that is safe. Unless it is 0, up to 16 connections that were \
                  refused, or whose endpoint left, go beyond it, and a second endpoint is asked \
                  beside one that does not take the connection within 250 ms.",
            example: "limits:\n  retries: 1\n",
        },
    ],
};

pub(crate) static ACCESS_LOG: Section = Section {
    path: "accessLog",
    id: "accessLog",
    doc: "One line of JSON for every request.",
    keys: &[Key {
        name: "path",
        kind: Kind::File,
        default: "required",
        doc: "The file that lines are appended to, or `stdout`. It is opened anew on SIGHUP, for log \
              rotation.",
        example: "accessLog:\n  path: /var/log/cloverleaf/access.log\n",
    }],
};

pub(crate) static SHUTDOWN: Section = Section {
    path: "shutdown",
    id: "shutdown",
    doc: "How the gateway ends on SIGTERM: first not ready any more but still accepting, then draining.",
    keys: &[
        Key {
            name: "grace",
            kind: Kind::Duration { zero: true },
            default: "`5s`",
            doc: "How long it goes on accepting after it said that it is not ready: the time that a load \
                  balancer needs to notice. SIGINT skips it.",
            example: "shutdown:\n  grace: 10s\n",
        },
        Key {
            name: "drain",
            kind: Kind::Duration { zero: true },
            default: "`30s`",
            doc: "After that, how long requests, streams and upgrades may take to end before they are cut.",
            example: "shutdown:\n  drain: 2m\n",
        },
    ],
};

pub(crate) static ADMIN: Section = Section {
    path: "admin",
    id: "admin",
    doc: "The port for health, metrics and state. It shows the whole configuration, so keep it from clients.",
    keys: &[Key {
        name: "address",
        kind: Kind::SocketAddressOrOff,
        default: "`127.0.0.1:9180`",
        doc: "Where it listens, or `off`. The flag `--admin-address` goes before it. Read at the start only.",
        example: "admin:\n  address: \"[::1]:9180\"\n",
    }],
};

pub(crate) static ECHO: Section = Section {
    path: "echo",
    id: "echo",
    doc: "A test upstream that the gateway starts beside itself: it answers with what it received, as JSON.",
    keys: &[Key {
        name: "address",
        kind: Kind::SocketAddress,
        default: "required",
        doc: "Where it listens. An upstream with this host and port sends requests there.",
        example: "\
echo:
  address: 127.0.0.1:9090
upstreams:
  - name: echo
    host: 127.0.0.1
    port: 9090
rules:
  - upstream: echo
    path: /
",
    }],
};
