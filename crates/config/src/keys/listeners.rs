//! The keys of `listeners`.

use super::{Key, Kind, Section};

/// What `protocols` lists.
pub(crate) const HTTP_VERSIONS: Kind = Kind::Choice(&["http/1.1", "h2"]);

pub(crate) static LISTENER: Section = Section {
    path: "listeners[]",
    id: "listener",
    doc: "A socket that clients connect to. Names and addresses are unique.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text,
            default: "required",
            doc: "What rules call it; also its label in metrics.",
            example: "\
listeners:
  - name: web
    address: 127.0.0.1:8080
",
        },
        Key {
            name: "address",
            kind: Kind::ListenAddress,
            default: "required",
            doc: "IP address and port. A port alone means every address, IPv6 and IPv4. Port 0 takes any \
                  free one.",
            example: "\
listeners:
  - name: web
    address: 8080
  - name: inside
    address: \"[::1]:8081\"
",
        },
        Key {
            name: "protocol",
            kind: Kind::Choice(&["http", "https"]),
            default: "`http`, or `https` if there is `tls`",
            doc: "`http` is HTTP/1.0, HTTP/1.1 and, by prior knowledge, HTTP/2. `https` is the same over \
                  TLS, HTTP/2 by ALPN.",
            example: "\
listeners:
  - name: web
    address: 127.0.0.1:8080
    protocol: http
",
        },
        Key {
            name: "protocols",
            kind: Kind::List(&HTTP_VERSIONS),
            default: "both",
            doc: "Which versions of HTTP are spoken: `http/1.1` (and HTTP/1.0), `h2` (HTTP/2). Over TLS they \
                  are what ALPN offers; without TLS a port for `h2` alone takes HTTP/2 by prior knowledge \
                  and closes any other connection.",
            example: "\
listeners:
  - name: grpc
    address: 127.0.0.1:8080
    protocols: [h2]
",
        },
        Key {
            name: "tls",
            kind: Kind::Object(&LISTENER_TLS),
            default: "none",
            doc: "Certificates for https. Without a usable certificate there is no listener: it never \
                  falls back to plain HTTP.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
",
        },
        Key {
            name: "trustedHops",
            kind: Kind::List(&Kind::Network),
            default: "the `trustedHops` of the file",
            doc: "Networks whose X-Forwarded-* and Forwarded headers are kept and appended to. An empty \
                  list trusts nobody.",
            example: "\
listeners:
  - name: behind-balancer
    address: 127.0.0.1:8080
    trustedHops: [10.0.0.0/8]
",
        },
    ],
};

pub(crate) static LISTENER_TLS: Section = Section {
    path: "listeners[].tls",
    id: "listenerTls",
    doc: "How TLS ends at a listener. TLS 1.0 and 1.1 do not exist here.",
    keys: &[
        Key {
            name: "certificates",
            kind: Kind::List(&Kind::Object(&CERTIFICATE)),
            default: "required",
            doc: "Chosen by the name that the client asks for (SNI): an exact name before a wildcard, of \
                  wildcards the longest, and of several for one name the first. Where none fits, or none \
                  was asked for, `defaultCertificate` says what happens. The files are watched, and a \
                  renewed certificate is used without closing a connection.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/example.net.pem
          key: tls/example.net.key
        - certificate: tls/example.org.pem
          key: tls/example.org.key
",
        },
        Key {
            name: "defaultCertificate",
            kind: Kind::Choice(&["first", "none"]),
            default: "`first`",
            doc: "What a client gets that asks for a name that no certificate is for, or for none: the first \
                  certificate of the list, or `none`, and the handshake is refused with the alert \
                  unrecognized_name.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      defaultCertificate: none
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
",
        },
        Key {
            name: "minVersion",
            kind: Kind::Choice(&["1.2", "1.3"]),
            default: "`\"1.2\"`",
            doc: "The lowest version of TLS that is accepted.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      minVersion: \"1.3\"
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
",
        },
    ],
};

pub(crate) static CERTIFICATE: Section = Section {
    path: "listeners[].tls.certificates[]",
    id: "certificate",
    doc: "A certificate with its private key. Relative paths begin at the configuration file's directory.",
    keys: &[
        Key {
            name: "certificate",
            kind: Kind::File,
            default: "required",
            doc: "The certificate and the chain behind it, PEM, its own first.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: /etc/tls/cert.pem
          key: /etc/tls/key.pem
",
        },
        Key {
            name: "key",
            kind: Kind::File,
            default: "required",
            doc: "The private key, PEM (PKCS#8, PKCS#1 or SEC1).",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
",
        },
        Key {
            name: "hosts",
            kind: Kind::List(&Kind::HostPattern),
            default: "the names in the certificate",
            doc: "The names that the certificate is used for. `*.example.net` stands for one label more, \
                  `**.example.net` for one or more, `*` for every name and none.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
          hosts: [shop.example.net, \"*.shop.example.net\"]
",
        },
        Key {
            name: "clientCertificates",
            kind: Kind::Object(&CLIENT_CERTIFICATES),
            default: "none are asked for",
            doc: "Clients of these names must show a certificate. A request for a host whose clients must \
                  show something else than those of the name that the connection was made for gets 421.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
          clientCertificates:
            authorities: tls/clients-ca.pem
",
        },
    ],
};

pub(crate) static CLIENT_CERTIFICATES: Section = Section {
    path: "listeners[].tls.certificates[].clientCertificates",
    id: "clientCertificates",
    doc: "Which certificates clients must show. Sessions resume only where the same is asked for.",
    keys: &[
        Key {
            name: "authorities",
            kind: Kind::File,
            default: "required",
            doc: "A PEM file; a client's certificate must be issued by one of the authorities in it, or stand \
                  in it itself. The file is watched.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
          clientCertificates:
            authorities: tls/clients-ca.pem
",
        },
        Key {
            name: "optional",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "With `true` a client that shows no certificate is let in as well; one that shows a bad one \
                  is not.",
            example: "\
listeners:
  - name: secure
    address: 127.0.0.1:8443
    tls:
      certificates:
        - certificate: tls/cert.pem
          key: tls/key.pem
          clientCertificates:
            authorities: tls/clients-ca.pem
            optional: true
",
        },
    ],
};
