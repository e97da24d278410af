//! The shutdown signal: the daemon sends it once, and everything that serves clients receives it.

use tokio::sync::watch;

/// Sends the shutdown signal, also when dropped.
#[derive(Debug)]
pub struct ShutdownSender(watch::Sender<bool>);

/// Receives the shutdown signal. As long as one of these exists, a client is still being served.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Default for ShutdownSender {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl ShutdownSender {
    pub fn send(&self) {
        self.0.send_replace(true);
    }

    pub fn subscribe(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }

    /// Waits until all receivers have been dropped.
    pub async fn all_gone(&self) {
        self.0.closed().await;
    }
}

impl Shutdown {
    pub async fn requested(&mut self) {
        // An error means that the sender has been dropped, which counts as the signal.
        let _requested = self.0.wait_for(|requested| *requested).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn every_receiver_gets_the_signal_and_the_sender_sees_when_all_are_gone() {
        let shutdown = ShutdownSender::default();
        let (mut early, mut late) = (shutdown.subscribe(), shutdown.subscribe());
        assert!(timeout(Duration::from_secs(1), early.requested()).await.is_err());
        shutdown.send();
        early.requested().await;
        late.requested().await;
        drop(early);
        assert!(timeout(Duration::from_secs(1), shutdown.all_gone()).await.is_err());
        drop(late);
        shutdown.all_gone().await;
    }

    #[tokio::test]
    async fn a_dropped_sender_counts_as_the_signal() {
        let mut shutdown = ShutdownSender::default().subscribe();
        shutdown.requested().await;
    }
}
