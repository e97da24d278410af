//! The word to stop: said once by the daemon, heard by everything that serves clients.

use tokio::sync::watch;

/// Says it. To be dropped is to say it, too.
#[derive(Debug)]
pub struct Stopping(watch::Sender<bool>);

/// Hears it. As long as one of these lives, somebody is still served.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Default for Stopping {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stopping {
    /// Says it.
    pub fn say(&self) {
        self.0.send_replace(true);
    }

    /// One who will hear it.
    pub fn listener(&self) -> Stop {
        Stop(self.0.subscribe())
    }

    /// Waits until nobody who would hear it is left.
    pub async fn all_gone(&self) {
        self.0.closed().await;
    }
}

impl Stop {
    /// Waits until it is said.
    pub async fn said(&mut self) {
        // An error is the end of the one who would say it.
        let _said = self.0.wait_for(|said| *said).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn it_is_heard_early_and_late_and_the_end_of_the_listeners_is_seen() {
        let stopping = Stopping::default();
        let (mut early, mut late) = (stopping.listener(), stopping.listener());
        assert!(timeout(Duration::from_secs(1), early.said()).await.is_err());
        stopping.say();
        early.said().await;
        late.said().await;
        drop(early);
        assert!(timeout(Duration::from_secs(1), stopping.all_gone()).await.is_err());
        drop(late);
        stopping.all_gone().await;
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_has_stopped() {
        let mut stop = Stopping::default().listener();
        stop.said().await;
    }
}
