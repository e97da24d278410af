//! Waiting for something to happen, and letting time pass without waiting.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The longest wait for anything that has to happen. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the condition holds.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        breath().await;
    }
}

/// Waits until the condition holds, and lets this much time pass for all timers between two checks.
pub async fn until_skipping(what: &str, step: Duration, is_so: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        skip(step).await;
        if is_so().await {
            return;
        }
    }
    panic!("{what} did not happen");
}

pub async fn breath() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Lets time pass for all timers of this process: timeouts, and failures that stand for a while. It passes between two
/// moments in which nothing is under way. Otherwise a request under way, of which a busy machine has many, would time
/// out.
pub async fn skip(time: Duration) {
    rest().await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    rest().await;
}

/// A port that is free at all addresses and that no other process takes: this process gives each once, and the kernel
/// takes those of outgoing connections from 32768 on.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = 10_000 + (std::process::id() % 20_000) as u16;
    loop {
        let port = begin + GIVEN.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// There and back over loopback: more than a request with TLS through a proxy takes.
const WAYS: usize = 25;

/// Waits until everything under way in this runtime has ended, or waits for time to pass. Loopback is never faster than
/// we are, however busy the machine, and outside of it there are only threads to wait for.
pub async fn rest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut near, mut far, deadline) = (near.unwrap(), far.unwrap().0, std::time::Instant::now() + PATIENCE);
    loop {
        for _ in 0..WAYS {
            near.write_u8(0).await.unwrap();
            far.read_u8().await.unwrap();
            far.write_u8(0).await.unwrap();
            near.read_u8().await.unwrap();
        }
        if !has_waited_for_a_thread().await && !looks_up() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "this process does not come to rest");
    }
}

/// Waits until none of the runtime's threads works on a file. Returns whether one did.
async fn has_waited_for_a_thread() -> bool {
    let begun = std::time::Instant::now();
    // A clock that stands still advances by itself when nothing else happens, which is at once unless such a thread
    // works.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::time::resume();
    begun.elapsed() >= Duration::from_millis(1)
}

/// Whether a thread of this process looks up a name, which postkey does outside of the runtime.
fn looks_up() -> bool {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path().join("comm"));
    names.filter_map(|name| std::fs::read_to_string(name).ok()).any(|name| name == "lookup\n")
}
