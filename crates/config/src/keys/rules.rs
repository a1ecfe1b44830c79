//! The keys of `rules`.

use super::{Key, Kind, Section};

pub(crate) static RULE: Section = Section {
    path: "rules[]",
    id: "rule",
    doc: "Which requests, and where they go. Rules are tried in the order of the file; the first one whose \
          host and path both fit decides.",
    keys: &[
        Key {
            name: "upstream",
            kind: Kind::Text,
            default: "required, unless there are `upstreams`",
            doc: "Name of the upstream that gets the requests. If there is none of that name the file is \
                  served with a warning, and requests that fit no other rule get 503.",
            example: "\
rules:
  - upstream: shop
    path: /
",
        },
        Key {
            name: "upstreams",
            kind: Kind::List(&Kind::Object(&RULE_UPSTREAM)),
            default: "the one that `upstream` names",
            doc: "Several upstreams that share the requests by weight, instead of one. Those that do not \
                  exist are left out with a warning.",
            example: "\
rules:
  - path: /
    upstreams:
      - upstream: shop
        weight: 95
      - upstream: shop-next
        weight: 5
",
        },
        Key {
            name: "path",
            kind: Kind::UrlPath,
            default: "every path",
            doc: "The path of the request, compared as `matchMode` says: without the query, with percent \
                  escapes decoded, with regard to case.",
            example: "\
rules:
  - upstream: shop
    path: /cart
",
        },
        Key {
            name: "matchMode",
            kind: Kind::LenientChoice(&["prefix", "exact", "segments"]),
            default: "`prefix`",
            doc: "`prefix`: the path begins with these characters, so `/api` fits `/apis` too. `exact`: it \
                  is these characters. `segments`: its first segments are these, so `/api` fits `/api` and \
                  `/api/x`, but not `/apis`. With any other word the rule never matches, and there is a \
                  warning.",
            example: "\
rules:
  - upstream: shop
    path: /cart
    matchMode: segments
",
        },
        Key {
            name: "host",
            kind: Kind::HostPattern,
            default: "every host",
            doc: "The host of the request, without regard to case, port or a trailing dot. `*.example.net` \
                  fits names with one label more, `**.example.net` with one or more. A host with a port \
                  never matches, and there is a warning.",
            example: "\
rules:
  - upstream: shop
    path: /
    host: \"*.example.net\"
",
        },
        Key {
            name: "stripPath",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Remove the part of the path that matched before the request is sent on: with path \
                  `/cart`, `/cart/items` becomes `/items`.",
            example: "\
rules:
  - upstream: shop
    path: /cart
    stripPath: true
",
        },
        Key {
            name: "name",
            kind: Kind::Text,
            default: "`rules[N]`, counted from 0",
            doc: "Its label in metrics and logs. Must be unique.",
            example: "\
rules:
  - name: cart
    upstream: shop
    path: /cart
",
        },
        Key {
            name: "listeners",
            kind: Kind::List(&Kind::Text),
            default: "all of them",
            doc: "Names of the listeners that the rule is for.",
            example: "\
listeners:
  - name: inside
    address: 127.0.0.1:8080
  - name: outside
    address: 127.0.0.1:8081
rules:
  - upstream: shop
    path: /stock
    listeners: [inside]
",
        },
        Key {
            name: "responseTimeout",
            kind: Kind::Duration { zero: false },
            default: "the upstream's `responseTimeout`, else `timeouts.response`",
            doc: "From the request being sent until the head of the response; 504 beyond it.",
            example: "\
rules:
  - upstream: shop
    path: /reports
    responseTimeout: 5m
",
        },
    ],
};

pub(crate) static RULE_UPSTREAM: Section = Section {
    path: "rules[].upstreams[]",
    id: "ruleUpstream",
    doc: "One of the upstreams that share the requests of a rule.",
    keys: &[
        Key {
            name: "upstream",
            kind: Kind::Text,
            default: "required",
            doc: "Name of the upstream.",
            example: "\
rules:
  - path: /
    upstreams:
      - upstream: shop
      - upstream: shop-next
",
        },
        Key {
            name: "weight",
            kind: Kind::Integer(0, 65535),
            default: "1",
            doc: "Its share of the requests beside the others' of the rule; 0 gets none. Not all may be 0.",
            example: "\
rules:
  - path: /
    upstreams:
      - upstream: shop
        weight: 1
      - upstream: shop-next
        weight: 0
",
        },
    ],
};
