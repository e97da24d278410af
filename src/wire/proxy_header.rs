//! The header in which a load balancer names the client of a connection: the PROXY protocol, versions 1 and 2
//! (HAProxy's `doc/proxy-protocol.txt`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header that is read, in bytes. Addresses need 52; the rest is for fields that are ignored, such as a
/// client's certificate.
pub const LONGEST: usize = 2048;

/// The longest header of version 1, with its line end (section 2.1).
const LONGEST_LINE: usize = 107;

/// The beginning of version 1.
const WORD: &[u8] = b"PROXY ";

/// The beginning of version 2 (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client. None if the load balancer has connected for itself, or does not know an address.
    pub client: Option<SocketAddr>,
    /// The header's length in bytes; what follows is the client's.
    pub length: usize,
}

/// These bytes do not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it did not begin with a PROXY header")
    }
}

/// Reads the header with which these bytes begin. None if it is incomplete; then all of them belong to it.
///
/// # Errors
///
/// Fails if they cannot become a header of at most [`LONGEST`] bytes.
pub fn read(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    if bytes.starts_with(WORD) {
        read_line(bytes)
    } else if bytes.starts_with(SIGNATURE) {
        read_binary(bytes)
    } else if WORD.starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        Err(Malformed)
    }
}

/// Reads version 1: `PROXY TCP4 192.0.2.7 192.0.2.10 50000 993`.
fn read_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed) };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed)?;
    let words: Vec<&str> = std::str::from_utf8(line).map_err(|_| Malformed)?.split(' ').collect();
    let client = match words.as_slice() {
        [_, "UNKNOWN", ..] => None,
        [_, "TCP4", addresses @ ..] => Some(client_of::<Ipv4Addr>(addresses)?),
        [_, "TCP6", addresses @ ..] => Some(client_of::<Ipv6Addr>(addresses)?),
        _ => return Err(Malformed),
    };
    Ok(Some(ProxyHeader { client, length: end + 1 }))
}

/// The first of two addresses with their ports.
fn client_of<A: FromStr + Into<IpAddr>>(words: &[&str]) -> Result<SocketAddr, Malformed> {
    let &[source, destination, source_port, destination_port] = words else { return Err(Malformed) };
    let address = |text: &str| text.parse::<A>().map_err(|_| Malformed);
    // The type would also take a plus.
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = |text: &str| text.parse().ok().filter(|_| is_number(text)).ok_or(Malformed);
    let (client, _server, _port) = (address(source)?, address(destination)?, port(destination_port)?);
    Ok(SocketAddr::new(client.into(), port(source_port)?))
}

/// Reads version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, Malformed> {
    let Some((&[command, family, high, low], rest)) = after_signature(bytes) else { return Ok(None) };
    let size = usize::from(u16::from_be_bytes([high, low]));
    let length = SIGNATURE.len() + 4 + size;
    if length > LONGEST {
        return Err(Malformed);
    }
    let Some(body) = rest.get(..size) else { return Ok(None) };
    let client = match (command, family) {
        // LOCAL, such as a health check; everything else in it is to be ignored.
        (0x20, _) => None,
        // No address, or a Unix socket.
        (0x21, 0x00 | 0x31) => None,
        // TCP over IPv4 and over IPv6: two addresses and then two ports.
        (0x21, 0x11) => Some(socket_address::<4>(body)?),
        (0x21, 0x21) => Some(socket_address::<16>(body)?),
        _ => return Err(Malformed),
    };
    Ok(Some(ProxyHeader { client, length }))
}

fn after_signature(bytes: &[u8]) -> Option<(&[u8; 4], &[u8])> {
    bytes.get(SIGNATURE.len()..)?.split_first_chunk()
}

/// The source in an address block whose addresses have `N` bytes.
fn socket_address<const N: usize>(body: &[u8]) -> Result<SocketAddr, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>().ok_or(Malformed)?;
    let (_destination, ports) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let &[high, low, _, _, ..] = ports else { return Err(Malformed) };
    Ok(SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family and address block.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let size = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &size, body].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 10, 0xc3, 0x50, 3, 0xe1];

    fn ipv6() -> Vec<u8> {
        let addresses = ["2001:db8::7", "2001:db8::10"].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
        [addresses.concat(), vec![0xc3, 0x50, 3, 0xe1]].concat()
    }

    /// All headers here, with the client that each names.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (line("TCP4 192.0.2.7 192.0.2.10 50000 993"), Some("192.0.2.7:50000")),
            (line("TCP6 2001:db8::7 2001:db8::10 50000 993"), Some("[2001:db8::7]:50000")),
            (line("TCP6 ::ffff:192.0.2.7 ::1 1 0"), Some("[::ffff:192.0.2.7]:1")),
            (line("UNKNOWN"), None),
            (line(&format!("UNKNOWN {longest} {longest} 65535 65535")), None),
            (binary(0x21, 0x11, &IPV4), Some("192.0.2.7:50000")),
            (binary(0x21, 0x21, &ipv6()), Some("[2001:db8::7]:50000")),
            (binary(0x21, 0x11, &[&IPV4[..], &[0x20; 500]].concat()), Some("192.0.2.7:50000")),
            (binary(0x20, 0x00, b""), None),
            (binary(0x20, 0xff, b"whatever"), None),
            (binary(0x21, 0x00, b""), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn both_versions_name_the_client_and_leave_its_bytes() {
        for (bytes, client) in headers() {
            let header = ProxyHeader { client: client.map(|it| it.parse().unwrap()), length: bytes.len() };
            for rest in [&b""[..], b"a LOGIN ann s3cret\r\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n"] {
                assert_eq!(read(&[&bytes, rest].concat()), Ok(Some(header)), "{}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn a_part_of_a_header_is_incomplete_at_every_length() {
        for (bytes, _) in headers() {
            for length in 0..bytes.len() {
                assert_eq!(read(&bytes[..length]), Ok(None), "{}", bytes[..length].escape_ascii());
            }
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        let long = "x".repeat(LONGEST_LINE);
        for bytes in [
            b"a LOGIN ann s3cret\r\n".to_vec(),
            b"EHLO pc\r\n".to_vec(),
            b"\x16\x03\x01\x02".to_vec(),
            b"\r\n\r\nQ".to_vec(),
            b"PROXYTCP4 192.0.2.7 192.0.2.10 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 192.0.2.10 1 2\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            line(""),
            line("UDP4 192.0.2.7 192.0.2.10 1 2"),
            line("TCP4"),
            line("TCP4 192.0.2.7 192.0.2.10 1"),
            line("TCP4 192.0.2.7 192.0.2.10 1 2 3"),
            line("TCP4  192.0.2.7 192.0.2.10 1 2"),
            line("TCP4 192.0.2.7 mail.example.com 1 2"),
            line("TCP4 192.0.2.07 192.0.2.10 1 2"),
            line("TCP4 192.0.2.7 192.0.2.10 65536 2"),
            line("TCP4 192.0.2.7 192.0.2.10 +1 2"),
            line("TCP4 192.0.2.7 192.0.2.10 1 -2"),
            line("TCP4 2001:db8::7 2001:db8::10 1 2"),
            line("TCP6 192.0.2.7 192.0.2.10 1 2"),
            line(&format!("UNKNOWN {long}")),
            format!("PROXY UNKNOWN {long}").into_bytes(),
            // Another version, another command, datagrams, an address block that is too short, a header that is too long.
            binary(0x11, 0x11, &IPV4),
            binary(0x22, 0x11, &IPV4),
            binary(0x21, 0x12, &IPV4),
            binary(0x21, 0x11, &IPV4[..11]),
            binary(0x21, 0x21, &IPV4),
            binary(0x21, 0x11, &vec![0; LONGEST]),
        ] {
            assert_eq!(read(&bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }
}
