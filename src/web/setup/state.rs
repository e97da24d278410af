//! The state that all pages share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::entrance::Entrance;
use super::hosts::OwnHosts;
use super::setups::Setups;
use crate::control::{Control, ControlRequest, Status, read};
use crate::exit::Failed;
use crate::mutex::lock;

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

    /// Notes that the pages are in use.
    pub fn touch(&self) {
        *lock(&self.last_use) = Instant::now();
    }

    /// Has the pages closed.
    pub fn close(&self) {
        self.closing.notify_one();
    }

    /// Returns when a person wants the pages closed, or has not used them for half an hour.
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

    /// The listeners, and the state of the accounts.
    pub async fn status(&self) -> Result<Status, Failed> {
        read(&self.control.answer(ControlRequest::Status).await?)
    }
}
