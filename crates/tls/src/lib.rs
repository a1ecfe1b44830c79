//! TLS at both ends: termination for clients (certificates by SNI, their own verified, ALPN, resumption)
//! and verified connections to upstreams.
//!
//! The only crate that names rustls; nothing of rustls shows in its interface. It must not know sockets,
//! listeners, HTTP or configuration formats: it turns any byte stream into an encrypted one. Deadlines
//! belong to the caller, who drops the future. Files are read each time something is loaded and never
//! cached, so that loading the same snapshot again takes up new certificates.
//!
//! Start at [`Termination`] for the side that faces clients and at [`ClientTls`] for the side that faces
//! upstreams.

mod accept;
mod client;
mod domain;
mod leaf;
mod pem;
mod provider;
mod sni;
mod stream;
mod termination;
mod verify;
mod verify_client;

pub use accept::{AcceptError, AcceptErrorKind, Refused, looks_like_http};
pub use client::{ClientStream, ClientTls, ConnectError, ConnectErrorKind};
pub use domain::ClientDomain;
pub use stream::{Protocol, ServerStream};
pub use termination::Termination;
