//! Sockets and TLS.

pub mod balancer;
pub mod certificate;
pub mod connection;
pub mod dial;
pub mod listen;
pub mod mx;
pub mod peer;
mod proxy;
pub mod strangers;
pub mod systemd;
pub mod tls;
pub mod trace;
pub mod transport;
pub mod unix;
