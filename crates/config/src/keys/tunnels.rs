//! The keys of `tunnels`, and those of what is reached through one.

use super::{Key, Kind, Section};

pub(crate) static TUNNEL: Section = Section {
    path: "tunnels[]",
    id: "tunnel",
    doc: "A way into networks that let nobody in: a server (`cloverleaf tunnel server`, or Konnectivity's own) to \
          which agents in those networks connect ([docs/tunnel.md](tunnel.md)).",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text,
            default: "required in `tunnels`; elsewhere the server's address",
            doc: "What `via` calls it; also its label in metrics.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
",
        },
        Key {
            name: "server",
            kind: Kind::TunnelServers,
            default: "required",
            doc: "Where the server takes clients. A relative path of a Unix socket begins at the directory of this \
                  file. Several, between commas, are one for all: new connections go through the one that was of \
                  use last, and through the next where it cannot be reached or is about to end. Each must have the \
                  agents that are asked for.",
            example: "\
tunnels:
  - name: here
    server: unix:/run/konnectivity/server.sock
  - name: hubs
    server: hub-1.example.net:8090,hub-2.example.net:8090
",
        },
        Key {
            name: "mode",
            kind: Kind::Choice(&["grpc", "httpConnect"]),
            default: "`grpc`",
            doc: "How the server takes clients, its `--mode`. With `grpc` many connections share one to the server.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    mode: httpConnect
",
        },
        Key {
            name: "cluster",
            kind: Kind::Cluster,
            default: "none: the server chooses an agent by its strategies",
            doc: "Where `via` says nothing else, take agents of this cluster alone, which have it as their identifier \
                  `host` (`--agent-identifiers=host=NAME`). Only a server of ours knows that; another refuses.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    cluster: cluster1
",
        },
        Key {
            name: "tls",
            kind: Kind::Object(&TUNNEL_TLS),
            default: "the server is verified against the machine's authorities, and shown nothing",
            doc: "Certificates. Not for a Unix socket, which has no TLS. New files serve new connections.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    tls:
      authorities: hub-ca.pem
      certificate: client.pem
      key: client.key
",
        },
    ],
};

pub(crate) static TUNNEL_TLS: Section = Section {
    path: "tunnels[].tls",
    id: "tunnelTls",
    doc: "What a tunnel's server is shown, and how it is verified. There is no leaving that out.",
    keys: &[
        Key {
            name: "authorities",
            kind: Kind::File,
            default: "the machine's certificate authorities",
            doc: "A PEM file; only a certificate issued by one of the authorities in it is accepted.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    tls:
      authorities: hub-ca.pem
",
        },
        Key {
            name: "certificate",
            kind: Kind::File,
            default: "none",
            doc: "The PEM file of what the server is shown, which it usually wants; `key` beside it.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    tls:
      certificate: client.pem
      key: client.key
",
        },
        Key {
            name: "key",
            kind: Kind::File,
            default: "none",
            doc: "The PEM file of its private key.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
    tls:
      certificate: client.pem
      key: client.key
",
        },
        Key {
            name: "serverName",
            kind: Kind::Host,
            default: "the host of `server`, of each its own",
            doc: "The name that is asked for (SNI) and that the certificate must be for.",
            example: "\
tunnels:
  - name: hub
    server: 10.1.2.3:8090
    tls:
      serverName: hub.example.net
",
        },
    ],
};

pub(crate) static VIA: Section = Section {
    path: "upstreams[].via",
    id: "via",
    doc: "Through which tunnel servers are reached. Their names and addresses are those that the agent sees.",
    keys: &[
        Key {
            name: "tunnel",
            kind: Kind::TextOr(&TUNNEL),
            default: "required",
            doc: "The name of one of `tunnels`, or a tunnel that is used here alone.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
upstreams:
  - name: shop
    endpoints:
      - address: web.default:80
        via: {tunnel: hub}
      - address: web.default:80
        via: {tunnel: {server: \"other.example.net:8090\", cluster: cluster7}}
",
        },
        Key {
            name: "cluster",
            kind: Kind::Cluster,
            default: "the tunnel's `cluster`",
            doc: "Take agents of this cluster alone.",
            example: "\
tunnels:
  - name: hub
    server: hub.example.net:8090
upstreams:
  - name: shop
    endpoints:
      - address: web.default:80
        via: {tunnel: hub, cluster: cluster1}
      - address: web.default:80
        via: {tunnel: hub, cluster: cluster2}
",
        },
    ],
};
