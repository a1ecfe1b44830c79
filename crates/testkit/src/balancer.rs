//! A load balancer for TCP, as stands in front of several servers: each connection goes to the next of them that takes
//! it. Plain threads; must not know what is carried.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One that runs. Dropped, it takes no server any more, and connections go on.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    /// Listens on any port of this address.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn listen(ip: IpAddr, servers: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let servers = Arc::new(Mutex::new(servers.to_vec()));
        let known = servers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), known) = (stream, known.clone()) else { continue };
                std::thread::spawn(move || serve(&stream, &known));
            }
        });
        Self { address, servers }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go to these from now on.
    pub fn set(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.set(&[]);
    }
}

fn serve(client: &TcpStream, servers: &Mutex<Vec<SocketAddr>>) {
    let all = {
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.is_empty() {
            return;
        }
        servers.rotate_left(1);
        servers.clone()
    };
    let connect = |address: &SocketAddr| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).ok();
    let Some(server) = all.iter().find_map(connect) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
}

/// One direction, to its end, which the other side is told.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    if std::io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn connections_go_to_servers_in_turn_and_never_to_one_that_is_gone() {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let says = |text: &'static str| {
            let listener = TcpListener::bind((local, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let _ = std::io::Write::write_all(&mut &stream, text.as_bytes());
                }
            });
            address
        };
        let gone = TcpListener::bind((local, 0)).unwrap().local_addr().unwrap();
        let balancer = Balancer::listen(local, &[says("a"), gone, says("b")]);
        let ask = || {
            let mut text = String::new();
            let mut stream = TcpStream::connect(balancer.address()).unwrap();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let said: Vec<String> = (0..6).map(|_| ask()).collect();
        assert!(said.iter().all(|text| text == "a" || text == "b"), "{said:?}");
        assert!(said.contains(&"a".to_owned()) && said.contains(&"b".to_owned()), "{said:?}");
        balancer.set(&[]);
        assert_eq!(ask(), "");
    }
}
