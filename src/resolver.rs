//! Host names and their addresses; tests can bring their own.
//!
//! The system's resolver blocks its thread, for half a minute where the name servers are silent. So each name is asked for
//! once at a time, however many wait for it, and on a thread of its own: on the runtime's pool such calls would pile up until
//! passwords and the vault had to wait for them, and they would hold up the end of the process.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What the system is asked.
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// None until it is there. An error of the system cannot be cloned, so its words are kept.
type Answer = Option<Result<Vec<IpAddr>, String>>;

/// Looks up host names.
#[derive(Clone)]
pub struct Resolver {
    ask: Arc<Ask>,
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Answer>>>>,
}

impl Resolver {
    /// Asks the operating system.
    pub fn system() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// Asks this function, which may block.
    pub fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), under_way: Arc::default() }
    }

    /// The addresses of a host, in the order of preference of RFC 6724. How long it takes is for the caller to limit: one
    /// that gives up leaves nothing behind but the question that is under way.
    pub async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut answer = self.question(host)?;
        let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        match answer {
            Ok(Some(Ok(addresses))) if !addresses.is_empty() => Ok(addresses),
            Ok(Some(Err(error))) => Err(io::Error::other(format!("its name cannot be looked up: {error}"))),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address")),
        }
    }

    /// The question that is under way, or a new one.
    fn question(&self, host: &str) -> io::Result<watch::Receiver<Answer>> {
        let mut under_way = lock(&self.under_way);
        if let Some(answer) = under_way.get(host) {
            return Ok(answer.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let (resolver, name) = (self.clone(), host.to_owned());
        std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let answer = (resolver.ask)(&name).map_err(|error| error.to_string());
            lock(&resolver.under_way).remove(&name);
            sender.send_replace(Some(answer));
        })?;
        under_way.insert(host.to_owned(), receiver.clone());
        Ok(receiver)
    }
}

/// The map is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// One whose name servers are silent until something is sent to it, and how often it was asked. Other names than
    /// "silent.test" it knows at once.
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
    async fn however_many_wait_a_silent_name_server_holds_one_thread() {
        let (resolver, answer, asked) = silent();
        let mut waiting = JoinSet::new();
        for _ in 0..1000 {
            let resolver = resolver.clone();
            waiting.spawn(async move { resolver.lookup("silent.test").await });
        }
        // Some give up, and come again.
        for _ in 0..10 {
            assert!(timeout(Duration::from_millis(1), resolver.lookup("silent.test")).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(resolver.lookup("other.test").await.unwrap(), [ADDRESS], "other names are not held up");
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        answer.send(()).unwrap();
        for result in waiting.join_all().await {
            assert_eq!(result.unwrap(), [ADDRESS]);
        }
        assert_eq!(resolver.under_way.lock().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_wait_and_not_kept() {
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
    async fn an_address_is_not_asked_for() {
        let resolver = Resolver::new(|_| panic!("nobody asks"));
        assert_eq!(resolver.lookup("127.0.0.1").await.unwrap(), [ADDRESS]);
        assert!(resolver.lookup("::1").await.is_ok());
    }
}
