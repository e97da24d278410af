//! What a person has to know: told once, and once more when it is settled.
//!
//! Not every place where something goes wrong tells somebody. One task compares how the accounts are with what it has told,
//! which a file remembers across restarts, and tells the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::warn;

use super::{Broker, Condition};
use crate::clock::Moment;
use crate::notify::{Event, Notice};

/// How often it is looked, if nothing calls for it.
const TICK: Duration = Duration::from_secs(60);

const DAY: u64 = 24 * 3600;

/// So many days before something ends, a person is told: time enough for an administrator; to do it; now.
const AHEAD: [u64; 3] = [30, 7, 1];

/// The file that remembers, in the state folder. It holds no secret.
const FILE: &str = "told.json";

/// How an account is, as far as a person may be needed.
struct Situation {
    address: String,
    provider: String,
    generation: u64,
    condition: Condition,
}

/// Something that ends unless a person acts.
struct Ending {
    /// Tells it from all others.
    what: String,
    account: String,
    end: Moment,
    /// How many days before its end it may be told: not in the first days of something that lives for a month.
    most_days: u64,
    /// What to do.
    advice: String,
}

/// What has been told.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// The accounts for which a person is needed, each with the number of its token set then: a newer one shows that somebody
    /// has acted.
    needed: BTreeMap<String, u64>,
    /// By what ends: when it ends, and the fewest days before at which that was told.
    ends: BTreeMap<String, (Moment, u64)>,
}

impl Broker {
    /// Tells a person whatever there is to tell. Never ends.
    pub async fn keep_told(self: Arc<Self>) {
        let file = self.config().state_dir.join(FILE);
        let mut told = read(&file).await;
        loop {
            let before = told.clone();
            let notices = told.review(&self.situations(), &self.endings(), self.now());
            if told != before {
                // Before anybody is told: a restart must not tell it twice.
                write(file.clone(), told.clone()).await;
            }
            notices.into_iter().for_each(|notice| self.tell(notice));
            let _called = timeout(TICK, self.attention.notified()).await;
        }
    }

    fn situations(&self) -> Vec<Situation> {
        let accounts = self.vault.accounts().into_iter();
        accounts
            .map(|record| Situation {
                address: record.address.clone(),
                provider: record.provider.clone(),
                generation: record.generation(),
                condition: self.condition(&record),
            })
            .collect()
    }

    /// What ends some day.
    fn endings(&self) -> Vec<Ending> {
        let (situations, config) = (self.situations(), self.config());
        let providers: BTreeSet<&String> = situations.iter().map(|situation| &situation.provider).collect();
        let providers = providers.into_iter().filter_map(|name| config.providers.get(name));
        let for_all = providers.filter_map(|one| Some(Ending::of_client(&one.name, "", one.client_expires?)));
        let accounts = situations.iter().filter_map(|situation| config.accounts.get_key_value(&situation.address));
        let own = accounts.filter_map(|(address, one)| Some(Ending::of_client(address, address, one.client_expires?)));
        situations.iter().filter_map(Ending::of_idleness).chain(for_all).chain(own).collect()
    }
}

impl Ending {
    /// A client's secret or certificate.
    fn of_client(owner: &str, account: &str, end: Moment) -> Self {
        Self {
            what: format!("client secret or certificate of {owner}"),
            account: account.to_owned(),
            end,
            most_days: u64::MAX,
            advice: "make a new one at the provider, put it in its place, and correct client_expires".to_owned(),
        }
    }

    /// A refresh token that nobody uses. One that is in use is refreshed long before.
    fn of_idleness(situation: &Situation) -> Option<Self> {
        let Situation { address, provider, condition, .. } = situation;
        let end = condition.idle_end.filter(|_| condition.needed.is_none())?;
        Some(Self {
            what: format!("refresh token of {address}"),
            account: address.clone(),
            end,
            most_days: end.since(condition.refreshed) / DAY / 3,
            advice: format!("{provider} lets it lie idle no longer; log in once with a mail program before"),
        })
    }
}

impl Told {
    /// What is to be told now; it counts as told from then on.
    fn review(&mut self, situations: &[Situation], endings: &[Ending], now: Moment) -> Vec<Notice> {
        let mut notices = self.review_needs(situations);
        notices.extend(self.review_endings(endings, now));
        notices
    }

    fn review_needs(&mut self, situations: &[Situation]) -> Vec<Notice> {
        let mut notices = Vec::new();
        let notice =
            |event, address: &String, reason: String| Notice { event, account: address.clone(), reason, url: None };
        for Situation { address, generation, condition, .. } in situations {
            match (&condition.needed, self.needed.get(address)) {
                (Some(why), None) => {
                    self.needed.insert(address.clone(), *generation);
                    notices.push(notice(Event::PersonNeeded, address, why.clone()));
                }
                (None, Some(told)) if told != generation => {
                    self.needed.remove(address);
                    notices.push(notice(
                        Event::Settled,
                        address,
                        format!("{address} has a working authorization again"),
                    ));
                }
                _ => {}
            }
        }
        // Who is forgotten needs nobody.
        self.needed.retain(|address, _| situations.iter().any(|situation| situation.address == *address));
        notices
    }

    fn review_endings(&mut self, endings: &[Ending], now: Moment) -> Vec<Notice> {
        let mut notices = Vec::new();
        for Ending { what, account, end, most_days, advice } in endings {
            let reached = AHEAD.into_iter().filter(|days| days <= most_days && now.after(days * DAY) >= *end).min();
            let told = self.ends.get(what).filter(|(told_end, _)| told_end == end).map(|(_, days)| *days);
            match reached {
                None => drop(self.ends.remove(what)),
                Some(days) if told.is_some_and(|told| told <= days) => {}
                Some(days) => {
                    self.ends.insert(what.clone(), (*end, days));
                    let reason = format!("the {what} ends on {end}: {advice}");
                    notices.push(Notice { event: Event::EndsSoon, account: account.clone(), reason, url: None });
                }
            }
        }
        self.ends.retain(|what, _| endings.iter().any(|ending| ending.what == *what));
        notices
    }
}

/// What was told before; nothing, where that cannot be read.
async fn read(file: &Path) -> Told {
    let told = tokio::fs::read(file).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    told.unwrap_or_default()
}

/// Replaces the file as a whole. Where that fails a restart tells a second time, which is better than never.
async fn write(file: PathBuf, told: Told) {
    let replace = move || -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&told)?)?;
        std::fs::rename(new, file)
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(replace).await {
        warn!(%error, "what a person was told cannot be noted; it may be told again after a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(generation: u64, needed: Option<&str>) -> [Situation; 1] {
        let condition = Condition { needed: needed.map(str::to_owned), ..Condition::default() };
        [Situation { address: "ann@example.test".into(), provider: "test".into(), generation, condition }]
    }

    fn events(notices: &[Notice]) -> Vec<&'static str> {
        notices.iter().map(|notice| notice.event.name()).collect()
    }

    #[test]
    fn a_need_is_told_once_and_its_end_once_across_restarts() {
        let mut told = Told::default();
        assert!(told.review(&situation(1, None), &[], Moment(0)).is_empty());
        let notices = told.review(&situation(1, Some("sign in")), &[], Moment(0));
        assert_eq!((events(&notices), notices[0].reason.as_str()), (vec!["person-needed"], "sign in"));
        assert!(told.review(&situation(1, Some("sign in, please")), &[], Moment(1)).is_empty());
        told = serde_json::from_slice(&serde_json::to_vec(&told).unwrap()).unwrap();
        // After a restart nobody knows of a failure that is not in the vault, and nothing has been settled by that.
        assert!(told.review(&situation(1, None), &[], Moment(2)).is_empty());
        assert!(told.review(&situation(1, Some("sign in")), &[], Moment(3)).is_empty());
        assert_eq!(events(&told.review(&situation(2, None), &[], Moment(4))), ["settled"]);
        assert!(told.review(&situation(3, None), &[], Moment(5)).is_empty());
        assert_eq!(events(&told.review(&situation(3, Some("again")), &[], Moment(6))), ["person-needed"]);
        assert!(told.review(&[], &[], Moment(7)).is_empty());
        assert!(told == Told::default(), "a forgotten account is forgotten here, too");
    }

    /// On which days before the end it is told, looking every hour, of something that lives so many days.
    fn told_on(life: u64, most_days: u64) -> Vec<u64> {
        let mut told = Told::default();
        let end = Moment(life * DAY);
        let ending =
            || Ending { what: "thing".into(), account: String::new(), end, most_days, advice: "so act".into() };
        let hours = (0..=(life + 2) * 24).map(|hour| Moment(hour * 3600));
        let told_at = hours.filter(|now| !told.review(&[], &[ending()], *now).is_empty());
        told_at.map(|at| end.since(at) / DAY).collect()
    }

    #[test]
    fn an_end_is_told_thirty_seven_and_one_days_before_each_once() {
        assert_eq!(told_on(90, u64::MAX), [30, 7, 1]);
        assert_eq!(told_on(5, u64::MAX), [5, 1], "who comes late is told at once");
        assert_eq!(told_on(30, 10), [7, 1]);
        assert_eq!(told_on(2, 0), [0; 0]);
    }

    #[test]
    fn a_new_end_is_told_anew() {
        let mut told = Told::default();
        let ending = |days: u64| {
            [Ending {
                what: "thing".into(),
                account: String::new(),
                end: Moment(days * DAY),
                most_days: u64::MAX,
                advice: String::new(),
            }]
        };
        assert_eq!(told.review(&[], &ending(7), Moment(0)).len(), 1);
        assert_eq!(told.review(&[], &ending(90), Moment(0)).len(), 0);
        assert_eq!(told.review(&[], &ending(90), Moment(60 * DAY)).len(), 1);
        assert!(told.review(&[], &[], Moment(60 * DAY)).is_empty() && told == Told::default());
    }
}
