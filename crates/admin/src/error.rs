//! What can go wrong with the admin port.

use std::net::SocketAddr;

/// Why there is no admin port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another socket has the address.
    #[error(
        "the admin address {address} is in use by another program; choose another with \
         --admin-address, or close the port with --admin-address off"
    )]
    InUse {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address cannot be listened on for another reason: no such address here, no permission.
    #[error("cannot listen on {address}, the address of --admin-address")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime does not take the socket.
    #[error("cannot serve the admin port on {address}")]
    Serve {
        /// Where it listens.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}
