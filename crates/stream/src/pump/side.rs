//! What a connection that is carried must be able to do. Must not know how it is carried.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// One side of a connection that is carried.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket, while what is read from it is what would be read here.
    fn source(&self) -> Option<&TcpStream>;

    /// The socket, while what is written to it is what would be written here. Its close ends what is written then.
    fn sink(&self) -> Option<&TcpStream>;

    /// The socket below it, for its options, whatever stands in between.
    fn socket(&self) -> Option<&TcpStream>;

    /// Makes the close that follows a reset, so that nobody takes what came before it for complete. Where that fails it
    /// is closed in the usual way.
    fn reset_on_close(&self);
}

impl Side for TcpStream {
    fn source(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn sink(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn reset_on_close(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Side for net::dial::Stream {
    fn source(&self) -> Option<&TcpStream> {
        Self::source(self)
    }

    fn sink(&self) -> Option<&TcpStream> {
        Self::sink(self)
    }

    fn socket(&self) -> Option<&TcpStream> {
        Self::socket(self)
    }

    fn reset_on_close(&self) {
        Self::reset_on_close(self);
    }
}
