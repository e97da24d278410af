//! How the accounts are, for monitoring.

use super::Broker;
use crate::metrics::Measured;

impl Broker {
    /// What is counted, and how the accounts are, in the text form of Prometheus.
    pub fn metrics_text(&self) -> String {
        let seconds = |moment: u64| i64::try_from(moment).unwrap_or(i64::MAX);
        let now = seconds(self.now().0);
        let mut measured = Vec::new();
        for account in self.vault().accounts() {
            let left = seconds(account.life().expires.0).saturating_sub(now);
            let of = |address: String, delegate| Measured { address, delegate, left, ended: account.ended.is_some() };
            let shared = self.config().shared_with(&account.address).into_iter();
            measured.push(of(account.address.clone(), None));
            measured.extend(shared.map(|address| of(address, Some(account.address.clone()))));
        }
        self.metrics().text(&measured)
    }
}
