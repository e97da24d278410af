//! Connecting to whichever address of a server answers first (Happy Eyeballs, RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The delay before the next address is tried (RFC 8305 section 5 recommends 250 ms).
const AHEAD: Duration = Duration::from_millis(250);

/// The number of addresses to try. If eight of both families are dead, more do not help, and each costs a descriptor.
const MOST: usize = 8;

/// Connects to the first address that answers. The next one is tried at once after a failure, and after 250 ms of
/// silence; the silent one may still win. Returns the error of the last failure. The caller limits the total time.
pub async fn connect(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in interleave(addresses).into_iter().take(MOST) {
        tries.spawn(TcpStream::connect(SocketAddr::new(address, port)));
        match timeout(AHEAD, next(&mut tries)).await {
            Ok(Some(Ok(socket))) => return Ok(socket),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) | Err(_) => {}
        }
    }
    while let Some(outcome) = next(&mut tries).await {
        match outcome {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Waits for the next attempt to end. The others end when the set is dropped.
async fn next(tries: &mut JoinSet<io::Result<TcpStream>>) -> Option<io::Result<TcpStream>> {
    tries.join_next().await.map(|outcome| outcome.unwrap_or_else(|error| Err(io::Error::other(error))))
}

/// Alternates the families, starting with that of the first address, so that a dead family costs one delay (RFC 8305
/// section 4).
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().rev().partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::new();
    while let Some(address) = first.pop() {
        ordered.push(address);
        ordered.extend(second.pop());
    }
    ordered.extend(second.into_iter().rev());
    ordered
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &str) -> Vec<IpAddr> {
        list.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        for (given, ordered) in [
            ("::1 ::2 ::3 127.0.0.1 127.0.0.2", "::1 127.0.0.1 ::2 127.0.0.2 ::3"),
            ("127.0.0.1 ::1 ::2", "127.0.0.1 ::1 ::2"),
            ("127.0.0.1 127.0.0.2 127.0.0.3", "127.0.0.1 127.0.0.2 127.0.0.3"),
            ("::1 127.0.0.1 127.0.0.2 127.0.0.3", "::1 127.0.0.1 127.0.0.2 127.0.0.3"),
            ("", ""),
        ] {
            assert_eq!(interleave(addresses(given)), addresses(ordered), "{given}");
        }
    }

    /// Makes an address unreachable on this port: the listener never accepts, and its backlog is full. Returns what
    /// keeps it full.
    async fn black_hole(address: &str, port: u16) -> (TcpListener, Vec<TcpStream>) {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut filling = Vec::new();
        while let Ok(connected) = timeout(AHEAD, TcpStream::connect(address)).await {
            assert!(filling.len() < 10, "{address} is no black hole");
            filling.push(connected.unwrap());
        }
        (listener, filling)
    }

    /// How long it takes to reach 127.0.0.1 if these addresses come first and are black holes.
    async fn reached_behind(holes: &[&str]) -> Duration {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let mut kept = Vec::new();
        for hole in holes {
            kept.push(black_hole(hole, port).await);
        }
        let begun = Instant::now();
        let list = holes.iter().copied().chain(["127.0.0.1"]).map(|address| address.parse().unwrap()).collect();
        let socket = connect(list, port).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), alive.local_addr().unwrap());
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_black_hole_costs_a_quarter_of_a_second() {
        let took = reached_behind(&["127.0.0.2"]).await;
        assert_eq!(took, AHEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_family_costs_the_delay_once() {
        let took = reached_behind(&["::1"]).await;
        assert_eq!(took, AHEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let begun = Instant::now();
        connect(addresses("::1 127.0.0.2 127.0.0.3 127.0.0.1"), port).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_returned() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let begun = Instant::now();
        let error = connect(addresses("127.0.0.2 127.0.0.3"), port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(Vec::new(), port).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
