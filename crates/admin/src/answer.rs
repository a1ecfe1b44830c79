//! From a request to its answer: which page, or why none.
//!
//! Choosing ([`choose`]) is pure; only [`answer`] asks the [`Provider`], on the blocking pool. Must
//! not know sockets.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;

use crate::guard::{self, Hosts, Refusal};
use crate::metrics::{self, Format};
use crate::{Provider, Readiness, process};

/// What the dashboard may do: load its own style and script, and fetch from here. Nothing inline,
/// nothing foreign.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The pages there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Health,
    Ready,
    Metrics(Format),
    Config,
    State,
    /// A file of the dashboard: its type and text.
    File(&'static str, &'static str),
}

/// A request that gets no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Denied(StatusCode, &'static str);

/// Answers one request. Dropping the future leaves a page that is being made to end on its thread, unseen.
pub(crate) async fn answer<B: Body>(
    request: Request<B>,
    provider: Arc<dyn Provider>,
    hosts: Hosts,
) -> Response<Full<Bytes>> {
    let has_body = !request.body().is_end_stream();
    let (parts, _) = request.into_parts();
    match choose(&parts, has_body, hosts) {
        Err(denied) => refuse(denied, has_body),
        Ok(page) => {
            // Making a page may take milliseconds, and the provider may have bugs: neither may stop
            // this thread.
            let made = tokio::task::spawn_blocking(move || make(page, provider.as_ref())).await;
            made.unwrap_or_else(|_| {
                tracing::error!(
                    path = parts.uri.path(),
                    "making an admin page failed; this is a bug"
                );
                let denied = Denied(StatusCode::INTERNAL_SERVER_ERROR, "making this page failed");
                refuse(denied, false)
            })
        }
    }
}

fn choose(parts: &Parts, has_body: bool, hosts: Hosts) -> Result<Page, Denied> {
    guard::check(&parts.uri, &parts.headers, parts.version, hosts).map_err(
        |refusal| match refusal {
            Refusal::Malformed => {
                Denied(StatusCode::BAD_REQUEST, "the request needs one valid Host")
            }
            Refusal::Foreign => Denied(
                StatusCode::FORBIDDEN,
                "on a loopback address the admin port answers only to an IP address or localhost as Host",
            ),
        },
    )?;
    let page = page(parts).ok_or(Denied(
        StatusCode::NOT_FOUND,
        "no such page; there are /healthz /readyz /metrics /config /state and /",
    ))?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Denied(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed"));
    }
    if has_body {
        return Err(Denied(StatusCode::BAD_REQUEST, "requests here have no body"));
    }
    Ok(page)
}

fn page(parts: &Parts) -> Option<Page> {
    Some(match parts.uri.path() {
        "/healthz" => Page::Health,
        "/readyz" => Page::Ready,
        "/metrics" => {
            let accept = parts.headers.get_all(header::ACCEPT).iter();
            let accept: Vec<&str> = accept.filter_map(|v| v.to_str().ok()).collect();
            Page::Metrics(Format::for_accept(&accept.join(",")))
        }
        "/config" => Page::Config,
        "/state" => Page::State,
        "/" => Page::File("text/html; charset=utf-8", include_str!("dashboard/index.html")),
        "/dashboard.css" => {
            Page::File("text/css; charset=utf-8", include_str!("dashboard/dashboard.css"))
        }
        "/dashboard.js" => {
            Page::File("text/javascript; charset=utf-8", include_str!("dashboard/dashboard.js"))
        }
        _ => return None,
    })
}

fn make(page: Page, provider: &dyn Provider) -> Response<Full<Bytes>> {
    match page {
        Page::Health => reply(StatusCode::OK, TEXT, "ok\n"),
        Page::Ready => match provider.readiness() {
            Readiness::Ready => reply(StatusCode::OK, TEXT, "ready\n"),
            Readiness::NotReady(reasons) => {
                let text = format!("not ready\n{}\n", reasons.join("\n"));
                reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
            }
        },
        Page::Metrics(format) => {
            let mut families = provider.metrics();
            families.extend(process::families());
            reply(StatusCode::OK, format.content_type(), metrics::encode(families, format))
        }
        Page::Config => json(&provider.config()),
        Page::State => json(&provider.state()),
        Page::File(kind, text) => reply(StatusCode::OK, kind, text),
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    // Indented, for those who look with curl.
    reply(StatusCode::OK, JSON, format!("{value:#}\n"))
}

fn refuse(denied: Denied, close: bool) -> Response<Full<Bytes>> {
    let Denied(status, text) = denied;
    let mut response = reply(status, TEXT, format!("{text}\n"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if close {
        // The body is not read, so nothing can follow it.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, path: &str, host: &str) -> Parts {
        let request = Request::builder().method(method).uri(path).header("host", host);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn pages_and_refusals() {
        let status = |method, path, host, has_body| {
            choose(&parts(method, path, host), has_body, Hosts::Local)
                .map_or_else(|d| d.0.as_u16(), |_| 200)
        };
        for (method, path, host, has_body, expected) in [
            ("GET", "/", "127.0.0.1:1", false, 200),
            ("GET", "/dashboard.js", "localhost", false, 200),
            ("GET", "/dashboard.css", "localhost", false, 200),
            ("HEAD", "/healthz", "[::1]:1", false, 200),
            ("GET", "/metrics?x=1", "127.0.0.1", false, 200),
            ("GET", "/config", "127.0.0.1", false, 200),
            ("GET", "/config", "127.0.0.1", true, 400),
            ("POST", "/state", "127.0.0.1", false, 405),
            ("POST", "/state", "127.0.0.1", true, 405),
            ("OPTIONS", "/state", "127.0.0.1", false, 405),
            ("GET", "/nothing", "127.0.0.1", false, 404),
            ("DELETE", "/nothing", "127.0.0.1", false, 404),
            ("GET", "/../state", "127.0.0.1", false, 404),
            ("GET", "/healthz", "rebound.example", false, 403),
        ] {
            let seen = status(method, path, host, has_body);
            assert_eq!(seen, expected, "{method} {path} at {host}");
        }
    }

    #[test]
    fn the_dashboard_keeps_to_its_policy() {
        let html = include_str!("dashboard/index.html");
        let script = include_str!("dashboard/dashboard.js");
        let style = include_str!("dashboard/dashboard.css");
        for forbidden in ["http:", "https:", "onclick", "style=", "<style", "javascript:"] {
            assert!(!html.contains(forbidden), "{forbidden} in the page");
        }
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!script.contains(forbidden), "{forbidden} in the script");
        }
        assert!(!style.contains("url(") && !style.contains("@import"));
    }
}
