//! Clients and mail servers that mean harm, on real connections: `docs/design/threat-model.md`, "Bad input", says which test
//! is for which row.
//!
//! What a dialogue makes of bytes is tested at every position of a split by the transcripts; here it is that nothing else
//! comes of them: no connection to a provider, no write, no session that notices, no memory.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod floods;
mod servers;
mod starttls;
