//! Dials whose agent goes, on a clock of their own.

use std::time::Duration;

use super::*;
use crate::http2::RoundTrip;
use crate::link::{Flow, Side};
use crate::server::Mode;

const BOUND: Duration = Duration::from_secs(4);

fn hub() -> Arc<Hub> {
    let settings = Settings {
        mode: Mode::Grpc,
        server_id: "tested".to_owned(),
        server_count: 1,
        strategies: vec![Strategy::Default],
        backend_dial_timeout: Some(BOUND),
        keepalive: Duration::from_secs(30),
        frontend_keepalive: Duration::from_secs(30),
    };
    Hub::new(settings, Admission::default(), 1)
}

/// One that answers nothing.
fn agent(hub: &Hub, name: &str) -> (u64, Arc<Backend>) {
    let carrier = Carrier::new(Side::Server, Flow::Credit, RoundTrip::default());
    let backend = Backend::new(carrier, None);
    (hub.add(name.to_owned(), Identifiers::default(), backend.clone()), backend)
}

#[tokio::test(start_paused = true)]
async fn agents_that_go_make_no_dial_longer() {
    let hub = hub();
    let agents = [agent(&hub, "one"), agent(&hub, "two")];
    let begun = tokio::time::Instant::now();
    let leave = async {
        tokio::time::sleep(BOUND * 3 / 4).await;
        let asked = agents.iter().find(|(_, backend)| backend.pending() == 1);
        let (number, backend) = asked.expect("one of them is asked");
        hub.remove(*number);
        backend.end("the agent has gone");
    };
    let wish = Wish { protocol: "tcp".to_owned(), address: "a.test:1".to_owned(), cluster: None };
    let (answer, ()) = tokio::join!(hub.dial(wish), leave);
    assert_eq!(answer.err(), Some(DialError::Timeout(BOUND)));
    assert_eq!(begun.elapsed(), BOUND);
}
