//! postkey as a whole, over plain sockets, between mail programs and a provider of our own.
//!
//! One program for all subjects, because it is linked once, and its tests share the machine's cores.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod alive;
mod alone;
mod authorize;
mod authorize_many;
mod autoconfiguration;
mod command_line;
mod crowd;
mod deadline;
mod defects;
mod doctor;
mod first_login;
mod first_login_attacks;
mod forgetting;
mod goodbye;
mod grants;
mod guessing;
mod http;
mod identity;
mod introduction;
mod leaving;
mod load_balancers;
mod login;
mod names;
mod no_login;
mod own_certificates;
mod ownership;
mod people;
mod pipelining;
mod process;
mod proxies;
mod redirect;
mod refusals;
mod relay;
mod revoked;
mod secrets;
mod setup_account;
mod setup_page;
mod spares;
mod strangers;
mod throttles;
mod tokens;
mod trace;
mod unix_sockets;
mod upgrade;
mod users;
mod vault;
