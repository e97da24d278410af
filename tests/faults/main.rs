//! postkey between networks and servers that fail in every way: what the client hears, how soon, and what is left behind.
//!
//! Hours pass in milliseconds: the timers of a test are moved on while the sockets stay real. So no limit is made shorter
//! for a test, and there is no setting for it.

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
