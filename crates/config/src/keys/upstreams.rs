//! The keys of `upstreams`.

use super::{Key, Kind, Section, VIA};

pub(crate) static UPSTREAM: Section = Section {
    path: "upstreams[]",
    id: "upstream",
    doc: "A group of servers that serve the same thing. Either `host` (and `port`) names the only one, or \
          `endpoints` lists them. Of two upstreams with one name the last one counts, with a warning.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text,
            default: "required",
            doc: "What rules call it; also its label in metrics.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
",
        },
        Key {
            name: "host",
            kind: Kind::Host,
            default: "required, unless there are `endpoints`",
            doc: "Host name or IP address of the server. A name is resolved when a connection is needed, \
                  and again when the answer has grown old.",
            example: "\
upstreams:
  - name: shop
    host: 10.1.2.3
",
        },
        Key {
            name: "port",
            kind: Kind::Port,
            default: "80, or 443 with scheme https; 0 means the same",
            doc: "The server's port.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    port: 3000
",
        },
        Key {
            name: "via",
            kind: Kind::ChoiceOr(&["direct", "mesh"], &VIA),
            default: "`direct`",
            doc: "How the servers are reached. With `mesh` each is a cluster port, given by `port` alone: a pod that \
                  serves it, on this host or another (see [docs/mesh.md](mesh.md)). Needs the section `mesh`. Such \
                  a server's name, for its certificate and for noHostRewrite, is `localhost`. With a mapping they are \
                  reached through a tunnel (see [docs/tunnel.md](tunnel.md)), and `host` and `port` are as the agent \
                  sees them.",
            example: "\
mesh:
  config: proxy.conf
upstreams:
  - name: shop
    via: mesh
    port: 61000
",
        },
        Key {
            name: "scheme",
            kind: Kind::Choice(&["http", "https"]),
            default: "`http`",
            doc: "Whether the servers are spoken to in the clear or over TLS.",
            example: "\
upstreams:
  - name: bank
    host: bank.internal
    scheme: https
",
        },
        Key {
            name: "noHostRewrite",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "With `true` the server gets its own name as Host header, with `false` the one that the \
                  client sent. The name, which is NanoProxy's, says the opposite.",
            example: "\
upstreams:
  - name: bucket
    host: bucket.storage.example
    noHostRewrite: true
",
        },
        Key {
            name: "endpoints",
            kind: Kind::List(&Kind::Object(&ENDPOINT)),
            default: "the one that `host` and `port` name",
            doc: "Several servers instead of one.",
            example: "\
upstreams:
  - name: shop
    endpoints:
      - host: shop-a.internal
        port: 3000
      - address: 10.1.2.4:3000
",
        },
        Key {
            name: "balance",
            kind: Kind::Choice(&["roundRobin", "leastRequests", "clientAddress"]),
            default: "`roundRobin`",
            doc: "How an endpoint is chosen: in turn by weight; of two chosen at random by weight the one with \
                  fewer requests under way; or always the same one for the same client address, by weight \
                  over many clients.",
            example: "\
upstreams:
  - name: shop
    balance: leastRequests
    endpoints:
      - address: 10.1.2.3:3000
      - address: 10.1.2.4:3000
",
        },
        Key {
            name: "tls",
            kind: Kind::Object(&UPSTREAM_TLS),
            default: "certificates are verified against the machine's authorities",
            doc: "How the servers are verified. Only with scheme https.",
            example: "\
upstreams:
  - name: bank
    host: bank.internal
    scheme: https
    tls:
      authorities: internal-ca.pem
",
        },
        Key {
            name: "healthCheck",
            kind: Kind::Object(&HEALTH_CHECK),
            default: "none: endpoints are believed to serve",
            doc: "Ask each endpoint again and again whether it can serve. One that cannot gets no requests; \
                  where none can, the answer is 503.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      path: /healthz
",
        },
        Key {
            name: "connectTimeout",
            kind: Kind::Duration { zero: false },
            default: "`timeouts.connect`",
            doc: "Until a connection to a server is up, TLS included, for each attempt.",
            example: "\
upstreams:
  - name: far
    host: far.example.net
    connectTimeout: 10s
",
        },
        Key {
            name: "responseTimeout",
            kind: Kind::Duration { zero: false },
            default: "`timeouts.response`",
            doc: "From the request being sent until the head of the response; 504 beyond it. A rule's own \
                  goes before this one.",
            example: "\
upstreams:
  - name: reports
    host: reports.internal
    responseTimeout: 5m
",
        },
        Key {
            name: "idleConnections",
            kind: Kind::Integer(0, 100_000),
            default: "256",
            doc: "Idle connections kept for each endpoint by each worker thread; 0 keeps none.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    idleConnections: 32
",
        },
        Key {
            name: "idleTimeout",
            kind: Kind::Duration { zero: false },
            default: "`30s`",
            doc: "How long an idle connection is kept. It should be shorter than the server's own \
                  keep-alive time.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    idleTimeout: 4s
",
        },
    ],
};

pub(crate) static ENDPOINT: Section = Section {
    path: "upstreams[].endpoints[]",
    id: "endpoint",
    doc: "One server of an upstream: either `host` and `port`, or `address`, or `via: mesh` and `port`.",
    keys: &[
        Key {
            name: "host",
            kind: Kind::Host,
            default: "required, unless there is an `address`",
            doc: "Host name or IP address.",
            example: "\
upstreams:
  - name: shop
    endpoints:
      - host: shop-a.internal
",
        },
        Key {
            name: "port",
            kind: Kind::Port,
            default: "80, or 443 with scheme https; 0 means the same",
            doc: "Port, beside `host`.",
            example: "\
upstreams:
  - name: shop
    endpoints:
      - host: shop-a.internal
        port: 3000
",
        },
        Key {
            name: "address",
            kind: Kind::HostPort,
            default: "`host` and `port`",
            doc: "Host and port in one; an IPv6 address in brackets.",
            example: "\
upstreams:
  - name: shop
    endpoints:
      - address: shop-a.internal:3000
      - address: \"[2001:db8::7]:3000\"
",
        },
        Key {
            name: "via",
            kind: Kind::ChoiceOr(&["direct", "mesh"], &VIA),
            default: "the upstream's `via`",
            doc: "How this server is reached.",
            example: "\
mesh:
  config: proxy.conf
upstreams:
  - name: shop
    endpoints:
      - via: mesh
        port: 61000
        weight: 9
      - address: 10.1.2.4:3000
",
        },
        Key {
            name: "weight",
            kind: Kind::Integer(1, 65535),
            default: "1",
            doc: "Its share of the requests beside the others' of the upstream.",
            example: "\
upstreams:
  - name: shop
    endpoints:
      - address: 10.1.2.3:3000
        weight: 3
      - address: 10.1.2.4:3000
        weight: 1
",
        },
    ],
};

pub(crate) static UPSTREAM_TLS: Section = Section {
    path: "upstreams[].tls",
    id: "upstreamTls",
    doc: "How the servers of an upstream with scheme https are verified.",
    keys: &[
        Key {
            name: "skipVerify",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Do not verify the certificate at all: encrypted, but anybody may answer. The environment \
                  variable TLS_SKIP_VERIFY does it for every upstream.",
            example: "\
upstreams:
  - name: lab
    host: lab.internal
    scheme: https
    tls:
      skipVerify: true
",
        },
        Key {
            name: "authorities",
            kind: Kind::File,
            default: "the machine's certificate authorities",
            doc: "A PEM file; only certificates issued by one of the authorities in it are accepted.",
            example: "\
upstreams:
  - name: bank
    host: bank.internal
    scheme: https
    tls:
      authorities: internal-ca.pem
",
        },
        Key {
            name: "serverName",
            kind: Kind::Host,
            default: "the endpoint's host",
            doc: "The name that is asked for (SNI) and that the certificate must be for.",
            example: "\
upstreams:
  - name: bank
    host: 10.1.2.3
    scheme: https
    tls:
      serverName: bank.example.net
",
        },
    ],
};

pub(crate) static HEALTH_CHECK: Section = Section {
    path: "upstreams[].healthCheck",
    id: "healthCheck",
    doc: "How each endpoint is asked whether it can serve: by a GET if there is a `path`, else by a TCP \
          connection.",
    keys: &[
        Key {
            name: "path",
            kind: Kind::UrlPath,
            default: "none: a TCP connection is enough",
            doc: "Path, and perhaps query, of a GET (HTTP/1.1).",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      path: /healthz
",
        },
        Key {
            name: "host",
            kind: Kind::Host,
            default: "the endpoint's host",
            doc: "The Host header of the GET.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      path: /healthz
      host: shop.example.net
",
        },
        Key {
            name: "port",
            kind: Kind::Port,
            default: "the endpoint's; 0 means the same",
            doc: "The port that is asked.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      port: 8081
",
        },
        Key {
            name: "scheme",
            kind: Kind::Choice(&["http", "https"]),
            default: "the upstream's `scheme`",
            doc: "Whether the GET goes over TLS. Its certificate is not verified: a check carries \
                  no secret.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      path: /healthz
      scheme: http
",
        },
        Key {
            name: "interval",
            kind: Kind::Duration { zero: false },
            default: "`10s`",
            doc: "From the beginning of one check to that of the next, at least `100ms`. It is \
                  moved by up to a tenth, so that many do not beat together.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      interval: 2s
",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration { zero: false },
            default: "`5s`, or `interval` if that is shorter",
            doc: "How long a check may take in all; at most `interval`.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      interval: 2s
      timeout: 1s
",
        },
        Key {
            name: "rise",
            kind: Kind::Integer(1, 100),
            default: "2",
            doc: "Successes in a row after which an endpoint that could not serve can.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      rise: 1
",
        },
        Key {
            name: "fall",
            kind: Kind::Integer(1, 100),
            default: "3",
            doc: "Failures in a row after which an endpoint that could serve cannot.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      fall: 1
",
        },
        Key {
            name: "statuses",
            kind: Kind::Statuses,
            default: "`200-399`",
            doc: "The status, or the range of statuses, of an endpoint that can serve.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    healthCheck:
      path: /healthz
      statuses: 200-299
",
        },
    ],
};
