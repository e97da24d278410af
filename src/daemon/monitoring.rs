//! The port for metrics and health, where the configuration has one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::info;

use crate::broker::Broker;
use crate::exit::{Exit, Failed};
use crate::net::listen;
use crate::web::monitoring;

/// The open port, if there is one.
#[derive(Default)]
pub struct Monitoring {
    configured: Option<SocketAddr>,
    /// Ends when it is dropped.
    task: JoinSet<()>,
}

/// What is to be done about it.
pub enum Change {
    /// Nothing.
    None,
    /// It closes.
    Close,
    /// It is opened, and any other closes.
    Open(SocketAddr, TcpListener),
}

impl Monitoring {
    /// Binds the port if it is not open yet. Nothing else has changed if this fails.
    pub fn prepare(&self, wanted: Option<SocketAddr>) -> Result<Change, Failed> {
        match wanted {
            _ if wanted == self.configured => Ok(Change::None),
            None => Ok(Change::Close),
            Some(address) => {
                let failed = |error| Failed::new(Exit::Os, format!("cannot listen on {address} for metrics: {error}"));
                listen::bind(address).map(|listener| Change::Open(address, listener)).map_err(failed)
            }
        }
    }

    /// Does it.
    pub fn put(&mut self, change: Change, broker: &Arc<Broker>) {
        match change {
            Change::None => {}
            Change::Close => {
                self.task.abort_all();
                self.configured = None;
            }
            Change::Open(configured, listener) => {
                // Bound, so it has one; the configured one differs only where the port is a free one.
                let address = listener.local_addr().unwrap_or(configured);
                info!(%address, "serving metrics");
                self.task.abort_all();
                self.task.spawn(monitoring::serve(listener, Arc::clone(broker)));
                self.configured = Some(configured);
            }
        }
    }
}
