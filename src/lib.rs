//! postkey gives any mail program OAuth 2.0.

#![forbid(unsafe_code)]
// What comes from outside must not be able to end a session, let alone the daemon.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

pub mod address;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confine;
pub mod control;
pub mod daemon;
pub mod downstream;
pub mod examination;
pub mod exit;
pub mod guard;
pub mod log;
pub mod login;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod oauth;
pub mod process_group;
pub mod protocol;
pub mod proxy;
pub mod relay;
pub mod resolver;
pub mod secret;
pub mod session;
pub mod stop;
pub mod token;
pub mod upstream;
pub mod vault;
pub mod web;
pub mod wire;
