//! Sockets and TLS.

pub mod connection;
pub mod dial;
pub mod listen;
pub mod tls;
pub mod transport;
