//! A client's connection from its acceptance to its end, whatever it speaks.
//!
//! [`accept`] takes connections off a listening socket and does TLS; [`h1`] and [`h2`] (with [`h2_stream`])
//! speak to the client. They turn what they read into the same heads and bodies for [`crate::forward`].
//! Must not know rules or upstreams.

mod accept;
mod h1;
mod h2;
mod h2_pipe;
mod h2_stream;

pub use accept::{Listening, listen};
