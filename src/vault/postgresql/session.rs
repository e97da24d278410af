//! One connection to the database.
//!
//! Every operation has a limit of time, because a network that fails often only falls silent. The server, on the other hand,
//! keeps a session for two minutes after it has fallen silent, so that a lock outlives an interruption.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use tokio_rustls::rustls::ClientConfig;

use super::error::DatabaseError;
use super::tls::DatabaseTls;
use crate::config::database::{DatabaseConfig, DatabaseHost};
use crate::resolver::Resolver;
use crate::secret::Secret;

/// How long an operation may take, and a connection from the lookup of the name to the end of the login.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Settings of each session. A commit is on the server's stable storage when it is confirmed. A statement that the client no
/// longer waits for ends. A session ends only when nothing has been heard of the client for 60 s + 6 · 10 s, however the
/// server is configured.
const SETTINGS: &str = "-c synchronous_commit=on -c statement_timeout=4000 -c lock_timeout=4000 \
     -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6 -c tcp_user_timeout=0 \
     -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=10000 -c client_min_messages=warning";

/// Reads the password for the database, again for each connection; None if it needs none.
pub type ReadPassword = Box<dyn Fn() -> ReadingPassword + Send + Sync>;
pub type ReadingPassword = Pin<Box<dyn Future<Output = Result<Option<Secret>, String>> + Send>>;

/// A database, and what it takes to connect to it.
pub struct Database {
    pub config: DatabaseConfig,
    /// None if the connection is not encrypted, because it does not leave this machine.
    tls: Option<Arc<ClientConfig>>,
    read_password: ReadPassword,
    resolver: Resolver,
}

/// A connection to the database.
pub struct ServerSession {
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    pub fn new(config: DatabaseConfig, tls: Option<Arc<ClientConfig>>, read_password: ReadPassword) -> Self {
        Self { config, tls, read_password, resolver: Resolver::system() }
    }

    /// Connects and logs in. The server's notifications go to `listener`.
    pub async fn connect(&self, listener: Option<UnboundedSender<String>>) -> Result<ServerSession, DatabaseError> {
        timeout(LIMIT, self.try_connect(listener)).await.unwrap_or_else(|_| Err(DatabaseError::silent()))
    }

    async fn try_connect(&self, listener: Option<UnboundedSender<String>>) -> Result<ServerSession, DatabaseError> {
        let mut settings = self.settings().await?;
        if let Some(password) = (self.read_password)().await.map_err(DatabaseError::Refused)? {
            settings.password(password.expose());
        }
        let failed = |error: tokio_postgres::Error| DatabaseError::of(&error);
        match &self.tls {
            Some(tls) => {
                let (client, connection) = settings.connect(DatabaseTls(Arc::clone(tls))).await.map_err(failed)?;
                Ok(ServerSession { client, driver: tokio::spawn(drive(connection, listener)) })
            }
            None => {
                let (client, connection) = settings.connect(NoTls).await.map_err(failed)?;
                Ok(ServerSession { client, driver: tokio::spawn(drive(connection, listener)) })
            }
        }
    }

    /// The settings without the password.
    async fn settings(&self) -> Result<Config, DatabaseError> {
        let DatabaseConfig { host, port, user, database, .. } = &self.config;
        let mut settings = Config::new();
        settings.user(user).dbname(database).port(*port).application_name("postkey").options(SETTINGS);
        settings.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        settings.keepalives_idle(LIMIT).keepalives_interval(LIMIT / 2).keepalives_retries(2);
        settings.tcp_user_timeout(2 * LIMIT);
        match host {
            DatabaseHost::Folder(folder) => drop(settings.host_path(folder)),
            DatabaseHost::Name(name) => {
                let addresses = self.resolver.lookup(name).await;
                for address in addresses.map_err(|error| DatabaseError::Away(error.to_string()))? {
                    settings.host(name).hostaddr(address);
                }
            }
        }
        Ok(settings)
    }
}

impl ServerSession {
    /// Waits for an operation. If it takes too long, nobody knows whether it takes effect, and the connection is given up.
    pub async fn limited<T>(
        &self,
        operation: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DatabaseError> {
        match timeout(LIMIT, operation).await {
            Ok(result) => result.map_err(|error| DatabaseError::of(&error)),
            Err(_) => {
                self.give_up();
                Err(DatabaseError::silent())
            }
        }
    }

    /// Closes the connection at once.
    pub fn give_up(&self) {
        self.driver.abort();
    }

    pub fn is_alive(&self) -> bool {
        !self.client.is_closed() && !self.driver.is_finished()
    }

    /// Checks that the server still has this session, and so its locks.
    pub async fn verify(&self) -> Result<(), DatabaseError> {
        self.limited(self.client.simple_query("select 1")).await.map(drop)
    }
}

/// Moves bytes between the client and the server until the connection ends.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<Socket, T>,
    listener: Option<UnboundedSender<String>>,
) {
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if let (AsyncMessage::Notification(notification), Some(listener)) = (message, &listener) {
            // This fails if nobody listens any more.
            let _gone = listener.send(notification.payload().to_owned());
        }
    }
}
