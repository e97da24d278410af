//! The port for metrics and health, if the configuration has one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::info;

use crate::broker::Broker;
use crate::exit::{Exit, Failed};
use crate::net::listen::{self, Bound};
use crate::net::strangers::Strangers;
use crate::web::server::HttpServer;
use crate::web::{autoconfiguration, monitoring};

/// The port from the configuration, with its server, if it is open.
#[derive(Default)]
pub struct Monitoring(Option<(SocketAddr, HttpServer)>);

/// A change of the port.
pub enum MetricsChange {
    None,
    Close,
    /// Open this one, and close any other.
    Open(SocketAddr, TcpListener),
}

impl Monitoring {
    /// Binds the port if it is not open yet. If this fails, nothing else has changed.
    pub fn prepare(&self, wanted: Option<SocketAddr>) -> Result<MetricsChange, Failed> {
        match wanted {
            _ if wanted == self.0.as_ref().map(|(configured, _)| *configured) => Ok(MetricsChange::None),
            None => Ok(MetricsChange::Close),
            Some(address) => {
                let failed = |error| Failed::new(Exit::Os, format!("cannot listen on {address} for metrics: {error}"));
                listen::bind(address).map(|listener| MetricsChange::Open(address, listener)).map_err(failed)
            }
        }
    }

    pub fn put(&mut self, change: MetricsChange, broker: &Arc<Broker>, strangers: &Arc<Strangers>) {
        match change {
            MetricsChange::None => {}
            MetricsChange::Close => self.0 = None,
            MetricsChange::Open(configured, listener) => {
                // A bound socket has an address, which differs from the configured one only for port 0.
                let address = listener.local_addr().unwrap_or(configured);
                info!(%address, "serving metrics on {address}");
                let router =
                    monitoring::router(Arc::clone(broker)).merge(autoconfiguration::router(Arc::clone(broker)));
                self.0 = Some((configured, HttpServer::new(vec![Bound::Tcp(listener)], &router, strangers)));
            }
        }
    }
}
