//! Looks up the addresses of host names. Tests can replace the system's resolver.
//!
//! The system's resolver blocks its thread, for half a minute if the name servers are silent. So there is one query per name at a
//! time, however many wait for it, and each has its own thread. On the runtime's pool such calls would accumulate until passwords
//! and the vault had to wait for them, and they would delay the end of the process.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::mutex::lock;

type Query = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// None until it arrives. An error of the system cannot be cloned, so its text is kept.
type Answer = Option<Result<Vec<IpAddr>, String>>;

#[derive(Clone)]
pub struct Resolver {
    query: Arc<Query>,
    pending: Arc<Mutex<HashMap<String, watch::Receiver<Answer>>>>,
}

impl Resolver {
    pub fn system() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// `query` may block.
    pub fn new(query: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { query: Arc::new(query), pending: Arc::default() }
    }

    /// The addresses of a host, in the order of preference of RFC 6724. The caller limits the time. A caller that gives up leaves
    /// only the pending query behind.
    pub async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut answer = self.query(host)?;
        let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        match answer {
            Ok(Some(Ok(addresses))) if !addresses.is_empty() => Ok(addresses),
            Ok(Some(Err(error))) => Err(io::Error::other(format!("its name cannot be looked up: {error}"))),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address")),
        }
    }

    /// Joins the pending query for this host, or starts one.
    fn query(&self, host: &str) -> io::Result<watch::Receiver<Answer>> {
        let mut pending = lock(&self.pending);
        if let Some(answer) = pending.get(host) {
            return Ok(answer.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let (resolver, name) = (self.clone(), host.to_owned());
        std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let answer = (resolver.query)(&name).map_err(|error| error.to_string());
            lock(&resolver.pending).remove(&name);
            sender.send_replace(Some(answer));
        })?;
        pending.insert(host.to_owned(), receiver.clone());
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A resolver that answers for "silent.test" only after something was sent, and the number of its queries.
    fn silent() -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (answer, silence) = mpsc::channel();
        let (silence, asked) = (Mutex::new(silence), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let resolver = Resolver::new(move |host| {
            count.fetch_add(1, Ordering::SeqCst);
            if host == "silent.test" {
                let _ = lock(&silence).recv();
            }
            Ok(vec![ADDRESS])
        });
        (resolver, answer, asked)
    }

    #[tokio::test]
    async fn a_silent_name_server_blocks_one_thread_however_many_wait() {
        let (resolver, answer, asked) = silent();
        let mut waiting = JoinSet::new();
        for _ in 0..1000 {
            let resolver = resolver.clone();
            waiting.spawn(async move { resolver.lookup("silent.test").await });
        }
        // Some give up and try again.
        for _ in 0..10 {
            assert!(timeout(Duration::from_millis(1), resolver.lookup("silent.test")).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(resolver.lookup("other.test").await.unwrap(), [ADDRESS], "other names do not wait");
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        answer.send(()).unwrap();
        for result in waiting.join_all().await {
            assert_eq!(result.unwrap(), [ADDRESS]);
        }
        assert_eq!(resolver.pending.lock().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let failures = AtomicUsize::new(0);
        let resolver = Resolver::new(move |_| match failures.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("Temporary failure in name resolution")),
            1 => Ok(Vec::new()),
            _ => Ok(vec![ADDRESS]),
        });
        for words in ["its name cannot be looked up: Temporary failure in name resolution", "its name has no address"] {
            assert_eq!(resolver.lookup("mail.test").await.unwrap_err().to_string(), words);
        }
        assert_eq!(resolver.lookup("mail.test").await.unwrap(), [ADDRESS]);
    }

    #[tokio::test]
    async fn an_address_needs_no_query() {
        let resolver = Resolver::new(|_| panic!("a query"));
        assert_eq!(resolver.lookup("127.0.0.1").await.unwrap(), [ADDRESS]);
        assert!(resolver.lookup("::1").await.is_ok());
    }
}
