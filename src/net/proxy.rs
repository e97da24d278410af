//! Connections through a proxy: the dialogue with it before it relays bytes.
//!
//! The proxy gets the server's name and looks it up itself, because a network that needs a proxy often cannot resolve
//! outside names. It sees only the destination; everything else is under TLS, which ends at the provider.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::dial;
use crate::config::provider::ProxyKind;
use crate::proxy::{Proxy, authority};
use crate::resolver::Resolver;
use crate::wire::printable;

/// The longest answer of an HTTP proxy to accept, in bytes. Real ones have a few hundred.
const HEADER: usize = 8 * 1024;

/// Connects to a server through a proxy, at whichever of the proxy's addresses answers first. The caller limits the
/// total time.
pub async fn connect(resolver: &Resolver, proxy: &Proxy, host: &str, port: u16) -> io::Result<TcpStream> {
    let failed = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        io::Error::other(format!("the proxy {}: {why}", proxy.address()))
    };
    let addresses = resolver.lookup(&proxy.config.host).await.map_err(failed)?;
    let mut socket = dial::connect(addresses, proxy.config.port).await.map_err(failed)?;
    let asked = match proxy.config.kind {
        ProxyKind::Http => ask_http(&mut socket, proxy, host, port).await,
        ProxyKind::Socks5 => ask_socks(&mut socket, proxy, host, port).await,
    };
    asked.map(|()| socket).map_err(failed)
}

/// Sends CONNECT (RFC 9110 section 9.3.6).
async fn ask_http(socket: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let target = authority(host, port);
    let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some((user, password)) = proxy.login() {
        let login = Zeroizing::new([user.as_bytes(), b":", password.expose()].concat());
        let login = Zeroizing::new(BASE64_STANDARD.encode(&*login));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&login);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await?;
    let header = read_header(socket).await?;
    let line = header.split(|byte| *byte == b'\r').next().unwrap_or_default();
    check_status(&printable(&String::from_utf8_lossy(line)))
}

/// Reads the answer up to its empty line, byte by byte, because what follows comes from the server.
async fn read_header(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        if header.len() == HEADER {
            return Err(io::Error::other(format!("its answer is longer than {HEADER} bytes")));
        }
        header.push(socket.read_u8().await?);
    }
    Ok(header)
}

/// RFC 9112 section 4: `HTTP/1.1 200 Connection established`.
fn check_status(line: &str) -> io::Result<()> {
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status.and_then(|status| status.parse().ok()) {
        Some(200..300_u16) => Ok(()),
        // 401 is tinyproxy's.
        Some(401 | 407) => Err(io::Error::other("it rejects the login; check proxy_user and proxy_password")),
        Some(_) => Err(io::Error::other(format!("it refuses: {line}"))),
        None => Err(io::Error::other("it does not speak HTTP")),
    }
}

/// RFC 1928: logs in if required, then sends CONNECT.
async fn ask_socks(socket: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let offered: &[u8] = if proxy.login().is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    socket.write_all(offered).await?;
    let mut choice = [0; 2];
    socket.read_exact(&mut choice).await?;
    match (choice, proxy.login()) {
        ([5, 0], _) => {}
        ([5, 2], Some((user, password))) => log_in(socket, user.as_bytes(), password.expose()).await?,
        ([5, 0xff], None) => return Err(io::Error::other("it requires a login; set proxy_user and proxy_password")),
        ([5, 0xff], Some(_)) => return Err(io::Error::other("it does not support a login by user name and password")),
        _ => return Err(io::Error::other("it does not speak SOCKS 5")),
    }
    socket.write_all(&connect_request(host, port)?).await?;
    read_reply(socket).await
}

/// RFC 1929.
async fn log_in(socket: &mut TcpStream, user: &[u8], password: &[u8]) -> io::Result<()> {
    let [user_length, length] = [length(user)?, length(password)?];
    let request = Zeroizing::new([&[1, user_length][..], user, &[length], password].concat());
    socket.write_all(&request).await?;
    let mut answer = [0; 2];
    socket.read_exact(&mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(io::Error::other("it rejects the login; check proxy_user and proxy_password")),
    }
}

fn length(field: &[u8]) -> io::Result<u8> {
    u8::try_from(field.len()).map_err(|_| io::Error::other("it does not support names of more than 255 bytes"))
}

/// RFC 1928 section 4. An IP address is sent as such, because a proxy might look it up as a name.
fn connect_request(host: &str, port: u16) -> io::Result<Vec<u8>> {
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.extend([3, length(host.as_bytes())?]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

/// RFC 1928 section 6. The address in the answer is not needed, but has to be read to its end.
async fn read_reply(socket: &mut TcpStream) -> io::Result<()> {
    let mut reply = [0; 4];
    socket.read_exact(&mut reply).await?;
    let [5, code, _, kind] = reply else { return Err(io::Error::other("it does not speak SOCKS 5")) };
    if code != 0 {
        return Err(io::Error::other(format!("it refuses: {}", reason(code))));
    }
    let length = match kind {
        1 => 4,
        3 => usize::from(socket.read_u8().await?),
        4 => 16,
        _ => return Err(io::Error::other("it does not speak SOCKS 5")),
    };
    let mut address_and_port = vec![0; length + 2];
    socket.read_exact(&mut address_and_port).await?;
    Ok(())
}

const fn reason(code: u8) -> &'static str {
    match code {
        1 => "it has an internal error",
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        _ => "it does not support this request",
    }
}
