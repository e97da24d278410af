//! postkey as a service: the program itself, under our own service manager.

#[path = "../support/mod.rs"]
mod support;

mod manager;

mod activation;
mod alerts;
mod journal;
mod machine;
mod monitoring;
mod notify;
mod reload;
mod stop;
mod units;
mod watchdog;
