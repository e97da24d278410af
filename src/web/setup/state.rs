//! The state that all pages share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::entrance::Entrance;
use super::hosts::OwnHosts;
use super::setups::Setups;
use crate::broker::AccountStatus;
use crate::certificates::certificate_authority_der;
use crate::control::{Control, ControlRequest, Status, read};
use crate::exit::{Exit, Failed};
use crate::mutex::lock;
use crate::programs::Served;

/// The pages close after this time without use.
const IDLE: Duration = Duration::from_secs(30 * 60);

pub struct SetupState {
    pub control: Arc<Control>,
    pub entrance: Entrance,
    pub hosts: OwnHosts,
    /// The accounts that are being set up.
    pub setups: Setups,
    last_use: Mutex<Instant>,
    closing: Notify,
}

impl SetupState {
    pub fn new(control: Arc<Control>, hosts: OwnHosts) -> Self {
        Self {
            control,
            entrance: Entrance::new(),
            hosts,
            setups: Setups::default(),
            last_use: Mutex::new(Instant::now()),
            closing: Notify::new(),
        }
    }

    /// Restarts the idle timeout.
    pub fn touch(&self) {
        *lock(&self.last_use) = Instant::now();
    }

    /// Closes the pages.
    pub fn close(&self) {
        self.closing.notify_one();
    }

    /// Returns after a request to close the pages, or after half an hour without use.
    pub async fn ended(&self) {
        loop {
            let end = *lock(&self.last_use) + IDLE;
            if end <= Instant::now() {
                return;
            }
            tokio::select! {
                () = self.closing.notified() => return,
                () = sleep_until(end) => {}
            }
        }
    }

    /// Carries out a request. Returns the answer, of the type that [`ControlRequest`] names.
    pub async fn ask<T: DeserializeOwned>(&self, request: ControlRequest) -> Result<T, Failed> {
        read(&self.control.answer(request).await?)
    }

    /// Returns the listeners, and the state of the accounts.
    pub async fn status(&self) -> Result<Status, Failed> {
        self.ask(ControlRequest::Status).await
    }

    /// Returns the account with this address, in any spelling, with the state of everything.
    pub async fn account(&self, address: &str) -> Result<(Status, AccountStatus), Failed> {
        let status = self.status().await?;
        let address = self.control.broker.resolve(address).address;
        let account = status.account(&address).cloned();
        let missing =
            || Failed::new(Exit::NoUser, format!("there is no account {address}; add it on the page Add an account"));
        account.map(|account| (status, account)).ok_or_else(missing)
    }

    /// Returns an account with the listeners through which mail programs reach it.
    pub fn served(&self, status: Status, account: &AccountStatus) -> Served {
        let config = self.control.broker.config();
        let mut served = Served::new(&config, status.listeners, &account.address, Some(account.provider.clone()));
        served.authority = certificate_authority_der(&config);
        served
    }
}
