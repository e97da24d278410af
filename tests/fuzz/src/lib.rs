//! The fuzz targets: one function each, with what must be true for every input.
//!
//! A target that returns has found nothing; one that panics has. `tests/fuzz.rs` calls those that need
//! nothing private with random dialogues, so that they are tests on every toolchain.

mod client;
mod cut;
mod parsers;
#[cfg(fuzzing)]
mod private;
mod server;
mod session;

use postkey::protocol::Protocol;

pub use parsers::{config, proxy_header, redirect, sasl};
#[cfg(fuzzing)]
pub use private::{control_request, token_response, vault_record};
pub use session::{relayed, session};

/// The commands of an IMAP client up to its login.
pub fn imap_command(input: &[u8]) {
    client::commands(Protocol::Imap, input);
}

/// The commands of a POP3 client up to its login.
pub fn pop3_command(input: &[u8]) {
    client::commands(Protocol::Pop3, input);
}

/// The commands of an SMTP client up to its login.
pub fn smtp_command(input: &[u8]) {
    client::commands(Protocol::Smtp, input);
}

/// What a provider's IMAP server sends up to our login.
pub fn imap_reply(input: &[u8]) {
    server::replies(Protocol::Imap, input);
}

/// What a provider's POP3 server sends up to our login.
pub fn pop3_reply(input: &[u8]) {
    server::replies(Protocol::Pop3, input);
}

/// What a provider's SMTP server sends up to our login.
pub fn smtp_reply(input: &[u8]) {
    server::replies(Protocol::Smtp, input);
}
