//! Checks names, ports and certificates of a provider's servers: how far a connection comes, and what stops it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::finding::Finding;
use crate::broker::Connector;
use crate::clock::Moment;
use crate::config::provider::{Endpoints, MailServer};
use crate::exit::Exit;
use crate::login::{no_greeting, other_name};
use crate::net::certificate::{self, Flaw};
use crate::net::connection::Connection;
use crate::net::dial;
use crate::net::trace::{Trace, TracedPeer};
use crate::net::transport::Transport;
use crate::protocol::{Protocol, Security};
use crate::upstream::{self, Approach, Event};
use crate::wire::Capabilities;

/// How long each step may take. A person waits, and a mail program would not wait longer either.
const LIMIT: Duration = Duration::from_secs(10);

/// How many seconds before its expiry a certificate counts as expiring soon: two weeks, by when most have been renewed.
const SOON: u64 = 14 * 24 * 3600;

/// Our EHLO name (RFC 5321 section 4.1.3).
const CLIENT_NAME: &str = "[127.0.0.1]";

/// The subject of the finding about the token endpoint.
pub const TOKEN_ENDPOINT: &str = "token endpoint";

/// The cause that stops a connection: a clause, and what to do.
type Stopped = String;

/// The provider's endpoints, the token endpoint first; only one for each server.
pub fn endpoints(endpoints: &Endpoints) -> Vec<(&'static str, &Url)> {
    let Endpoints { authorization, token, device_authorization, revocation, registration, userinfo, jwks } = endpoints;
    let named = [
        (TOKEN_ENDPOINT, token),
        ("authorization endpoint", authorization),
        ("device endpoint", device_authorization),
        ("userinfo endpoint", userinfo),
        ("issuer's keys", jwks),
        ("revocation endpoint", revocation),
        ("registration endpoint", registration),
    ];
    let mut found: Vec<(&'static str, &Url)> = Vec::new();
    for (name, url) in named.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?))) {
        let server = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
        if !found.iter().any(|(_, other)| server(other) == server(url)) {
            found.push((name, url));
        }
    }
    found
}

/// Connects to an endpoint without a request.
pub async fn endpoint(connector: &Connector, name: &str, url: &Url, now: Moment) -> Finding {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    // An IPv6 address in brackets cannot be looked up.
    let host = host.trim_matches(['[', ']']);
    let security = if url.scheme() == "http" { Security::Clear } else { Security::Tls };
    let reached = async {
        let (transport, way) = connect(connector, host, port, security).await?;
        Ok((protect(transport, connector, host, security).await?, way))
    };
    finding(connector, name, (host, port), reached.await, now)
}

/// Connects to a mail server, and talks to it until it waits for a login.
pub async fn server(connector: &Connector, protocol: Protocol, server: &MailServer, now: Moment) -> Finding {
    let place = (server.host.as_str(), server.port);
    let reached = async {
        let (transport, way) = connect(connector, place.0, place.1, server.security).await?;
        let transport = protect(transport, connector, place.0, server.security).await?;
        let talk = timeout(LIMIT, talk(transport, connector, protocol, server)).await;
        Ok((talk.unwrap_or_else(|_| Err(format!("it sent nothing for {} s", LIMIT.as_secs())))?, way))
    };
    finding(connector, &format!("{protocol} server"), place, reached.await, now)
}

fn finding(
    connector: &Connector,
    name: &str,
    (host, port): (&str, u16),
    reached: Result<(Transport, String), Stopped>,
    now: Moment,
) -> Finding {
    match reached {
        Ok((transport, way)) => {
            let certificate = certificate(connector, &transport, host, now);
            Finding::ok(name, format!("{host} ({way}) answers on port {port}{certificate}"))
        }
        Err(stopped) => Finding::problem(name, Exit::Unavailable, format!("{host}, port {port}: {stopped}")),
    }
}

/// A connection, with a description of its path. Like requests to endpoints, it does not use the proxy if it is
/// unencrypted and so stays on this machine.
async fn connect(
    connector: &Connector,
    host: &str,
    port: u16,
    security: Security,
) -> Result<(Transport, String), Stopped> {
    if let Some(proxy) = connector.proxy.as_ref().filter(|_| security != Security::Clear) {
        let transport = in_time(Transport::dial(&connector.resolver, Some(proxy), host, port)).await;
        let transport =
            transport.map_err(|why| format!("{why}; check proxy in the configuration, and the proxy itself"));
        return Ok((transport?, format!("through the proxy {}", proxy.address())));
    }
    let addresses = in_time(connector.resolver.lookup(host)).await.map_err(|why| {
        format!("{why}; check the host in the configuration, and this machine's network and name servers")
    })?;
    let way: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let socket = in_time(dial::connect(addresses, port)).await;
    let transport = socket.and_then(Transport::new).map_err(|why| {
        format!("it cannot be reached ({why}); check the port in the configuration, and the firewall")
    })?;
    Ok((transport, way.join(", ")))
}

/// Does the handshake if it comes first.
async fn protect(
    transport: Transport,
    connector: &Connector,
    host: &str,
    security: Security,
) -> Result<Transport, Stopped> {
    match security {
        Security::Tls => in_time(transport.connect_tls(Arc::clone(&connector.tls), host)).await.map_err(flaw),
        Security::StartTls | Security::Clear => Ok(transport),
    }
}

fn flaw(error: io::Error) -> Stopped {
    Flaw::of(&error).to_string()
}

async fn talk(
    transport: Transport,
    connector: &Connector,
    protocol: Protocol,
    server: &MailServer,
) -> Result<Transport, Stopped> {
    let broken = |error: io::Error| format!("the connection broke off before the login: {error}");
    let (client_name, other_name) = (CLIENT_NAME.to_owned(), other_name(server, CLIENT_NAME));
    let known = Capabilities::default();
    let mut connection = Connection::new(transport, Trace::new(protocol, TracedPeer::Provider), LIMIT);
    let mut dialogue = upstream::new(protocol, Approach { security: server.security, client_name, other_name, known });
    if server.security != Security::Tls {
        in_time(connection.fill()).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => format!("it {}", no_greeting(server)),
            _ => broken(error),
        })?;
    }
    let mut event = in_time(connection.converse(&mut *dialogue)).await.map_err(broken)?;
    if event == Event::StartTls {
        connection = in_time(connection.connect_tls(Arc::clone(&connector.tls), &server.host)).await.map_err(flaw)?;
        event = match dialogue.tls_started(&mut connection.out) {
            Some(event) => event,
            None => in_time(connection.converse(&mut *dialogue)).await.map_err(broken)?,
        };
    }
    match event {
        Event::Ready(_) => Ok(connection.into_parts().0),
        Event::Unexpected(fault) => Err(format!("it {fault}")),
        _ => Err("it sent an unexpected answer".to_owned()),
    }
}

/// Describes the certificate and who trusts it.
fn certificate(connector: &Connector, transport: &Transport, host: &str, now: Moment) -> String {
    let ca_file = connector.provider.ca_file.as_deref();
    let authorities = ca_file.map_or("the system's authorities".to_owned(), |file| file.display().to_string());
    match (transport.peer_certificates(), certificate::end(transport.peer_certificates(), host, ca_file)) {
        ([], _) => ", without TLS".to_owned(),
        (_, None) => format!("; its certificate is trusted by {authorities}"),
        (_, Some(end)) if end < now.after(SOON) => {
            format!(
                "; its certificate is trusted by {authorities} and expires soon, on {end}; its administrator has to renew it"
            )
        }
        (_, Some(end)) => format!("; its certificate is trusted by {authorities} until {end}"),
    }
}

/// Waits within the time limit.
async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", LIMIT.as_secs()));
    timeout(LIMIT, work).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::environment::Environment;
    use crate::resolver::Resolver;

    /// A provider whose host names cannot be looked up.
    fn unresolvable(file: &Path) -> Connector {
        let environment = Environment { home: Some("/".into()), ..Environment::default() };
        let mut config = Config::parse("", Path::new("postkey.toml"), &environment).unwrap();
        // The system of a test may have no authorities.
        Arc::make_mut(config.providers.get_mut("google").unwrap()).ca_file = Some(file.to_owned());
        let resolver = Resolver::new(|_| Err(io::Error::other("Name or service not known")));
        Connector { resolver, ..Connector::new(&config, "google").unwrap() }
    }

    #[tokio::test]
    async fn a_failed_name_lookup_is_reported_as_such() {
        let folder = tempfile::TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let connector = unresolvable(&folder.path().join("ca.pem"));
        let mut found = Vec::new();
        for (name, url) in endpoints(&connector.provider.endpoints) {
            found.push(endpoint(&connector, name, url, Moment(0)).await);
        }
        for (protocol, place) in &connector.provider.servers {
            found.push(server(&connector, *protocol, place, Moment(0)).await);
        }
        assert!(found.len() >= 5);
        for finding in found {
            assert_eq!(finding.exit, Some(Exit::Unavailable));
            let words = "its name cannot be looked up: Name or service not known; check the host";
            assert!(finding.text.contains(words), "{}", finding.text);
        }
    }
}
