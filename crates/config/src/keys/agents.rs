//! The keys of an agent policy, a file of its own: `tunnel server --agent-policy`. Not part of the gateway's reference;
//! docs/tunnel.md has them.

use super::{Key, Kind, Section};

pub(crate) static AGENT_POLICY: Section = Section {
    path: "",
    id: "agentPolicy",
    doc: "Which agents of a tunnel may claim what.",
    keys: &[Key {
        name: "agents",
        kind: Kind::List(&Kind::Object(&AGENT_RULE)),
        default: "required",
        doc: "An agent that none of them means is refused.",
        example: "",
    }],
};

const fn text(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Text, default: "", doc, example: "" }
}

const fn list(name: &'static str, of: &'static Kind, doc: &'static str) -> Key {
    Key { name, kind: Kind::List(of), default: "none", doc, example: "" }
}

pub(crate) static AGENT_RULE: Section = Section {
    path: "agents[]",
    id: "agentRule",
    doc: "Whom it means, and what these may claim.",
    keys: &[
        text("commonName", "A common name of the certificate's subject."),
        text("dnsName", "A DNS name among the certificate's alternative names."),
        text("uri", "A URI among the certificate's alternative names."),
        text("serviceAccount", "The service account of the token, as `namespace/name`."),
        list("agentIds", &Kind::Text, "Names that it may call itself; without it any."),
        list("host", &Kind::Text, "Hosts: a text, `*.name` or `*`."),
        list("ipv4", &Kind::Network, "Networks of IPv4 addresses."),
        list("ipv6", &Kind::Network, "Networks of IPv6 addresses."),
        list("cidr", &Kind::Network, "Networks."),
        Key {
            name: "defaultRoute",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "It may take what nobody else is for.",
            example: "",
        },
    ],
};
