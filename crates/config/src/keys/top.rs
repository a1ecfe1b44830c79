//! The keys of the file itself.

use super::{
    ACCESS_LOG, ADMIN, ECHO, Key, Kind, LIMITS, LISTENER, MESH, RULE, SHUTDOWN, Section, TIMEOUTS,
    TUNNEL, UPSTREAM,
};

pub(crate) static TOP: Section = Section {
    path: "",
    id: "file",
    doc: "The keys of the file itself. All of them are optional.",
    keys: &[
        Key {
            name: "upstreams",
            kind: Kind::List(&Kind::Object(&UPSTREAM)),
            default: "none",
            doc: "The servers that requests can be sent to, in named groups.",
            example: "\
upstreams:
  - name: shop
    host: shop.internal
    port: 3000
",
        },
        Key {
            name: "rules",
            kind: Kind::List(&Kind::Object(&RULE)),
            default: "none",
            doc: "Which requests go where. The first rule that fits a request's host and path decides; \
                  where none fits, the answer is 404.",
            example: "\
rules:
  - upstream: shop
    path: /cart
  - upstream: shop
    path: /
    host: shop.example.net
",
        },
        Key {
            name: "listeners",
            kind: Kind::List(&Kind::Object(&LISTENER)),
            default: "one, named `default`, on `[::]:8080`, plain HTTP",
            doc: "The sockets that clients connect to.",
            example: "\
listeners:
  - name: web
    address: \"[::]:8080\"
",
        },
        Key {
            name: "trustedHops",
            kind: Kind::List(&Kind::Network),
            default: "none",
            doc: "Networks of proxies in front of this one. Their X-Forwarded-* and Forwarded headers are \
                  kept and appended to; everybody else's are dropped and set anew. A listener's own list \
                  goes before this one.",
            example: "trustedHops: [10.0.0.0/8, \"::1\"]\n",
        },
        Key {
            name: "timeouts",
            kind: Kind::Object(&TIMEOUTS),
            default: "see [timeouts](#keys-of-timeouts)",
            doc: "How long anything may be waited for.",
            example: "\
timeouts:
  connect: 2s
  response: 30s
",
        },
        Key {
            name: "limits",
            kind: Kind::Object(&LIMITS),
            default: "see [limits](#keys-of-limits)",
            doc: "Bounds on what a client or an upstream can make grow.",
            example: "\
limits:
  connections: 20000
",
        },
        Key {
            name: "accessLog",
            kind: Kind::Object(&ACCESS_LOG),
            default: "off",
            doc: "One line of JSON for every request.",
            example: "\
accessLog:
  path: stdout
",
        },
        Key {
            name: "healthPath",
            kind: Kind::Boolean,
            default: "`true`",
            doc: "Answer `/.nanoproxy/health` with 200 on every listener, for any host and method.",
            example: "healthPath: false\n",
        },
        Key {
            name: "configPath",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Answer `/.nanoproxy/config` on every listener with the upstreams and rules in use. It \
                  shows clients what is behind the gateway, so it is for debugging. The environment \
                  variable DEBUG sets it too.",
            example: "configPath: true\n",
        },
        Key {
            name: "serverHeader",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Add `Server: cloverleaf` to responses that have no Server field of their own.",
            example: "serverHeader: true\n",
        },
        Key {
            name: "proxyHeaders",
            kind: Kind::Boolean,
            default: "`true`",
            doc: "Add X-Proxy and X-Proxy-Instance to proxied responses.",
            example: "proxyHeaders: false\n",
        },
        Key {
            name: "redirectUncleanPaths",
            kind: Kind::Boolean,
            default: "`true`",
            doc: "Answer a path with `//`, `/./` or `/../` in it with a redirect (307) to the cleaned \
                  path. Otherwise it is forwarded as it came.",
            example: "redirectUncleanPaths: false\n",
        },
        Key {
            name: "abortOnClose",
            kind: Kind::Boolean,
            default: "`true`",
            doc: "Give a request up when its HTTP/1 client closes the connection, and close the one to the \
                  server with it. With `false` a client that only says that it will send nothing more (as \
                  `nc -N` does) still gets its answer, and one that has gone keeps the server busy until \
                  then: the two look alike. A reset ends a request in any case.",
            example: "abortOnClose: false\n",
        },
        Key {
            name: "shutdown",
            kind: Kind::Object(&SHUTDOWN),
            default: "see [shutdown](#keys-of-shutdown)",
            doc: "How the gateway ends on SIGTERM.",
            example: "\
shutdown:
  grace: 10s
  drain: 1m
",
        },
        Key {
            name: "admin",
            kind: Kind::Object(&ADMIN),
            default: "on `127.0.0.1:9180`",
            doc: "The port for health, metrics and state.",
            example: "\
admin:
  address: 127.0.0.1:9181
",
        },
        Key {
            name: "tunnels",
            kind: Kind::List(&Kind::Object(&TUNNEL)),
            default: "none",
            doc: "Ways into networks that let nobody in, for upstreams and endpoints with `via: {tunnel: …}`.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    tls:
      authorities: hub-ca.pem
      certificate: client.pem
      key: client.key
upstreams:
  - name: shop
    endpoints:
      - address: web.default:80
        via: {tunnel: hub, cluster: cluster1}
      - address: web.default:80
        via: {tunnel: hub, cluster: cluster2}
",
        },
        Key {
            name: "mesh",
            kind: Kind::Object(&MESH),
            default: "none",
            doc: "The mesh that this host is part of, for upstreams with `via: mesh`.",
            example: "\
mesh:
  config: /etc/cloverleaf/proxy.conf
",
        },
        Key {
            name: "echo",
            kind: Kind::Object(&ECHO),
            default: "none",
            doc: "A test upstream that the gateway starts beside itself: it answers with what it received.",
            example: "\
echo:
  address: 127.0.0.1:9090
",
        },
        Key {
            name: "workers",
            kind: Kind::Integer(1, 256),
            default: "one for each core",
            doc: "Threads that carry traffic. Read at the start only.",
            example: "workers: 2\n",
        },
    ],
};
