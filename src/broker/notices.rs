//! Notifies people when they have to act, and again when the problem is solved.
//!
//! The code that finds a problem notifies nobody. One task compares the accounts' status with the notices that were sent, which a
//! file remembers across restarts, and sends what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::context::Context;
use super::status::AccountStatus;
use crate::certificates::CertificateExpiry;
use crate::clock::Moment;
use crate::config::Config;
use crate::mutex::lock;
use crate::notify::{Notice, NoticeEvent, Notifier};
use crate::oauth::certificate;
use crate::vault::StoredAccount;

/// How often to compare, if nothing asks for it earlier.
const TICK: Duration = Duration::from_secs(60);

/// How long to gather what has changed, because the file is written once for all of it.
const GATHERING: Duration = Duration::from_millis(300);

/// How often to read the clients' certificates.
const CERTIFICATES: Duration = Duration::from_secs(3600);

const DAY: u64 = 24 * 3600;

/// Days before an expiry at which a person is notified: time to involve an administrator, time to do it, last call.
const AHEAD: [u64; 3] = [30, 7, 1];

/// The file in the state folder that remembers what was sent. It holds no secret.
const FILE: &str = "told.json";

/// Something that expires unless a person acts.
struct Expiry {
    /// Its name, which also identifies it.
    what: String,
    account: String,
    end: Moment,
    /// The most days before its end at which a notice is sent, so that a refresh token of a month causes none in its first days.
    most_days: u64,
    advice: String,
}

/// When a client secret or the certificate of a client's key expires.
struct ClientExpiry {
    /// The name of its provider, or the address of its account.
    owner: String,
    /// The account; empty if it is for all accounts of a provider.
    account: String,
    end: Moment,
}

/// The notices that have been sent.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NotifiedState {
    /// The accounts that need a person, each with the generation of its token set at that time. A newer one shows that somebody
    /// has acted.
    needed: BTreeMap<String, u64>,
    /// By the name of what expires: when, and the fewest days before that at which a notice was sent.
    ends: BTreeMap<String, (Moment, u64)>,
}

/// Notifies people with `notify_command`.
pub(super) struct Notices {
    context: Arc<Context>,
    notifier: Notifier,
    /// A separate queue, because strangers can fill it, and must not delay the other notices.
    first_logins: Notifier,
    changed: Notify,
    /// The owners of the accounts that may have changed.
    suspects: Mutex<BTreeSet<String>>,
    /// When client secrets and certificates expire, by their owners.
    clients: Mutex<Vec<(String, Moment)>>,
}

impl Notices {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            notifier: Notifier::default(),
            first_logins: Notifier::default(),
            changed: Notify::new(),
            suspects: Mutex::default(),
            clients: Mutex::default(),
        }
    }

    /// Runs the command for each notice. Never returns.
    pub(super) async fn serve(&self) {
        tokio::join!(self.notifier.serve(), self.first_logins.serve());
    }

    /// Queues a notice about a first login. Does not wait for the command.
    pub(super) fn send_first_login(&self, notice: Notice) {
        self.first_logins.tell(&self.context.config().notify_command, notice);
    }

    /// When client secrets and certificates expire, by the name of the provider or the address of the account.
    pub(super) fn client_expiries(&self) -> Vec<(String, Moment)> {
        lock(&self.clients).clone()
    }

    /// Asks the task to compare this account soon.
    pub(super) fn review(&self, owner: &str) {
        lock(&self.suspects).insert(owner.to_owned());
        self.changed.notify_one();
    }

    /// Waits until somebody calls [`review`](Self::review).
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sends what is new about the accounts and the listeners' certificates. Never returns. `one` returns the status of an
    /// account, because a change of one must not cost more if there are many others.
    pub(super) async fn watch(
        &self,
        one: impl Fn(&str) -> Option<AccountStatus>,
        of_listeners: impl Fn() -> Vec<CertificateExpiry>,
    ) {
        let file = self.context.config().state_dir.join(FILE);
        let mut sent = read(&file).await;
        let mut certificates = Certificates::default();
        loop {
            lock(&self.suspects).clear();
            let before = sent.clone();
            let expiries = self.expiries(&mut certificates, of_listeners()).await;
            let records = self.context.vault.accounts();
            let accounts = records.iter().filter_map(|record| one(&record.address));
            let notices = sent.review(accounts, &expiries, self.context.now());
            drop(records);
            self.send(notices, &file, &before, &sent).await;
            let next = Instant::now() + TICK;
            while timeout_at(next, self.changed()).await.is_ok() {
                sleep(GATHERING).await;
                let before = sent.clone();
                let mut notices = Vec::new();
                for owner in std::mem::take(&mut *lock(&self.suspects)) {
                    notices.extend(sent.review_one(&owner, one(&owner), self.context.now()));
                }
                self.send(notices, &file, &before, &sent).await;
            }
        }
    }

    /// What expires, except for refresh tokens.
    async fn expiries(&self, certificates: &mut Certificates, of_listeners: Vec<CertificateExpiry>) -> Vec<Expiry> {
        let (accounts, config) = (self.context.vault.accounts(), self.context.config());
        let mut clients = client_expiries(&accounts, &config);
        clients.extend(certificates.expiries(&config, &accounts).await);
        *lock(&self.clients) = clients.iter().map(|client| (client.owner.clone(), client.end)).collect();
        let clients = clients.into_iter().map(Expiry::of_client);
        clients.chain(of_listeners.into_iter().map(Expiry::of_certificate)).collect()
    }

    /// Sends notices. They are stored before, so that a restart does not send them twice.
    async fn send(&self, notices: Vec<Notice>, file: &Path, before: &NotifiedState, sent: &NotifiedState) {
        if sent != before {
            write(file.to_owned(), sent.clone()).await;
        }
        let command = &self.context.config().notify_command;
        notices.into_iter().for_each(|notice| self.notifier.tell(command, notice));
    }
}

/// The client secrets and certificates whose expiry is in the configuration.
fn client_expiries(accounts: &[Arc<StoredAccount>], config: &Config) -> Vec<ClientExpiry> {
    let providers: BTreeSet<&String> = accounts.iter().map(|account| &account.provider).collect();
    let providers = providers.into_iter().filter_map(|name| config.providers.get(name));
    let for_all = providers.filter_map(|one| {
        Some(ClientExpiry { owner: one.name.clone(), account: String::new(), end: one.client_expires? })
    });
    let own = accounts.iter().map(|account| &account.address).filter_map(|address| {
        let end = config.entry_of(address)?.client_expires?;
        Some(ClientExpiry { owner: address.clone(), account: address.clone(), end })
    });
    for_all.chain(own).collect()
}

/// When the clients' certificates expire, if the configuration has no `client_expires`. They are read only now and then, because
/// opening a PKCS#12 file takes time.
#[derive(Default)]
struct Certificates {
    ends: Vec<(String, Moment)>,
    read: Option<(Instant, Arc<Config>)>,
}

impl Certificates {
    async fn expiries(&mut self, config: &Arc<Config>, accounts: &[Arc<StoredAccount>]) -> Vec<ClientExpiry> {
        let is_fresh = |(at, of): &(Instant, Arc<Config>)| at.elapsed() < CERTIFICATES && Arc::ptr_eq(of, config);
        if !self.read.as_ref().is_some_and(is_fresh) {
            self.ends = read_certificates(config).await;
            self.read = Some((Instant::now(), Arc::clone(config)));
        }
        let addresses: BTreeSet<&str> = accounts.iter().map(|one| one.address.as_str()).collect();
        let providers: BTreeSet<&str> = accounts.iter().map(|one| one.provider.as_str()).collect();
        let known = |owner: &str| addresses.contains(owner) || providers.contains(owner);
        let of_one = |(owner, end): &(String, Moment)| ClientExpiry {
            owner: owner.clone(),
            account: if addresses.contains(owner.as_str()) { owner.clone() } else { String::new() },
            end: *end,
        };
        self.ends.iter().filter(|(owner, _)| known(owner)).map(of_one).collect()
    }
}

/// The expiry of each client's certificate, by the name of its provider or the address of its account.
async fn read_certificates(config: &Config) -> Vec<(String, Moment)> {
    let providers = config.providers.values().map(|one| (one.name.clone(), &one.client, one.client_expires));
    let accounts = config.accounts.iter().map(|(name, one)| (name.to_string(), &one.client, one.client_expires));
    let mut ends = Vec::new();
    for (owner, client, configured) in providers.chain(accounts) {
        if let (Some(client), None) = (client, configured)
            && let Some(end) = certificate::expiry_of(&client.authentication).await
        {
            ends.push((owner, end));
        }
    }
    ends
}

impl Expiry {
    fn of_client(ClientExpiry { owner, account, end }: ClientExpiry) -> Self {
        Self {
            what: format!("client secret or certificate of {owner}"),
            account,
            end,
            most_days: u64::MAX,
            advice: "create a new one at the provider, replace the old one, and correct client_expires".to_owned(),
        }
    }

    fn of_certificate(CertificateExpiry { file, ends, soon, advice }: CertificateExpiry) -> Self {
        Self {
            what: format!("certificate {file}"),
            account: String::new(),
            end: ends,
            most_days: soon / DAY,
            advice: advice.to_owned(),
        }
    }

    /// The expiry of a refresh token that is not used. One in use is refreshed long before.
    fn of_idleness(account: &AccountStatus) -> Option<Self> {
        let AccountStatus { address, provider, .. } = account;
        let end = account.refresh_token_ends.filter(|_| account.reason.is_none())?;
        Some(Self {
            what: idleness(address),
            account: address.clone(),
            end,
            most_days: end.since(account.token_refreshed) / DAY / 3,
            advice: format!("{provider} ends it if it is not used; log in with a mail program before then"),
        })
    }
}

impl NotifiedState {
    /// Returns the notices to send now. They count as sent. The accounts come one by one, because there can be many.
    fn review(
        &mut self,
        accounts: impl IntoIterator<Item = AccountStatus>,
        expiries: &[Expiry],
        now: Moment,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut needed: BTreeSet<String> = self.needed.keys().cloned().collect();
        let mut ends: BTreeSet<String> = self.ends.keys().cloned().collect();
        for account in accounts {
            needed.remove(&account.address);
            notices.extend(self.review_need(&account));
            if let Some(expiry) = Expiry::of_idleness(&account) {
                ends.remove(&expiry.what);
                notices.extend(self.review_expiry(&expiry, now));
            }
        }
        for expiry in expiries {
            ends.remove(&expiry.what);
            notices.extend(self.review_expiry(expiry, now));
        }
        // The rest belong to accounts that were forgotten, so nobody has to act.
        self.needed.retain(|address, _| !needed.contains(address));
        self.ends.retain(|what, _| !ends.contains(what));
        notices
    }

    /// The same for one account, which is None if it was forgotten.
    fn review_one(&mut self, address: &str, account: Option<AccountStatus>, now: Moment) -> Vec<Notice> {
        let Some(account) = account else {
            self.needed.remove(address);
            self.ends.remove(&idleness(address));
            return Vec::new();
        };
        let expiry = Expiry::of_idleness(&account);
        if expiry.is_none() {
            self.ends.remove(&idleness(address));
        }
        let need = self.review_need(&account);
        need.into_iter().chain(expiry.and_then(|expiry| self.review_expiry(&expiry, now))).collect()
    }

    fn review_need(&mut self, AccountStatus { address, generation, reason, .. }: &AccountStatus) -> Option<Notice> {
        let notice = |event, reason| Some(Notice { event, account: address.clone(), reason, url: None });
        match (reason, self.needed.get(address)) {
            (Some(why), None) => {
                self.needed.insert(address.clone(), *generation);
                notice(NoticeEvent::PersonNeeded, why.clone())
            }
            (None, Some(before)) if before != generation => {
                self.needed.remove(address);
                notice(NoticeEvent::Settled, format!("{address} has a working authorization again"))
            }
            _ => None,
        }
    }

    fn review_expiry(&mut self, expiry: &Expiry, now: Moment) -> Option<Notice> {
        let Expiry { what, account, end, most_days, advice } = expiry;
        let reached = AHEAD.into_iter().filter(|days| days <= most_days && now.after(days * DAY) >= *end).min();
        let sent = self.ends.get(what).filter(|(sent_end, _)| sent_end == end).map(|(_, days)| *days);
        match reached {
            None => {
                self.ends.remove(what);
                None
            }
            Some(days) if sent.is_some_and(|sent| sent <= days) => None,
            Some(days) => {
                self.ends.insert(what.clone(), (*end, days));
                let reason = format!("the {what} expires on {end}: {advice}");
                Some(Notice { event: NoticeEvent::EndsSoon, account: account.clone(), reason, url: None })
            }
        }
    }
}

/// The name of what expires if an account's refresh token is not used.
fn idleness(address: &str) -> String {
    format!("refresh token of {address}")
}

/// Reads what was sent before. If the file cannot be read, nothing counts as sent.
async fn read(file: &Path) -> NotifiedState {
    let sent = tokio::fs::read(file).await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    sent.unwrap_or_default()
}

/// Replaces the whole file. If that fails, notices are sent again after a restart, which is better than never.
async fn write(file: PathBuf, sent: NotifiedState) {
    let replace = move || -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&sent)?)?;
        std::fs::rename(new, file)
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(replace).await {
        warn!(%error, "cannot store which notices were sent, so they may be sent again after a restart: {error}");
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
    fn a_need_and_its_end_are_notified_once_also_across_restarts() {
        let mut sent = NotifiedState::default();
        assert!(sent.review(account(1, None), &[], Moment(0)).is_empty());
        let notices = sent.review(account(1, Some("sign in")), &[], Moment(0));
        assert_eq!((events(&notices), notices[0].reason.as_str()), (vec!["person-needed"], "sign in"));
        assert!(sent.review(account(1, Some("sign in, please")), &[], Moment(1)).is_empty());
        sent = serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
        // After a restart, a failure that is not in the vault is unknown, which does not mean that it is settled.
        assert!(sent.review(account(1, None), &[], Moment(2)).is_empty());
        assert!(sent.review(account(1, Some("sign in")), &[], Moment(3)).is_empty());
        assert_eq!(events(&sent.review(account(2, None), &[], Moment(4))), ["settled"]);
        assert!(sent.review(account(3, None), &[], Moment(5)).is_empty());
        assert_eq!(events(&sent.review(account(3, Some("again")), &[], Moment(6))), ["person-needed"]);
        assert!(sent.review([], &[], Moment(7)).is_empty());
        assert!(sent == NotifiedState::default(), "a forgotten account is forgotten here, too");
    }

    #[test]
    fn a_review_of_one_account_leaves_the_others_alone() {
        let mut sent = NotifiedState::default();
        let [ann] = account(1, Some("sign in"));
        let ben = AccountStatus { address: "ben@example.test".to_owned(), ..ann.clone() };
        assert_eq!(sent.review([ann.clone(), ben.clone()], &[], Moment(0)).len(), 2);
        let [settled] = account(2, None);
        assert_eq!(events(&sent.review_one("ann@example.test", Some(settled), Moment(1))), ["settled"]);
        assert!(sent.review([ann.clone(), ben.clone()], &[], Moment(2)).len() == 1, "only the other one was notified");
        assert!(sent.review_one("ann@example.test", None, Moment(3)).is_empty());
        assert!(sent.needed.keys().eq(["ben@example.test"]));
        let idle = AccountStatus { refresh_token_ends: Some(Moment(30 * DAY)), ..account(1, None)[0].clone() };
        assert_eq!(events(&sent.review_one("ann@example.test", Some(idle.clone()), Moment(24 * DAY))), ["ends-soon"]);
        assert!(sent.review_one("ann@example.test", Some(idle), Moment(24 * DAY)).is_empty());
        assert!(sent.review_one("ann@example.test", None, Moment(24 * DAY)).is_empty() && sent.ends.is_empty());
    }

    /// How many days before its end something that lives for `life` days causes notices, with a review every hour.
    fn days_of_notices(life: u64, most_days: u64) -> Vec<u64> {
        let mut sent = NotifiedState::default();
        let end = Moment(life * DAY);
        let expiry =
            || Expiry { what: "thing".into(), account: String::new(), end, most_days, advice: "so act".into() };
        let hours = (0..=(life + 2) * 24).map(|hour| Moment(hour * 3600));
        let times = hours.filter(|now| !sent.review([], &[expiry()], *now).is_empty());
        times.map(|at| end.since(at) / DAY).collect()
    }

    #[test]
    fn an_expiry_is_notified_thirty_seven_and_one_days_before() {
        assert_eq!(days_of_notices(90, u64::MAX), [30, 7, 1]);
        assert_eq!(days_of_notices(5, u64::MAX), [5, 1], "the first notice is late");
        assert_eq!(days_of_notices(30, 10), [7, 1]);
        assert_eq!(days_of_notices(2, 0), [0; 0]);
    }

    #[test]
    fn a_listeners_certificate_is_notified_as_late_as_its_life_allows() {
        let days = |soon| {
            let (file, advice) = ("cert.pem".to_owned(), "renew it");
            let expiry = Expiry::of_certificate(CertificateExpiry { file, ends: Moment(90 * DAY), soon, advice });
            assert_eq!((expiry.what.as_str(), expiry.advice.as_str()), ("certificate cert.pem", "renew it"));
            days_of_notices(90, expiry.most_days)
        };
        assert_eq!(days(14 * DAY), [7, 1]);
        assert_eq!(days(36 * 3600), [1], "of six days");
    }

    #[test]
    fn a_new_expiry_is_notified_again() {
        let mut sent = NotifiedState::default();
        let expiry = |days: u64| {
            [Expiry {
                what: "thing".into(),
                account: String::new(),
                end: Moment(days * DAY),
                most_days: u64::MAX,
                advice: String::new(),
            }]
        };
        assert_eq!(sent.review([], &expiry(7), Moment(0)).len(), 1);
        assert_eq!(sent.review([], &expiry(90), Moment(0)).len(), 0);
        assert_eq!(sent.review([], &expiry(90), Moment(60 * DAY)).len(), 1);
        assert!(sent.review([], &[], Moment(60 * DAY)).is_empty() && sent == NotifiedState::default());
    }
}
