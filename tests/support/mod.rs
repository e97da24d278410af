//! An OAuth-only mail provider: one authorization server and three mail servers on loopback, in this process.
//!
//! It shares no dialogue code with postkey, so that each side notices the other's mistakes. It is stricter than
//! providers in the field: lines end in CRLF, limits of the RFCs hold, and a SASL error challenge wants its exact
//! answer.

#![allow(dead_code, unused_imports, reason = "every test uses another part of it")]

pub mod assertions;
mod authorization_server;
pub mod browser;
pub mod canaries;
pub mod client;
mod connection;
mod device;
mod grants;
pub mod house;
mod imap;
mod imap_fetch;
mod introduction;
mod mailbox;
mod person;
mod pop3;
pub mod process;
mod program;
pub mod proxy;
mod sasl;
mod settings;
pub mod skipped;
mod smtp;
pub mod tls;
pub mod tmpfs;
mod waiting;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use postkey::protocol::{Protocol, Security};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use grants::Grants;
use mailbox::Mailboxes;
pub use person::Person;
pub use settings::{Attempt, IdToken, Log, MailServer, Publishes, Settings, TokenEndpoint};

/// What never changes at a provider.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its mailboxes, in lower case.
    pub addresses: Vec<String>,
    /// The one registered client.
    pub client_id: String,
    /// Its secret. Without one the client is public, and sending any secret is an error.
    pub client_secret: Option<String>,
    /// An assertion that somebody else has signed for the client, its only authentication.
    pub federated: Option<String>,
    /// Whether the client has to sign an assertion for each request.
    pub signs: bool,
    /// Every mailbox's own password, for the password grant.
    pub password: String,
    /// Whether the authorization server uses https; otherwise it uses http.
    pub https: bool,
}

/// Three mailboxes, a public client, http.
impl Default for Options {
    fn default() -> Self {
        Self {
            addresses: vec!["ann@example.test".into(), "ben@example.test".into(), "office@example.test".into()],
            client_id: "client-of-the-tests".into(),
            client_secret: None,
            federated: None,
            signs: false,
            password: "the mailbox's own".into(),
            https: false,
        }
    }
}

/// What all servers of a provider share.
struct Service {
    options: Options,
    /// The authorization server's address, which is also its issuer identifier, without a slash at its end.
    issuer: String,
    settings: Mutex<Settings>,
    log: Mutex<Log>,
    grants: Mutex<Grants>,
    mailboxes: Mailboxes,
    tls: TlsAcceptor,
    keys: introduction::Keys,
    /// Changes when all connections to the mail servers are ended.
    hang_ups: watch::Sender<()>,
    /// Clients that have registered themselves, each with its secret and its redirect URI.
    registered: Mutex<Vec<introduction::Registered>>,
}

impl Service {
    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Whether this delegate may open this mailbox.
    fn is_shared(&self, mailbox: &str, delegate: &str, protocol: Protocol) -> bool {
        let shared = &lock(&self.settings).shared;
        protocol != Protocol::Smtp
            && shared.iter().any(|(one, other)| (one.as_str(), other.as_str()) == (mailbox, delegate))
    }
}

/// A running provider; dropping it ends its servers and all their connections.
pub struct Provider {
    service: Arc<Service>,
    ports: Vec<(Protocol, Security, u16)>,
    identity: tls::Identity,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Provider {
    /// Starts all servers, each on a free port of 127.0.0.1. Panics if the machine does not allow it.
    pub async fn start(options: Options) -> Self {
        let identity = tls::identity();
        let folder = write_files(&options, &identity);
        let (web, web_port) = listen().await;
        let scheme = if options.https { "https" } else { "http" };
        let service = Arc::new(Service {
            issuer: format!("{scheme}://localhost:{web_port}"),
            settings: Mutex::default(),
            log: Mutex::default(),
            grants: Mutex::default(),
            mailboxes: Mailboxes::new(&options.addresses),
            tls: identity.acceptor.clone(),
            keys: introduction::Keys::new(),
            registered: Mutex::default(),
            hang_ups: watch::Sender::default(),
            options,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(authorization_server::serve(service.clone(), web));
        let mut ports = Vec::new();
        for protocol in Protocol::ALL {
            for security in [Security::Tls, Security::StartTls] {
                let (listener, port) = listen().await;
                tasks.spawn(connection::serve(service.clone(), protocol, security, listener));
                ports.push((protocol, security, port));
            }
        }
        Self { service, ports, identity, folder, _tasks: tasks }
    }

    /// The section `[provider.NAME]` of postkey's configuration.
    pub fn config_toml(&self, name: &str, security: Security) -> String {
        let Options { addresses, client_id, client_secret, .. } = &self.service.options;
        let mut domains: Vec<_> = addresses.iter().filter_map(|address| address.split('@').nth(1)).collect();
        domains.sort();
        domains.dedup();
        let issuer = &self.service.issuer;
        let ca_file = self.ca_file();
        let mut toml = format!(
            "[provider.{name}]\ndomains = {domains:?}\nauthorization_endpoint = \"{issuer}/authorize\"\n\
             token_endpoint = \"{issuer}/token\"\nrevocation_endpoint = \"{issuer}/revoke\"\n\
             issuer = \"{issuer}\"\nscope = [\"mail\", \"openid\", \"email\"]\n\
             client_id = \"{client_id}\"\nredirect_uri = \"http://127.0.0.1/\"\n\
             mechanisms = [\"XOAUTH2\", \"OAUTHBEARER\"]\nca_file = {ca_file:?}\n"
        );
        if client_secret.is_some() {
            toml += &format!("client_secret.file = {:?}\n", self.client_secret_file());
        }
        for protocol in Protocol::ALL {
            let (port, table, security) = (self.port(protocol, security), protocol.name(), security.name());
            toml += &format!(
                "\n[provider.{name}.{table}]\nhost = \"localhost\"\nport = {port}\nsecurity = \"{security}\"\n"
            );
        }
        toml
    }

    /// The port of a mail server.
    pub fn port(&self, protocol: Protocol, security: Security) -> u16 {
        let found = self.ports.iter().find(|(one, other, _)| (*one, *other) == (protocol, security));
        found.expect("a mail server speaks either TLS or STARTTLS").2
    }

    /// The authorization server's address, without a slash at its end; also its issuer identifier (RFC 9207).
    pub fn issuer(&self) -> &str {
        &self.service.issuer
    }

    /// The certificate authority that signed all its servers' certificates, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.identity.ca_pem
    }

    /// Accepts TLS connections as its servers do, for a test with another server.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.identity.acceptor.clone()
    }

    /// The file with [`Self::ca_pem`].
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The file with the client's secret, if it has one.
    pub fn client_secret_file(&self) -> PathBuf {
        self.folder.path().join("client-secret")
    }

    /// Somebody with a browser.
    pub fn person(&self) -> Person {
        Person::new(self.http_client())
    }

    /// Trusts [`Self::ca_pem`] and nothing else, and follows no redirects.
    pub fn http_client(&self) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.identity.client_config())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client with a ready TLS configuration")
    }

    /// Changes how the servers behave from now on.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.service.settings));
    }

    /// A new grant without anybody's consent: its access token and its refresh token.
    pub fn grant(&self, address: &str) -> (String, String) {
        self.grant_for(address, "mail")
    }

    /// The same for a scope.
    pub fn grant_for(&self, address: &str, scope: &str) -> (String, String) {
        let tokens = lock(&self.service.grants).grant(address, scope, &self.service.settings());
        (tokens.access_token, tokens.refresh_token.expect("a new grant has a refresh token"))
    }

    /// Knows a grant for mail from long ago, of which only the refresh token is left.
    pub fn adopt(&self, address: &str, refresh_token: &str) {
        lock(&self.service.grants).adopt(address, "mail", refresh_token);
    }

    /// From now on the mail servers refuse all access tokens issued so far. Refresh tokens stay valid.
    pub fn revoke_access_tokens(&self) {
        lock(&self.service.grants).revoke_access_tokens();
    }

    /// Ends everything that this person has consented to, with all tokens.
    pub fn end_grant(&self, address: &str) {
        lock(&self.service.grants).end(address);
    }

    /// Everything that the authorization server remembers, for [`Self::remember`].
    pub fn memory(&self) -> Grants {
        lock(&self.service.grants).clone()
    }

    /// Takes the authorization server back to an earlier moment.
    pub fn remember(&self, memory: Grants) {
        *lock(&self.service.grants) = memory;
    }

    /// The clients that have registered themselves, by their ids.
    pub fn registered(&self) -> Vec<String> {
        lock(&self.service.registered).iter().map(|one| one.client_id.clone()).collect()
    }

    /// Forgets all clients that have registered themselves.
    pub fn forget_registered(&self) {
        lock(&self.service.registered).clear();
    }

    /// The grant types of all token requests, in order.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.service.log).requests.clone()
    }

    /// The scopes of all token requests, in order.
    pub fn scopes(&self) -> Vec<String> {
        lock(&self.service.log).scopes.clone()
    }

    /// What each revocation request was about.
    pub fn revocations(&self) -> Vec<String> {
        lock(&self.service.log).revocations.clone()
    }

    /// The number of token requests with this grant type.
    pub fn token_requests(&self, grant_type: &str) -> usize {
        lock(&self.service.log).requests.iter().filter(|one| *one == grant_type).count()
    }

    /// Every valid assertion that the token endpoint has received, in order.
    pub fn assertions(&self) -> Vec<assertions::Assertion> {
        lock(&self.service.log).assertions.clone()
    }

    /// How many connections a mail server has had.
    pub fn connections(&self, protocol: Protocol) -> usize {
        lock(&self.service.log).connections.iter().filter(|one| **one == protocol).count()
    }

    /// Ends all connections to the mail servers at once.
    pub fn hang_up(&self) {
        self.service.hang_ups.send_replace(());
    }

    /// The login attempts at a mail server, in order.
    pub fn attempts(&self, protocol: Protocol) -> Vec<Attempt> {
        lock(&self.service.log).attempts.iter().filter(|one| one.protocol == protocol).cloned().collect()
    }

    /// Every code, verifier and token that has passed through its token endpoint or was issued in another way, and its
    /// client's secret.
    pub fn secrets(&self) -> Vec<String> {
        let issued = lock(&self.service.grants).secrets.clone();
        issued.into_iter().chain(self.service.options.client_secret.clone()).collect()
    }

    /// The messages in a mailbox, in the order of their arrival.
    pub fn mailbox(&self, address: &str) -> Vec<Vec<u8>> {
        self.service.mailboxes.messages(address).into_iter().map(|message| message.bytes).collect()
    }

    /// Puts a message into a mailbox, as if it came from elsewhere. False if there is no such mailbox.
    pub fn deliver(&self, address: &str, message: &[u8]) -> bool {
        self.service.mailboxes.deliver(address, message, &[]).is_some()
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    (listener, port)
}

fn write_files(options: &Options, identity: &tls::Identity) -> TempDir {
    let folder = TempDir::new().expect("a folder for temporary files");
    std::fs::write(folder.path().join("ca.pem"), &identity.ca_pem).expect("a file in our own folder");
    if let Some(secret) = &options.client_secret {
        std::fs::write(folder.path().join("client-secret"), secret).expect("a file in our own folder");
    }
    folder
}

/// Locks, even if another test's thread has panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `bytes` of randomness, base64url.
fn random(bytes: usize) -> String {
    use base64::Engine;
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).expect("the system's randomness");
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(buffer)
}
