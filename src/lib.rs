//! postkey gives any mail program OAuth 2.0.
//!
//! A mail program connects to localhost by IMAP, POP3 or SMTP and logs in with an app password. postkey checks it, logs
//! in to the provider with an access token, and relays bytes. This page is the map; `docs/design/architecture.md` has
//! the reasons, and `docs/design/glossary.md` the words.
//!
//! # Layers
//!
//! A module uses the modules in the lines below its own; `tests/layers.rs` checks that.
//!
//! - [`cli`]: what a user can type
//! - [`daemon`]: listeners, start, reload and shutdown
//! - [`web`]: the pages for browsers
//! - [`authorization`]: getting an account's tokens with a person
//! - [`session`], [`control`]: the ways in for mail programs and commands
//! - [`examination`]: `postkey doctor`
//! - [`login`]: the provider's half of a login
//! - [`broker`], [`relay`]: the one owner of accounts and tokens; the bytes after a login
//! - [`certificates`], [`visit`]: the certificates of TLS listeners, and postkey's own authority; connections to mail
//!   servers until the relay
//! - [`downstream`], [`upstream`], [`oauth`], [`vault`], [`net`], [`log`], [`notify`], [`confine`]: the dialogues with
//!   mail programs and with providers, which are pure; grants; sealed records; sockets and TLS; the log; notifications;
//!   the sandbox
//! - [`wire`], [`token`], [`config`], [`proxy`], [`programs`]: what the layers above share, and the settings of mail programs
//! - [`secret`], [`protocol`], [`name`], [`clock`], [`mutex`] and other leaves
//!
//! # One login
//!
//! 1. `daemon/clients.rs` accepts the connection, and [`net::strangers`] decides whether there is a place for it. If it is
//!    a load balancer's, [`net::balancer`] first reads whose it is.
//! 2. [`session::serve`] greets, and [`downstream`] turns the client's lines into [`wire::Credentials`].
//! 3. [`broker::Broker::resolve`] finds out what the login name stands for, once.
//! 4. [`broker::Passwords::unlock`] checks the password against the account's slots in the [`vault`].
//! 5. [`login::log_in`] connects to the provider's server while [`broker::Refresher::bearer`] gets a fresh token. If logins
//!    keep coming, [`visit::spare`] has a connection ready.
//! 6. [`broker::OpenAccount::attempt`] decides whether this login may send the token now; [`upstream`] sends it and reads
//!    the answer.
//! 7. The session answers the client with the provider's acceptance, or with a [`wire::Refusal`] in its protocol's
//!    code.
//! 8. [`relay::relay`] moves bytes until both sides have ended.
//!
//! # One refresh
//!
//! `broker/refresh.rs` is the story. `broker/state.rs` decides that a refresh has to begin, and one task makes it for
//! all that wait. [`oauth::grant`] asks the authorization server, `oauth/outcome.rs` reads the answer by its content,
//! and [`vault::Vault::keep`] has the new token set on stable storage before it is used.
//!
//! # One import
//!
//! `cli/import/mod.rs` is the story: `source.rs` recognizes the files of other programs, one module for each format reads
//! them, `plan.rs` decides what becomes of each account, and `lock.rs` opens tokens with the mail program's password.
//! `cli/authorize/taken_over.rs` then refreshes them once, as an authorization does.
//!
//! # One authorization
//!
//! [`authorization`] has what it takes, for the terminal and for pages: `plan.rs` finds the client, `consent.rs` or
//! `unattended.rs` gets the tokens, and `identity.rs` checks who has signed in and makes the first refresh.
//! `cli/authorize/mod.rs` is the story on the terminal, and `web/setup/adding.rs` the one on pages.
//! [`control`] carries the result to the daemon, or to a vault that no daemon uses. The page of a first login does the
//! same in [`web`] and `broker/first_login.rs`.

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
pub mod authorization;
pub mod broker;
pub mod carried;
pub mod certificates;
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
pub mod mutex;
pub mod name;
pub mod net;
pub mod notify;
pub mod oauth;
pub mod pasted;
pub mod process_group;
pub mod programs;
pub mod protocol;
pub mod proxy;
pub mod random;
pub mod relay;
pub mod resolver;
pub mod secret;
pub mod session;
pub mod shutdown;
pub mod token;
pub mod upstream;
pub mod vault;
pub mod visit;
pub mod web;
pub mod wire;
pub mod x509;

#[cfg(test)]
#[path = "../tests/support/skipped.rs"]
mod skipped;
