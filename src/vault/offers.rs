//! What the mail servers of all accounts offer before the login. Many accounts have the same servers, so there are few
//! different offers, and it does not matter how many accounts have the same one.

use std::collections::BTreeMap;

/// The capabilities that the servers of an account last offered, by protocol.
pub type OfferByProtocol = BTreeMap<String, Vec<String>>;

/// The different offers, by provider, each with the number of accounts that have it.
#[derive(Default)]
pub struct Offers {
    providers: BTreeMap<String, BTreeMap<OfferByProtocol, usize>>,
    version: u64,
}

impl Offers {
    /// A number that changes when there is another offer, or one less.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The capabilities by this protocol that all accounts of these providers have in common. None as long as nobody knows
    /// those of one account.
    pub fn common(&self, protocol: &str, serves: impl Fn(&str) -> bool) -> Vec<String> {
        let offers =
            self.providers.iter().filter(|(provider, _)| serves(provider)).flat_map(|(_, offers)| offers.keys());
        let mut lists = offers.map(|offer| offer.get(protocol).map_or(&[][..], Vec::as_slice));
        let mut common = lists.next().unwrap_or_default().to_vec();
        for list in lists {
            common.retain(|entry| list.contains(entry));
        }
        common
    }

    /// Has a version that these never had.
    pub(super) fn follow(&mut self, before: &Self) {
        self.version += before.version + 1;
    }

    pub(super) fn add(&mut self, provider: &str, known: &OfferByProtocol) {
        if let Some(count) = self.providers.get_mut(provider).and_then(|offers| offers.get_mut(known)) {
            *count += 1;
            return;
        }
        self.providers.entry(provider.to_owned()).or_default().insert(known.clone(), 1);
        self.version += 1;
    }

    pub(super) fn remove(&mut self, provider: &str, known: &OfferByProtocol) {
        let Some(offers) = self.providers.get_mut(provider) else { return };
        let Some(count) = offers.get_mut(known) else { return };
        *count -= 1;
        if *count == 0 {
            offers.remove(known);
            self.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(imap: &[&str]) -> OfferByProtocol {
        let list = imap.iter().map(|entry| (*entry).to_owned()).collect();
        BTreeMap::from([("imap".to_owned(), list)])
    }

    #[test]
    fn greetings_are_computed_again_only_if_they_can_differ() {
        let mut offers = Offers::default();
        let (many, few, unknown) = (offer(&["IDLE", "ID"]), offer(&["ID"]), OfferByProtocol::new());
        let common = |offers: &Offers| offers.common("imap", |_| true);
        offers.add("a", &many);
        let first = offers.version();
        (0..9).for_each(|_| offers.add("a", &many));
        assert_eq!((offers.version(), common(&offers)), (first, vec!["IDLE".to_owned(), "ID".to_owned()]));
        offers.add("b", &few);
        assert!(offers.version() > first && common(&offers) == ["ID"]);
        assert_eq!(offers.common("imap", |provider| provider == "a").len(), 2);
        assert!(offers.common("smtp", |_| true).is_empty());
        offers.add("a", &unknown);
        assert!(common(&offers).is_empty(), "nobody knows what this account's server offers");
        let before = offers.version();
        offers.remove("a", &unknown);
        assert!(offers.version() > before && common(&offers) == ["ID"]);
        let before = offers.version();
        (0..9).for_each(|_| offers.remove("a", &many));
        assert_eq!(offers.version(), before);
        offers.remove("a", &many);
        assert!(offers.version() > before && common(&offers) == ["ID"]);
    }
}
