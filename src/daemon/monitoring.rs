//! The port for metrics and health, if the configuration has one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::info;

use crate::broker::Broker;
use crate::exit::{Exit, Failed};
use crate::net::listen;
use crate::net::strangers::Strangers;
use crate::web::monitoring;
use crate::web::server::HttpServer;

/// The open port, if there is one.
#[derive(Default)]
pub struct Monitoring {
    configured: Option<SocketAddr>,
    server: Option<HttpServer>,
}

/// A change of the port.
pub enum MetricsChange {
    /// Keep it as it is.
    None,
    /// Close it.
    Close,
    /// Open this one, and close any other.
    Open(SocketAddr, TcpListener),
}

impl Monitoring {
    /// Binds the port if it is not open yet. If this fails, nothing else has changed.
    pub fn prepare(&self, wanted: Option<SocketAddr>) -> Result<MetricsChange, Failed> {
        match wanted {
            _ if wanted == self.configured => Ok(MetricsChange::None),
            None => Ok(MetricsChange::Close),
            Some(address) => {
                let failed = |error| Failed::new(Exit::Os, format!("cannot listen on {address} for metrics: {error}"));
                listen::bind(address).map(|listener| MetricsChange::Open(address, listener)).map_err(failed)
            }
        }
    }

    /// Applies the change.
    pub fn put(&mut self, change: MetricsChange, broker: &Arc<Broker>, strangers: &Arc<Strangers>) {
        match change {
            MetricsChange::None => {}
            MetricsChange::Close => {
                self.server = None;
                self.configured = None;
            }
            MetricsChange::Open(configured, listener) => {
                // It is bound, so it has an address. That differs from the configured one only if any free port was
                // requested.
                let address = listener.local_addr().unwrap_or(configured);
                info!(%address, "serving metrics on {address}");
                self.server = Some(HttpServer::new(vec![listener], &monitoring::router(Arc::clone(broker)), strangers));
                self.configured = Some(configured);
            }
        }
    }
}
