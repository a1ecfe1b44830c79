//! Layer 7: serve, match, forward.
//!
//! [`Program`] is a snapshot made ready; [`Shared`] is what all workers have in common; [`listen`] serves a socket on
//! a worker. A request goes [`serve`] (the client's protocol) → [`routing`] (which rule) → [`forward`] (to an
//! endpoint and back). [`head`] and [`h1`] are HTTP/1 itself, strict; [`stream`] is a body in motion; [`health`] asks
//! endpoints whether they can serve, on the control runtime. Must not know where configuration comes from, nor raw
//! TCP services.

mod access_log;
mod client;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod h1;
pub mod head;
pub mod health;
mod io;
mod program;
pub mod routing;
mod serve;
mod shared;
pub mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod way;
mod worker;

pub use access_log::AccessLog;
pub use health::Prober;
pub use program::Program;
pub use serve::{Listening, listen};
pub use shared::Shared;
pub use way::Upstreams;
pub use worker::Worker;
