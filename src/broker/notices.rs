//! Notifies people of what they have to know: once when it happens, and once more when it is settled.
//!
//! The places where something goes wrong do not notify anybody themselves. One task compares the accounts' status with what it has
//! sent, which a file remembers across restarts, and sends the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::context::Context;
use super::status::AccountStatus;
use crate::clock::Moment;
use crate::config::Config;
use crate::notify::{Notice, NoticeEvent, Notifier};
use crate::oauth::certificate;

/// How often the accounts are reviewed, if nothing asks for it before.
const TICK: Duration = Duration::from_secs(60);

/// How often clients' certificates are read.
const CERTIFICATES: Duration = Duration::from_secs(3600);

const DAY: u64 = 24 * 3600;

/// Days before an expiry at which a person is notified: time to involve an administrator, time to do it, last call.
const AHEAD: [u64; 3] = [30, 7, 1];

/// The file in the state folder that remembers what was sent. It holds no secret.
const FILE: &str = "told.json";

/// Something that expires unless a person acts.
struct Expiry {
    /// Tells it from all others.
    what: String,
    account: String,
    end: Moment,
    /// The most days before its end at which a notice is sent: none in the first days of something that lives for a month.
    most_days: u64,
    /// What to do.
    advice: String,
}

/// The notices that have been sent.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NotifiedState {
    /// The accounts that need a person, each with its token set's generation at that time: a newer one shows that somebody has
    /// acted.
    needed: BTreeMap<String, u64>,
    /// By what expires: when, and the fewest days before that at which a notice was sent.
    ends: BTreeMap<String, (Moment, u64)>,
}

/// Notifies people by the configuration's `notify_command`.
pub(super) struct Notices {
    context: Arc<Context>,
    notifier: Notifier,
    /// A queue of its own: strangers can fill it, and must not delay the other notices.
    first_logins: Notifier,
    /// Something has happened that may need a notice.
    changed: Notify,
}

impl Notices {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            notifier: Notifier::default(),
            first_logins: Notifier::default(),
            changed: Notify::new(),
        }
    }

    /// Runs the command for each notice. Never ends.
    pub(super) async fn serve(&self) {
        tokio::join!(self.notifier.serve(), self.first_logins.serve());
    }

    /// Queues a notice about a first login. Does not wait for the command.
    pub(super) fn send_first_login(&self, notice: Notice) {
        self.first_logins.tell(&self.context.config().notify_command, notice);
    }

    /// Has the accounts compared soon with what was sent.
    pub(super) fn review(&self) {
        self.changed.notify_one();
    }

    /// Waits until somebody has asked for a review.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sends whatever is news about the accounts. Never ends.
    pub(super) async fn watch(&self, accounts: impl Fn() -> Vec<AccountStatus>) {
        let file = self.context.config().state_dir.join(FILE);
        let mut told = read(&file).await;
        let mut certificates = Certificates::default();
        loop {
            let before = told.clone();
            let (accounts, config) = (accounts(), self.context.config());
            let mut endings = endings(&accounts, &config);
            endings.extend(certificates.endings(&config, &accounts).await);
            let notices = told.review(&accounts, &endings, self.context.now());
            if told != before {
                // Before anybody is notified: a restart must not do it twice.
                write(file.clone(), told.clone()).await;
            }
            notices.into_iter().for_each(|notice| self.notifier.tell(&config.notify_command, notice));
            let _called = timeout(TICK, self.changed()).await;
        }
    }
}

/// Everything that expires some day.
fn endings(accounts: &[AccountStatus], config: &Config) -> Vec<Expiry> {
    let providers: BTreeSet<&String> = accounts.iter().map(|account| &account.provider).collect();
    let providers = providers.into_iter().filter_map(|name| config.providers.get(name));
    let for_all = providers.filter_map(|one| Some(Expiry::of_client(&one.name, "", one.client_expires?)));
    let own = accounts.iter().filter_map(|AccountStatus { address, .. }| {
        Some(Expiry::of_client(address, address, config.entry_of(address)?.client_expires?))
    });
    accounts.iter().filter_map(Expiry::of_idleness).chain(for_all).chain(own).collect()
}

/// When clients' certificates end, where the configuration does not say it by `client_expires`. Read now and then only,
/// because opening a PKCS#12 file costs time.
#[derive(Default)]
struct Certificates {
    ends: Vec<(String, Moment)>,
    read: Option<(Instant, Arc<Config>)>,
}

impl Certificates {
    async fn endings(&mut self, config: &Arc<Config>, accounts: &[AccountStatus]) -> Vec<Expiry> {
        let is_fresh = |(at, of): &(Instant, Arc<Config>)| at.elapsed() < CERTIFICATES && Arc::ptr_eq(of, config);
        if !self.read.as_ref().is_some_and(is_fresh) {
            self.ends = read_certificates(config).await;
            self.read = Some((Instant::now(), Arc::clone(config)));
        }
        let known = |owner: &str| accounts.iter().find(|one| one.provider == owner || one.address == owner);
        let ends = self.ends.iter().filter_map(|(owner, end)| Some((known(owner)?, owner, *end)));
        ends.map(|(one, owner, end)| Expiry::of_client(owner, if one.address == *owner { owner } else { "" }, end))
            .collect()
    }
}

/// The end of each client's certificate, by its provider's name or its account's address.
async fn read_certificates(config: &Config) -> Vec<(String, Moment)> {
    let providers = config.providers.values().map(|one| (one.name.clone(), &one.client, one.client_expires));
    let accounts = config.accounts.iter().map(|(name, one)| (name.to_string(), &one.client, one.client_expires));
    let mut ends = Vec::new();
    for (owner, client, said) in providers.chain(accounts) {
        if let (Some(client), None) = (client, said)
            && let Some(end) = certificate::expiry_of(&client.authentication).await
        {
            ends.push((owner, end));
        }
    }
    ends
}

impl Expiry {
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

    /// A refresh token that nobody uses. One in use is refreshed long before.
    fn of_idleness(account: &AccountStatus) -> Option<Self> {
        let AccountStatus { address, provider, .. } = account;
        let end = account.refresh_token_ends.filter(|_| account.reason.is_none())?;
        Some(Self {
            what: format!("refresh token of {address}"),
            account: address.clone(),
            end,
            most_days: end.since(account.token_refreshed) / DAY / 3,
            advice: format!("{provider} lets it lie idle no longer; log in once with a mail program before"),
        })
    }
}

impl NotifiedState {
    /// The notices to send now. They count as sent from then on.
    fn review(&mut self, accounts: &[AccountStatus], endings: &[Expiry], now: Moment) -> Vec<Notice> {
        let mut notices = self.review_needs(accounts);
        notices.extend(self.review_endings(endings, now));
        notices
    }

    fn review_needs(&mut self, accounts: &[AccountStatus]) -> Vec<Notice> {
        let mut notices = Vec::new();
        let notice =
            |event, address: &String, reason: String| Notice { event, account: address.clone(), reason, url: None };
        for AccountStatus { address, generation, reason, .. } in accounts {
            match (reason, self.needed.get(address)) {
                (Some(why), None) => {
                    self.needed.insert(address.clone(), *generation);
                    notices.push(notice(NoticeEvent::PersonNeeded, address, why.clone()));
                }
                (None, Some(told)) if told != generation => {
                    self.needed.remove(address);
                    notices.push(notice(
                        NoticeEvent::Settled,
                        address,
                        format!("{address} has a working authorization again"),
                    ));
                }
                _ => {}
            }
        }
        // Nobody is needed for an account that was forgotten.
        self.needed.retain(|address, _| accounts.iter().any(|account| account.address == *address));
        notices
    }

    fn review_endings(&mut self, endings: &[Expiry], now: Moment) -> Vec<Notice> {
        let mut notices = Vec::new();
        for Expiry { what, account, end, most_days, advice } in endings {
            let reached = AHEAD.into_iter().filter(|days| days <= most_days && now.after(days * DAY) >= *end).min();
            let told = self.ends.get(what).filter(|(told_end, _)| told_end == end).map(|(_, days)| *days);
            match reached {
                None => drop(self.ends.remove(what)),
                Some(days) if told.is_some_and(|told| told <= days) => {}
                Some(days) => {
                    self.ends.insert(what.clone(), (*end, days));
                    let reason = format!("the {what} ends on {end}: {advice}");
                    notices.push(Notice { event: NoticeEvent::EndsSoon, account: account.clone(), reason, url: None });
                }
            }
        }
        self.ends.retain(|what, _| endings.iter().any(|ending| ending.what == *what));
        notices
    }
}

/// Reads what was sent before; nothing, if the file cannot be read.
async fn read(file: &Path) -> NotifiedState {
    let told = tokio::fs::read(file).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    told.unwrap_or_default()
}

/// Replaces the file as a whole. If that fails, a restart sends a notice a second time, which is better than never.
async fn write(file: PathBuf, told: NotifiedState) {
    let replace = move || -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&told)?)?;
        std::fs::rename(new, file)
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(replace).await {
        warn!(%error, "cannot note which notices were sent, they may be sent again after a restart: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(generation: u64, reason: Option<&str>) -> [AccountStatus; 1] {
        let (address, reason) = ("ann@example.test".to_owned(), reason.map(str::to_owned));
        [AccountStatus { address, generation, reason, ..AccountStatus::default() }]
    }

    fn events(notices: &[Notice]) -> Vec<&'static str> {
        notices.iter().map(|notice| notice.event.name()).collect()
    }

    #[test]
    fn a_need_is_told_once_and_its_end_once_across_restarts() {
        let mut told = NotifiedState::default();
        assert!(told.review(&account(1, None), &[], Moment(0)).is_empty());
        let notices = told.review(&account(1, Some("sign in")), &[], Moment(0));
        assert_eq!((events(&notices), notices[0].reason.as_str()), (vec!["person-needed"], "sign in"));
        assert!(told.review(&account(1, Some("sign in, please")), &[], Moment(1)).is_empty());
        told = serde_json::from_slice(&serde_json::to_vec(&told).unwrap()).unwrap();
        // After a restart nobody knows of a failure that is not in the vault, and nothing has been settled by that.
        assert!(told.review(&account(1, None), &[], Moment(2)).is_empty());
        assert!(told.review(&account(1, Some("sign in")), &[], Moment(3)).is_empty());
        assert_eq!(events(&told.review(&account(2, None), &[], Moment(4))), ["settled"]);
        assert!(told.review(&account(3, None), &[], Moment(5)).is_empty());
        assert_eq!(events(&told.review(&account(3, Some("again")), &[], Moment(6))), ["person-needed"]);
        assert!(told.review(&[], &[], Moment(7)).is_empty());
        assert!(told == NotifiedState::default(), "a forgotten account is forgotten here, too");
    }

    /// On which days before the end it is told, looking every hour, of something that lives so many days.
    fn told_on(life: u64, most_days: u64) -> Vec<u64> {
        let mut told = NotifiedState::default();
        let end = Moment(life * DAY);
        let ending =
            || Expiry { what: "thing".into(), account: String::new(), end, most_days, advice: "so act".into() };
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
        let mut told = NotifiedState::default();
        let ending = |days: u64| {
            [Expiry {
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
        assert!(told.review(&[], &[], Moment(60 * DAY)).is_empty() && told == NotifiedState::default());
    }
}
