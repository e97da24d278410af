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
            let condition = self.condition(&account);
            let of = |address: String, delegate| Measured {
                address,
                delegate,
                left: seconds(account.life().expires.0).saturating_sub(now),
                idle_left: condition.idle_end.map(|end| seconds(end.0).saturating_sub(now)),
                ended: account.ended.is_some(),
                needed: condition.needed.is_some(),
            };
            measured.push(of(account.address.clone(), None));
            let shared = self.config().shared_with(&account.address).into_iter();
            measured.extend(shared.map(|address| of(address, Some(account.address.clone()))));
        }
        self.metrics().text(&measured)
    }
}
