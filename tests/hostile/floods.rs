//! B1. A gigabyte without a line end, sent to the program in a separate process: it is not read, and costs no memory.

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::house::{House, SECURITIES, accepted};

/// What a client would send, in pieces.
const GIBIBYTE: usize = 1 << 30;
const PIECE: usize = 1 << 16;

/// What the sockets' buffers on both sides may hold when the other end is gone: Linux's limit for both, and some.
const BUFFERED: usize = 16 << 20;

/// What 27 floods may cost in memory, after some that have filled the allocator's caches: 5 KiB each, where 64 would be
/// fine.
const COST: u64 = 128 * 1024;

/// The peak memory of a process, in bytes.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The processor time of a process, in hundredths of a second.
fn time(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

/// Sends until nobody reads any more. Returns how much was read.
async fn flood(house: &House, protocol: Protocol, security: Security) -> usize {
    let client = house.greeted(protocol, security).await;
    let (mut from, mut to) = tokio::io::split(client.into_stream());
    let reading = async { while matches!(from.read(&mut [0; 4096]).await, Ok(count) if count > 0) {} };
    let writing = async {
        let mut sent = 0;
        while sent < GIBIBYTE && to.write_all(&[b'x'; PIECE]).await.is_ok() && to.flush().await.is_ok() {
            sent += PIECE;
        }
        sent
    };
    tokio::join!(reading, writing).1
}

#[tokio::test]
async fn a_gigabyte_without_a_line_end() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let process = house.serve().await;
    let mut begun = (0, 0);
    for round in 0..5 {
        for protocol in Protocol::ALL {
            for security in SECURITIES {
                let taken = flood(&house, protocol, security).await;
                assert!(taken <= BUFFERED, "{protocol} {security:?}: {taken} bytes were taken");
            }
        }
        if round == 1 {
            begun = (peak(process.id()), time(process.id()));
        }
    }
    let (peak, time) = (peak(process.id()) - begun.0, time(process.id()) - begun.1);
    assert!(peak <= COST, "27 floods cost {peak} bytes of memory");
    assert!(time <= 200, "27 floods cost {time} hundredths of a second");
    let reply = house.try_login(Protocol::Imap).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
}
