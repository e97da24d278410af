//! Where commands go: to the running daemon, or to the vault itself when none runs.

use std::sync::Arc;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control, Reply, Request, Status};
use crate::exit::{Exit, Failed};
use crate::vault::{StoreError, Vault, VaultError};

/// Carries requests to the one who holds the vault.
pub enum Hand<'a> {
    /// The running daemon.
    Daemon(&'a Config),
    /// This process.
    Own(Box<Control>),
}

impl<'a> Hand<'a> {
    /// Finds the daemon, or opens the vault.
    pub async fn reach(config: &'a Config) -> Result<Self, Failed> {
        let daemon = Self::Daemon(config);
        if daemon.try_ask(&Request::Status).await?.is_some() {
            return Ok(daemon);
        }
        match Vault::open_in_turn(&config.state_dir).await {
            // A daemon that was about to start has won.
            Err(VaultError::Store(StoreError::InUse(_))) if daemon.try_ask(&Request::Status).await?.is_some() => {
                Ok(daemon)
            }
            vault => {
                let broker = Arc::new(Broker::new(Arc::new(config.clone()), vault?, Clock::System));
                Ok(Self::Own(Box::new(Control::new(broker))))
            }
        }
    }

    /// Has a request done.
    pub async fn ask(&self, request: Request) -> Result<Reply, Failed> {
        let reply = match self {
            Self::Own(control) => Some(control.answer(request).await),
            Self::Daemon(_) => self.try_ask(&request).await?,
        };
        match reply {
            Some(Reply::Failed(failed)) => Err(failed),
            Some(reply) => Ok(reply),
            None => Err(Failed::new(Exit::Temporary, "the daemon has just stopped; try again")),
        }
    }

    /// What is served, and how the accounts are.
    pub async fn status(&self) -> Result<Status, Failed> {
        self.ask(Request::Status).await?.status()
    }

    async fn try_ask(&self, request: &Request) -> Result<Option<Reply>, Failed> {
        let Self::Daemon(config) = self else { return Ok(None) };
        ask_daemon(config, request).await
    }
}

/// Has the daemon do something. None if none runs.
pub async fn ask_daemon(config: &Config, request: &Request) -> Result<Option<Reply>, Failed> {
    let socket = &config.control_socket;
    control::ask(socket, request)
        .await
        .map_err(|error| Failed::new(Exit::Os, format!("the daemon at {} cannot be asked: {error}", socket.display())))
}
