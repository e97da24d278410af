//! Where commands go: to the running daemon, or directly to the vault if none runs.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::terminal::complain;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control, ControlReply, ControlRequest, Status};
use crate::exit::{Exit, Failed};
use crate::vault::{Degradation, StoreError, Vault, VaultError};

/// Sends requests to whichever process has the vault open.
pub enum AdminClient<'a> {
    /// A daemon runs with this configuration.
    Daemon(&'a Config),
    /// No daemon runs, so this process has opened the vault.
    Own(Box<Control>),
}

impl<'a> AdminClient<'a> {
    /// Connects to the daemon, or opens the vault if none runs.
    pub async fn connect(config: &'a Config) -> Result<Self, Failed> {
        let daemon = Self::Daemon(config);
        let runs = async || ask_daemon::<Value>(config, &ControlRequest::Greet).await.map(|answer| answer.is_some());
        if runs().await? {
            return Ok(daemon);
        }
        match Vault::open_in_turn(&config.state_dir).await {
            // A daemon that was just starting opened the vault first.
            Err(VaultError::Store(StoreError::InUse(_))) if runs().await? => Ok(daemon),
            vault => {
                // Whatever is only in memory is lost when this process ends.
                let broker = Arc::new(Broker::new(Arc::new(config.clone()), vault?, Clock::System, true));
                Ok(Self::Own(Box::new(Control::new(broker))))
            }
        }
    }

    /// Sends a request and returns its answer, whose type is the one that [`ControlRequest`] names.
    pub async fn ask<T: DeserializeOwned>(&self, request: ControlRequest) -> Result<T, Failed> {
        let is_change = request.is_change();
        // Show the findings even if the tokens that they needed could not be stored.
        let finds_out = matches!(request, ControlRequest::Test { .. } | ControlRequest::Examine { .. });
        let answer = self.have_done(request).await?;
        if is_change {
            match self.check_stored().await {
                Err(failed) if finds_out => complain(failed.message),
                stored => stored?,
            }
        }
        Ok(answer)
    }

    /// A change that is not on stable storage yet stays in the daemon's memory. Without a daemon it is lost.
    async fn check_stored(&self) -> Result<(), Failed> {
        match (self, self.have_done::<Option<Degradation>>(ControlRequest::Greet).await?) {
            (_, None) => Ok(()),
            (Self::Daemon(_), Some(trouble)) => {
                complain(format_args!(
                    "the change is only in the daemon's memory, which will store it as soon as it can: {}",
                    trouble.why
                ));
                Ok(())
            }
            (Self::Own(_), Some(trouble)) => Err(Failed::new(
                Exit::Io,
                format!("cannot store the change: {}; fix that, and run the command again", trouble.why),
            )),
        }
    }

    async fn have_done<T: DeserializeOwned>(&self, request: ControlRequest) -> Result<T, Failed> {
        match self {
            Self::Own(control) => control::read(answer(control, request).await?),
            Self::Daemon(config) => ask_daemon(config, &request)
                .await?
                .ok_or_else(|| Failed::new(Exit::Temporary, "the daemon has just stopped; try again")),
        }
    }

    /// The listeners, and the state of the accounts.
    pub async fn status(&self) -> Result<Status, Failed> {
        self.have_done(ControlRequest::Status).await
    }
}

/// Answers a request in this process. An interrupt ends it once no refresh is under way, so that new tokens are stored.
async fn answer(control: &Control, request: ControlRequest) -> ControlReply {
    let reply = tokio::select! {
        reply = control.answer(request) => reply,
        _ = tokio::signal::ctrl_c() => Err(Failed::new(Exit::Temporary, "interrupted; nothing was lost")),
    };
    control.broker.refresher.rest().await;
    reply
}

/// Sends a request that only a daemon can answer.
pub async fn ask_running<T: DeserializeOwned>(config: &Config, request: &ControlRequest) -> Result<T, Failed> {
    let answer = ask_daemon(config, request).await?;
    answer.ok_or_else(|| Failed::new(Exit::Unavailable, "no daemon runs; start it with `postkey`"))
}

/// Sends a request to the daemon. Returns None if none runs.
async fn ask_daemon<T: DeserializeOwned>(config: &Config, request: &ControlRequest) -> Result<Option<T>, Failed> {
    let socket = &config.control_socket;
    let owner = std::fs::metadata(&config.state_dir).ok().map(|folder| folder.uid());
    let reply = control::ask(socket, owner, request)
        .await
        .map_err(|error| Failed::new(Exit::Os, format!("cannot ask the daemon at {}: {error}", socket.display())))?;
    reply.map(|reply| control::read(reply?)).transpose()
}
