//! The keys of `mesh`.

use super::{Key, Kind, Section};

pub(crate) static MESH: Section = Section {
    path: "mesh",
    id: "mesh",
    doc: "The mesh that this host is part of ([docs/mesh.md](mesh.md)). Its files are watched by themselves; another \
          file takes effect at the next start.",
    keys: &[
        Key {
            name: "config",
            kind: Kind::File,
            default: "required",
            doc: "The `proxy.conf` of this host. It names the other two files.",
            example: "\
mesh:
  config: /etc/cloverleaf/proxy.conf
",
        },
        Key {
            name: "serve",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Serve the cluster ports and the requests of other hosts as well, as `cloverleaf mesh` would: one \
                  program for both. Read at the start only. Without it another program does, and each of the two \
                  gives a pod of this host as many connections as it may have.",
            example: "\
mesh:
  config: /etc/cloverleaf/proxy.conf
  serve: true
",
        },
        Key {
            name: "ports",
            kind: Kind::List(&Kind::Object(&MESH_PORT)),
            default: "none",
            doc: "Cluster ports that an upstream of this file serves where no pod of this host does: raw TCP, with the \
                  upstream's balancing, health checks and TLS. Only with `serve`.",
            example: "\
mesh:
  config: /etc/cloverleaf/proxy.conf
  serve: true
  ports:
    - port: 5432
      upstream: shop
",
        },
    ],
};

pub(crate) static MESH_PORT: Section = Section {
    path: "mesh.ports[]",
    id: "meshPort",
    doc: "A cluster port that an upstream serves.",
    keys: &[
        Key {
            name: "port",
            kind: Kind::Integer(1, 65535),
            default: "required",
            doc: "The cluster port, one of `CLUSTERPORTS` in proxy.conf. Each only once.",
            example: "\
mesh:
  config: proxy.conf
  serve: true
  ports: [{port: 5432, upstream: shop}]
",
        },
        Key {
            name: "upstream",
            kind: Kind::Text,
            default: "required",
            doc: "The name of the upstream. Other hosts get there too, unless one of its endpoints is a cluster port.",
            example: "\
mesh:
  config: proxy.conf
  serve: true
  ports: [{port: 5432, upstream: shop}]
",
        },
    ],
};
