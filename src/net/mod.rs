//! Sockets and TLS.

pub mod connection;
pub mod listen;
pub mod tls;
pub mod transport;
