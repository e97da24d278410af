//! The pages for browsers, and the endpoints for monitoring.

pub mod autoconfiguration;
pub mod beginning;
pub mod first_login;
pub mod monitoring;
mod origin;
pub mod page;
pub mod redirect;
pub mod server;
pub mod setup;
