//! TLS at both ends: termination for clients (certificates by SNI, their own verified, ALPN, resumption),
//! verified connections to upstreams, and connections between equals.
//!
//! The only crate that names rustls; nothing of rustls shows in its interface. It must not know sockets,
//! listeners, HTTP or configuration formats: it turns any byte stream into an encrypted one. Deadlines
//! belong to the caller, who drops the future. Files are read each time something is loaded, so that loading
//! the same snapshot again takes up new certificates; what has been loaded from the same text and is still in
//! use is shared, and nothing else is kept.
//!
//! Start at [`Termination`] for the side that faces clients, at [`ClientTls`] for the side that faces
//! upstreams, and at [`Mutual`] for connections between equals.

mod accept;
mod certified;
mod client;
mod domain;
mod in_use;
mod incoming;
mod leaf;
mod mutual;
mod names;
mod outgoing;
mod pem;
mod provider;
mod side;
mod signatures;
mod sni;
mod spiffe;
mod stream;
mod suites;
mod termination;
mod verified;
mod verify;
mod verify_client;

pub use accept::{AcceptError, AcceptErrorKind, Refused, looks_like_http};
pub use client::{ClientStream, ClientTls, ConnectError, ConnectErrorKind};
pub use domain::ClientDomain;
pub use mutual::{
    Admitted, Credentials, Mutual, MutualError, MutualErrorKind, host_key, looks_like_tls,
};
pub use names::ClientNames;
pub use spiffe::{ID_BYTES_MAX, SpiffePattern};
pub use stream::{Protocol, ServerStream};
pub use suites::{CipherSuites, SuitesError};
pub use termination::Termination;
