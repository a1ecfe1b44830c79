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
            default: "required, unless there are `upstreams`, `respond`, `redirect` or `close`",
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
            name: "respond",
            kind: Kind::Integer(200, 599),
            default: "none",
            doc: "Answer with this status, and a body that names it, instead of asking an upstream.",
            example: "\
rules:
  - path: /internal
    respond: 404
",
        },
        Key {
            name: "redirect",
            kind: Kind::Object(&REDIRECT),
            default: "none",
            doc: "Send the client elsewhere, instead of asking an upstream: to another scheme, host or port, \
                  and to the path that `stripPath`, `replacePath` or `setPath` makes of the one it asked \
                  for. The query stays. Where only the path changes, `Location` is that path alone, so that \
                  it is right behind any proxy.",
            example: "\
rules:
  - path: /basket
    replacePath: /cart
    redirect:
      status: 308
",
        },
        Key {
            name: "close",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "Close the connection without an answer, as if nobody was there; over HTTP/2 the stream is \
                  reset. Counted and logged as 444.",
            example: "\
rules:
  - upstream: shop
    host: shop.example.net
  - close: true
    fallback: true
",
        },
        Key {
            name: "fallback",
            kind: Kind::Boolean,
            default: "`false`",
            doc: "The rule stands behind all others, wherever it is in the file: it decides only where nothing \
                  else fits.",
            example: "\
rules:
  - upstream: shop-next
    fallback: true
  - upstream: shop
    path: /cart
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
            name: "replacePath",
            kind: Kind::UrlPath,
            default: "none",
            doc: "Put this path in place of the part that matched: with path `/cart` and `/v2/cart` here, \
                  `/cart/items` becomes `/v2/cart/items`. There is never more than one slash at the seam. \
                  Not beside `stripPath` or `setPath`.",
            example: "\
rules:
  - upstream: shop
    path: /cart
    replacePath: /v2/cart
",
        },
        Key {
            name: "setPath",
            kind: Kind::UrlPath,
            default: "none",
            doc: "Put this path in place of the whole path; the query stays. Not beside `stripPath` or \
                  `replacePath`.",
            example: "\
rules:
  - upstream: shop
    path: /favicon.ico
    setPath: /pictures/icon.png
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
        Key {
            name: "maxRequestBody",
            kind: Kind::Size,
            default: "`limits.requestBody`",
            doc: "Bytes that a request's body may have; 413 beyond it. Where the length is said before, the \
                  upstream is not asked. WebSockets and other upgrades are no bodies.",
            example: "\
rules:
  - upstream: shop
    path: /pictures
    maxRequestBody: 10MiB
",
        },
        Key {
            name: "apiKey",
            kind: Kind::Object(&API_KEY),
            default: "none",
            doc: "A secret that requests must bring in a header field; 403 without it.",
            example: "\
rules:
  - upstream: shop
    path: /stock
    apiKey:
      header: X-Api-Key
      valueFile: secrets/api-key
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

pub(crate) static REDIRECT: Section = Section {
    path: "rules[].redirect",
    id: "redirect",
    doc: "Where a rule sends clients. What is not given stays as the client has it; something has to change, \
          here or in the path.",
    keys: &[
        Key {
            name: "scheme",
            kind: Kind::Choice(&["http", "https"]),
            default: "the client's: that of the listener, or what a trusted hop says in `X-Forwarded-Proto`",
            doc: "The scheme of the new URL. With it and without a `port`, the port is the scheme's own.",
            example: "\
listeners:
  - name: plain
    address: :80
  - name: secure
    address: :443
    tls:
      certificates:
        - certificate: cert.pem
          key: key.pem
rules:
  - listeners: [plain]
    redirect:
      scheme: https
      status: 301
",
        },
        Key {
            name: "host",
            kind: Kind::Host,
            default: "the one that the client named",
            doc: "The host of the new URL.",
            example: "\
rules:
  - host: example.net
    redirect:
      host: www.example.net
",
        },
        Key {
            name: "port",
            kind: Kind::Integer(1, 65535),
            default: "the scheme's own if there is a `scheme`, else the one that the client named",
            doc: "The port of the new URL. It is left out where it is the scheme's own.",
            example: "\
rules:
  - path: /admin
    redirect:
      scheme: https
      port: 8443
",
        },
        Key {
            name: "status",
            kind: Kind::Number(&[301, 302, 303, 307, 308]),
            default: "302",
            doc: "The status of the answer. 301 and 308 may be remembered by the client for ever; 307 and 308 \
                  keep the method and the body, 303 makes a GET of any.",
            example: "\
rules:
  - host: old.example.net
    redirect:
      host: example.net
      status: 308
",
        },
    ],
};

pub(crate) static API_KEY: Section = Section {
    path: "rules[].apiKey",
    id: "apiKey",
    doc: "A secret that requests must bring, either in this file or, better, in one of its own. It is never \
          shown. The field goes on to the upstream.",
    keys: &[
        Key {
            name: "header",
            kind: Kind::Text,
            default: "required",
            doc: "Name of the header field. It must stand in the request once.",
            example: "\
rules:
  - upstream: shop
    apiKey:
      header: X-Api-Key
      value: open-sesame
",
        },
        Key {
            name: "value",
            kind: Kind::Text,
            default: "required, unless there is a `valueFile`",
            doc: "The whole value that the field must have.",
            example: "\
rules:
  - upstream: shop
    apiKey:
      header: X-Api-Key
      value: open-sesame
",
        },
        Key {
            name: "valueFile",
            kind: Kind::File,
            default: "required, unless there is a `value`",
            doc: "A file with the value, of at most 4 KiB; a newline at its end does not count. The file is \
                  watched.",
            example: "\
rules:
  - upstream: shop
    apiKey:
      header: X-Api-Key
      valueFile: secrets/api-key
",
        },
    ],
};
