//! An API server that does what a test tells it: what a watch makes of answers that a good one seldom gives.
//!
//! Only one kind is followed, and every answer ends its connection, so that the number of a connection is the number
//! of a request. Start at [`Followed`].

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cloverleaf_kubernetes::objects::Key;
use cloverleaf_kubernetes::{Cluster, Options, Selection, Source, translate};
use testkit::upstream::{Step, Upstream};

/// Nothing here takes longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A source that follows the Secrets of one name, and the server that it asks.
struct Followed {
    server: Upstream,
    source: Source,
    _folder: tempfile::TempDir,
}

impl Followed {
    /// Each request gets the answer that `answers` has for its number.
    async fn start(answers: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let server = Upstream::scripted(move |request| {
            let mut steps = vec![Step::ReadHead];
            steps.extend(answers(request));
            steps
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let address = server.address();
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}]}}"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let cluster = Cluster::connect(Some(&kubeconfig)).await.unwrap();
        let key = Key { namespace: "a".into(), name: "certificate".into() };
        let options = Options {
            selection: Selection { secrets: vec![key], ..Selection::default() },
            translate: translate::Options::default(),
            state: None,
            report: None,
        };
        Self { server, source: Source::start(&cluster, options), _folder: folder }
    }

    /// How many objects are known.
    fn known(&self) -> usize {
        self.source.health.watches[0].count()
    }

    fn error(&self) -> String {
        self.source.health.watches[0].error().unwrap_or_default()
    }

    /// What was asked for, each by what tells it from the others.
    fn asked(&self) -> Vec<String> {
        let ask = |request: String| {
            let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let value = |name: &str| {
                let (_, rest) = target.split_once(&format!("{name}="))?;
                Some(rest.split('&').next().unwrap_or_default().to_owned())
            };
            match (value("watch"), value("continue")) {
                (Some(_), _) => format!("watch {}", value("resourceVersion").unwrap_or_default()),
                (None, Some(token)) => format!("list {token}"),
                (None, None) => "list".to_owned(),
            }
        };
        (0..self.server.connections())
            .map(|request| String::from_utf8_lossy(&self.server.received(request)).into_owned())
            .filter(|request| !request.is_empty())
            .map(ask)
            .collect()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            let known = (self.error(), self.asked());
            assert!(begun.elapsed() < PATIENCE, "{what}: {known:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn answer(status: &str, body: &str) -> Vec<Step> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n");
    vec![Step::send(head + body), Step::Close]
}

fn secret(name: &str, version: &str) -> String {
    format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{{\"namespace\":\"a\",\"name\":\"{name}\",\
         \"uid\":\"{name}\",\"resourceVersion\":\"{version}\"}},\"data\":{{\"tls.key\":\"VE9QU0VDUkVU\"}}}}"
    )
}

/// A list, or a page of one.
fn list(version: &str, names: &[&str], next_page: &str) -> Vec<Step> {
    let items: Vec<String> = names.iter().map(|name| secret(name, version)).collect();
    let body = format!(
        "{{\"kind\":\"SecretList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\",\
         \"continue\":\"{next_page}\"}},\"items\":[{}]}}",
        items.join(",")
    );
    answer("200 OK", &body)
}

/// A watch that says so much and ends by `end`.
fn watch(events: &[(&str, String)], end: Vec<Step>) -> Vec<Step> {
    let mut body = String::new();
    for (kind, object) in events {
        let _ = writeln!(body, "{{\"type\":\"{kind}\",\"object\":{object}}}");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let mut steps = vec![Step::send(head.to_owned() + &body)];
    steps.extend(end);
    steps
}

fn status(code: u16, reason: &str) -> String {
    format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"status\":\"Failure\",\
         \"message\":\"it is so\",\"reason\":\"{reason}\",\"code\":{code}}}"
    )
}

/// For a watch on which nothing more happens.
fn quiet() -> Vec<Step> {
    watch(&[], vec![Step::Hang])
}

#[tokio::test]
async fn a_version_that_is_too_old_is_listed_again_and_what_vanished_goes() {
    let followed = Followed::start(|request| match request {
        0 => list("10", &["one", "two"], ""),
        1 => {
            let events = [("ADDED", secret("three", "11")), ("ERROR", status(410, "Expired"))];
            watch(&events, vec![Step::Close])
        }
        2 => list("20", &["two"], ""),
        _ => quiet(),
    })
    .await;
    followed.until("four requests", |f| f.asked().len() == 4 && f.known() == 1).await;
    assert_eq!(followed.asked(), ["list", "watch 10", "list", "watch 20"]);
}

/// An API server whose lists are always too old for its watches is asked at a measured pace, not in a circle.
#[tokio::test]
async fn versions_that_are_always_too_old_do_not_make_a_storm() {
    let followed = Followed::start(|request| match request % 2 {
        0 => list("10", &["one"], ""),
        _ => answer("410 Gone", &status(410, "Expired")),
    })
    .await;
    followed.until("a second list", |f| f.asked().len() > 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = followed.asked();
    // Waits of at least 125, 250, 500, 1000 ms: in 2 s no more than five lists, each with its watch.
    assert!(asked.len() <= 12, "{} requests: {asked:?}", asked.len());
    assert_eq!(followed.known(), 1, "what was listed is served meanwhile");
}

#[tokio::test]
async fn a_list_that_breaks_between_pages_begins_anew_and_loses_nothing() {
    let followed = Followed::start(|request| match request {
        0 => list("10", &["one", "two"], "page-2"),
        1 => answer("410 Gone", &status(410, "Expired")),
        2 => list("11", &["one", "two"], "page-2"),
        3 => list("11", &["three"], ""),
        _ => quiet(),
    })
    .await;
    followed.until("the watch", |f| f.asked().len() == 5).await;
    assert_eq!(followed.asked(), ["list", "list page-2", "list", "list page-2", "watch 11"]);
    followed.until("three objects", |f| f.known() == 3).await;
}

/// Its end, as the API server ends every watch after a time, costs no list; a bookmark moves the version on.
#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let followed = Followed::start(|request| match request {
        0 => list("10", &["one"], ""),
        1 => watch(&[("MODIFIED", secret("one", "12"))], vec![Step::Close]),
        2 => {
            let bookmark = "{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":\
                            {\"resourceVersion\":\"30\",\"creationTimestamp\":null}}";
            watch(&[("BOOKMARK", bookmark.to_owned())], vec![Step::Close])
        }
        _ => quiet(),
    })
    .await;
    followed.until("four requests", |f| f.asked().len() == 4).await;
    assert_eq!(followed.asked(), ["list", "watch 10", "watch 12", "watch 30"]);
}

#[tokio::test]
async fn what_is_not_understood_is_asked_again_and_never_shown() {
    let followed = Followed::start(|request| match request {
        0 => answer("200 OK", "{\"items\":[{\"data\":\"TOPSECRET\"}]"),
        1 => answer("500 Internal Server Error", "out of order"),
        2 => list("10", &["one"], ""),
        3 => watch(
            &[("ADDED", secret("two", "11")), ("ADDED", "\"TOPSECRET\"".to_owned())],
            vec![Step::Close],
        ),
        _ => quiet(),
    })
    .await;
    let shown = |f: &Followed| f.error().contains("TOPSECRET") || f.error().contains("VE9Q");
    followed.until("five requests", |f| f.asked().len() == 5 || shown(f)).await;
    assert_eq!(followed.asked()[3..], ["watch 10", "watch 11"]);
    assert!(!shown(&followed), "{}", followed.error());
    followed.until("both", |f| f.known() == 2).await;
}
