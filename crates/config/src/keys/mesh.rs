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
    ],
};
