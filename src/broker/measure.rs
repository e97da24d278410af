//! How the accounts are, for monitoring.

use super::Broker;
use crate::metrics::Measured;

impl Broker {
    /// What is counted, and how the accounts are, in the text form of Prometheus.
    pub fn metrics_text(&self) -> String {
        let seconds = |moment: u64| i64::try_from(moment).unwrap_or(i64::MAX);
        let now = seconds(self.now().0);
        let accounts = self.vault().accounts().into_iter().map(|account| {
            let condition = self.condition(&account);
            Measured {
                address: account.address.clone(),
                left: seconds(account.life().expires.0).saturating_sub(now),
                idle_left: condition.idle_end.map(|end| seconds(end.0).saturating_sub(now)),
                ended: account.ended.is_some(),
                needed: condition.needed.is_some(),
            }
        });
        self.metrics().text(&accounts.collect::<Vec<_>>())
    }
}
