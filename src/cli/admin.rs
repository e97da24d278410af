//! Sends a command's requests to the running daemon, or carries them out itself if none runs.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny};

use super::terminal::{complain, say};
use crate::broker::{Broker, open_vault};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control, ControlReply, ControlRequest, Status};
use crate::exit::{Exit, Failed};
use crate::vault::{Degradation, StoreError, VaultError};

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
        let runs =
            async || ask_daemon::<IgnoredAny>(config, &ControlRequest::Greet).await.map(|answer| answer.is_some());
        if runs().await? {
            return Ok(daemon);
        }
        match open_vault(config).await {
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
        let is_check = matches!(request, ControlRequest::Test { .. } | ControlRequest::Examine { .. });
        let answer = self.send(request).await?;
        if is_change {
            match self.check_stored().await {
                Err(failed) if is_check => complain(failed.message),
                stored => stored?,
            }
        }
        Ok(answer)
    }

    /// A change that is not on stable storage yet stays in the daemon's memory. Without a daemon it is lost.
    async fn check_stored(&self) -> Result<(), Failed> {
        match (self, self.send::<Option<Degradation>>(ControlRequest::Greet).await?) {
            (_, None) => Ok(()),
            (Self::Daemon(_), Some(Degradation { why, .. })) => {
                complain(format_args!(
                    "the change is only in the daemon's memory; the daemon will store it as soon as it can: {why}"
                ));
                Ok(())
            }
            (Self::Own(_), Some(Degradation { why, .. })) => Err(Failed::new(
                Exit::Io,
                format!("cannot store the change: {why}; fix that, and run the command again"),
            )),
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: ControlRequest) -> Result<T, Failed> {
        match self {
            Self::Own(control) => control::read(&answer(control, request).await?),
            Self::Daemon(config) => ask_daemon(config, &request)
                .await?
                .ok_or_else(|| Failed::new(Exit::Temporary, "the daemon has just stopped; try again")),
        }
    }

    /// The listeners, and the state of the accounts.
    pub async fn status(&self) -> Result<Status, Failed> {
        self.send(ControlRequest::Status).await
    }
}

/// Carries out a request in this process. After an interrupt it still waits for a refresh that is under way, so that
/// the new tokens are stored.
async fn answer(control: &Control, request: ControlRequest) -> ControlReply {
    let reply = tokio::select! {
        reply = control.answer(request) => reply,
        _ = tokio::signal::ctrl_c() => Err(Failed::new(Exit::Temporary, "interrupted; no tokens were lost")),
    };
    control.broker.refresher.wait().await;
    reply
}

/// Sends a request that only a daemon can answer.
pub async fn ask_running<T: DeserializeOwned>(config: &Config, request: &ControlRequest) -> Result<T, Failed> {
    let answer = ask_daemon(config, request).await?;
    answer.ok_or_else(control::no_daemon)
}

pub async fn reload(config: &Config) -> Result<(), Failed> {
    ask_running::<()>(config, &ControlRequest::Reload).await?;
    say("Configuration reloaded.");
    Ok(())
}

pub async fn set_log_filter(config: &Config, filter: String) -> Result<(), Failed> {
    ask_running(config, &ControlRequest::Log(filter)).await
}

pub async fn metrics(config: &Config) -> Result<(), Failed> {
    say(ask_running::<String>(config, &ControlRequest::Metrics).await?.trim_end());
    Ok(())
}

/// Sends a request to the daemon. Returns None if none runs.
pub async fn ask_daemon<T: DeserializeOwned>(config: &Config, request: &ControlRequest) -> Result<Option<T>, Failed> {
    let socket = &config.control_socket;
    let owner = std::fs::metadata(&config.state_dir).ok().map(|folder| folder.uid());
    let reply = control::ask(socket, owner, request).await.map_err(|error| {
        Failed::new(Exit::Os, format!("cannot talk to the daemon at {}: {error}", socket.display()))
    })?;
    reply.map(|reply| control::read(&reply?)).transpose()
}
