//! postkey between networks and servers that fail in every way: what the client receives, how soon, and what is left
//! over.
//!
//! Hours pass in milliseconds: the tests advance their timers, while the sockets stay real. So no limit is shortened
//! for a test, and no setting exists for that.

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod clock;
mod doctor;
mod front;
mod mail_servers;
mod proxies;
mod relays;
mod server;
mod token_endpoint;
mod watch;
