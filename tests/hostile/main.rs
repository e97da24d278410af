//! Hostile clients and mail servers, on real connections: `docs/design/threat-model.md`, "Bad input", says which test
//! belongs to which row.
//!
//! The transcripts test what a dialogue makes of bytes, split at every position. These tests show that nothing else
//! happens: no connection to a provider, no write, no session that notices, no memory.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod floods;
mod handshakes;
mod servers;
