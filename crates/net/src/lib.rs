//! Sockets and threads: everything between the kernel and a byte stream.
//!
//! [`listen`] binds, [`worker`] runs the threads that serve, [`dial`] connects (with [`resolve`] for names),
//! [`at_once`] says the first words, [`proxy_protocol`] reads and writes the header that says whose connection it is,
//! [`steer`] has the kernel hand the connections to whole ranges of [`ports`] to one socket, [`listening`] tells who
//! else listens, [`splice`] moves bytes without copying them, [`timer`] bounds waits cheaply, [`pages`] gives back
//! what was only for starting, [`task`] is the only way to start a task. Must not know HTTP, TLS, rules or any file
//! format. Start at [`worker::Workers`] for the threads, at [`dial::Dialer`] for the way out.

pub mod at_once;
pub mod descriptors;
pub mod dial;
pub mod listen;
pub mod listening;
pub mod pages;
pub mod ports;
pub mod proxy_protocol;
pub mod resolve;
pub mod splice;
pub mod steer;
pub mod task;
pub mod timer;
pub mod worker;
