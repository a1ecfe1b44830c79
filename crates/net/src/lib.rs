//! Sockets and threads: everything between the kernel and a byte stream.
//!
//! [`listen`] binds, [`worker`] runs the threads that serve, [`dial`] connects (with [`resolve`] for names),
//! [`timer`] bounds waits cheaply, [`task`] is the only way to start a task. Must not know HTTP, TLS, rules or any
//! file format. Start at [`worker::Workers`] for the threads, at [`dial::Dialer`] for the way out.

pub mod dial;
pub mod listen;
pub mod resolve;
pub mod task;
pub mod timer;
pub mod worker;
