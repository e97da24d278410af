//! Counters for monitoring.

use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::census::{Census, OfProvider};
use super::status::{AccountState, AccountStatus};
use super::throttle::{Occupancy, Totals};
use crate::certificates::CertificateExpiry;
use crate::clock::Moment;
use crate::mutex::lock;
use crate::protocol::Protocol;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The account, and its delegate if it has one.
type AccountLabels = Vec<(&'static str, String)>;

/// Buckets for the steps of a login, in seconds: from a nearby server to one that hardly answers in time.
const BUCKETS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0];

pub struct Metrics {
    /// Locked during a scrape, because another one at the same time would see families that are only partly filled.
    scrape: Mutex<()>,
    registry: Registry,
    sessions: Family<Labels<1>, Gauge>,
    logins: Family<Labels<2>, Counter>,
    refreshes: Family<Labels<1>, Counter>,
    upstream: Family<Labels<2>, Histogram, fn() -> Histogram>,
    relayed: Family<Labels<2>, Counter>,
    defects: Counter,
    expiry: Family<AccountLabels, Gauge>,
    idle_end: Family<AccountLabels, Gauge>,
    ended: Family<AccountLabels, Gauge>,
    needed: Family<AccountLabels, Gauge>,
    connections: Family<AccountLabels, Gauge>,
    limits: Family<AccountLabels, Gauge>,
    waiting: Family<AccountLabels, Gauge>,
    backoffs: Family<AccountLabels, Gauge>,
    degraded: Gauge,
    damaged: Gauge,
    clients: Family<[(&'static str, String); 1], Gauge>,
    certificates: Family<[(&'static str, String); 1], Gauge>,
    /// The accounts of each provider in each state.
    accounts: Family<[(&'static str, String); 2], Gauge>,
    /// The same as `connections` and so on, of all accounts of a provider.
    all_connections: Family<[(&'static str, String); 2], Gauge>,
    all_waiting: Family<[(&'static str, String); 2], Gauge>,
    all_backoffs: Family<[(&'static str, String); 1], Gauge>,
    first_idle_end: Family<[(&'static str, String); 1], Gauge>,
    /// When the listeners' certificates expire.
    certificate_ends: Mutex<Vec<CertificateExpiry>>,
}

/// What the metrics show of the present.
pub(super) struct Figures<'a> {
    pub(super) census: &'a Census,
    pub(super) connections: Totals,
    /// The accounts that have series of their own.
    pub(super) each: &'a [AccountStatus],
    /// When client secrets and certificates expire, by the name of the provider or the address of the account.
    pub(super) clients: Vec<(String, Moment)>,
}

/// A step of a login at a provider's server.
#[derive(Clone, Copy, Debug)]
pub enum UpstreamStep {
    /// With the name lookup.
    Connect,
    Tls,
    /// From sending the token to the server's answer.
    Auth,
}

/// A session that is under way. It is counted until it is dropped, also by a panic.
pub struct Session<'a> {
    metrics: &'a Metrics,
    protocol: Protocol,
    /// Bytes relayed to the provider.
    pub up: u64,
    /// Bytes relayed to the client.
    pub down: u64,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let (metrics, protocol) = (self.metrics, self.protocol.name());
        metrics.sessions.get_or_create(&[("protocol", protocol)]).dec();
        metrics.relayed.get_or_create(&[("protocol", protocol), ("direction", "up")]).inc_by(self.up);
        metrics.relayed.get_or_create(&[("protocol", protocol), ("direction", "down")]).inc_by(self.down);
        if std::thread::panicking() {
            metrics.defects.inc();
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("postkey");
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let (to, seconds, bytes) = (&mut registry, Some(Unit::Seconds), Some(Unit::Bytes));
        let upstream = "Time that a step towards the provider's mail server took";
        let expiry = "Time until the account's access token expires; it is refreshed at the first login after that";
        let idle_end =
            "Time until the account's refresh token expires if it is not used, if the provider has such a limit";
        let backoffs = "Time for which the provider wants no logins to the account";
        let degraded = "1 if the newest records of the vault are only in memory, or if its database cannot be used";
        let damaged = "Records of the vault that are damaged, or that are or may be older than before";
        let clients = "Time until a client secret or certificate of a provider or account expires, if that is known";
        let certificates = "Time until the certificate that listeners use expires";
        let first_idle_end = "Time until the first refresh token of the provider expires if it is not used";
        Self {
            accounts: add(to, "accounts", None, "Accounts, by state"),
            all_connections: add(to, "connections", None, "Connections to the provider"),
            all_waiting: add(to, "connections_waiting", None, "Logins that wait for a connection to end"),
            all_backoffs: add(to, "accounts_backoff", None, "Mailboxes to which the provider wants no logins now"),
            first_idle_end: add(to, "refresh_token_first_expiry", seconds.clone(), first_idle_end),
            scrape: Mutex::default(),
            sessions: add(to, "sessions", None, "Open connections of mail programs"),
            logins: add(to, "logins", None, "Logins of mail programs, by result"),
            refreshes: add(to, "refreshes", None, "Requests for a new access token, by result"),
            upstream: register(to, "upstream", seconds.clone(), upstream, Family::new_with_constructor(histogram)),
            relayed: add(to, "relayed", bytes, "Bytes relayed in sessions that have ended"),
            defects: add(to, "defects", None, "Sessions that ended by a defect of postkey"),
            expiry: add(to, "token_expiry", seconds.clone(), expiry),
            idle_end: add(to, "refresh_token_expiry", seconds.clone(), idle_end),
            needed: add(to, "account_needs_person", None, "1 if the account is not refreshed until a person acts"),
            connections: add(to, "account_connections", None, "Connections of the account to the provider"),
            limits: add(to, "account_connections_limit", None, "Allowed connections of the account to the provider"),
            waiting: add(to, "account_connections_waiting", None, "Logins that wait for one of the connections to end"),
            backoffs: add(to, "account_backoff", seconds, backoffs),
            ended: add(to, "account_ended", None, "1 if a person has to authorize the account again"),
            degraded: add(to, "vault_degraded", None, degraded),
            damaged: add(to, "vault_damaged", None, damaged),
            clients: add(to, "client_expiry", Some(Unit::Seconds), clients),
            certificates: add(to, "certificate_expiry", Some(Unit::Seconds), certificates),
            certificate_ends: Mutex::default(),
            registry,
        }
    }
}

fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str) -> M {
    register(registry, name, unit, help, M::default())
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, unit: Option<Unit>, help: &str, metric: M) -> M {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

impl Metrics {
    pub fn session(&self, protocol: Protocol) -> Session<'_> {
        self.sessions.get_or_create(&[("protocol", protocol.name())]).inc();
        Session { metrics: self, protocol, up: 0, down: 0 }
    }

    /// Counts a login. The result is "ok" or the reason of the refusal.
    pub fn login(&self, protocol: Protocol, result: &'static str) {
        self.logins.get_or_create(&[("protocol", protocol.name()), ("result", result)]).inc();
    }

    /// Counts a refresh. The result is "ok" or the kind of the failure.
    pub fn refresh(&self, result: &'static str) {
        self.refreshes.get_or_create(&[("result", result)]).inc();
    }

    pub fn upstream(&self, protocol: Protocol, step: UpstreamStep, time: Duration) {
        let step = match step {
            UpstreamStep::Connect => "connect",
            UpstreamStep::Tls => "tls",
            UpstreamStep::Auth => "auth",
        };
        let labels = [("protocol", protocol.name()), ("step", step)];
        self.upstream.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Replaces the listeners' certificates.
    pub fn certificates(&self, ends: Vec<CertificateExpiry>) {
        *lock(&self.certificate_ends) = ends;
    }

    /// When the listeners' certificates expire.
    pub fn certificate_expiries(&self) -> Vec<CertificateExpiry> {
        lock(&self.certificate_ends).clone()
    }

    /// All metrics in the text form of OpenMetrics 1.0, which Prometheus reads.
    pub(super) fn text(&self, figures: &Figures<'_>, now: Moment) -> String {
        let _lock = lock(&self.scrape);
        self.measure_all(figures, now);
        // An account that was forgotten must disappear.
        let of_accounts = [&self.expiry, &self.idle_end, &self.ended, &self.needed];
        let throttles = [&self.connections, &self.limits, &self.waiting, &self.backoffs];
        of_accounts.into_iter().chain(throttles).for_each(Family::clear);
        figures.each.iter().for_each(|account| self.measure(account, now));
        let certificates = self.certificate_expiries().into_iter().map(|one| (one.file, one.ends)).collect();
        for (family, name, ends) in
            [(&self.clients, "client", &figures.clients), (&self.certificates, "file", &certificates)]
        {
            family.clear();
            for (of, end) in ends {
                family.get_or_create(&[(name, of.clone())]).set(left(*end, now));
            }
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _written = encode(&mut text, &self.registry);
        text
    }

    /// Measures all accounts together.
    fn measure_all(&self, Figures { census, connections, .. }: &Figures<'_>, now: Moment) {
        self.degraded.set(census.is_degraded.into());
        self.damaged.set(number(census.damaged.count + census.older.count));
        [&self.accounts, &self.all_connections, &self.all_waiting].into_iter().for_each(Family::clear);
        [&self.all_backoffs, &self.first_idle_end].into_iter().for_each(Family::clear);
        for (provider, OfProvider { states, first_end }) in &census.providers {
            for state in AccountState::ALL {
                let count = states.get(&state).copied().unwrap_or_default();
                let labels = [("provider", provider.clone()), ("state", state.name().to_owned())];
                self.accounts.get_or_create(&labels).set(number(count));
            }
            let labels = [("provider", provider.clone())];
            let paused = connections.backoffs.get(provider).copied().unwrap_or_default();
            self.all_backoffs.get_or_create(&labels).set(number(paused));
            if let Some(end) = first_end {
                self.first_idle_end.get_or_create(&labels).set(left(*end, now));
            }
        }
        for ((provider, protocol), (open, waiting)) in &connections.connections {
            let labels = [("provider", provider.clone()), ("protocol", protocol.name().to_owned())];
            self.all_connections.get_or_create(&labels).set(number(*open));
            self.all_waiting.get_or_create(&labels).set(number(*waiting));
        }
    }

    fn measure(&self, account: &AccountStatus, now: Moment) {
        let mut labels = vec![("account", account.address.clone())];
        labels.extend(account.delegate.clone().map(|delegate| ("delegate", delegate)));
        let set = |family: &Family<AccountLabels, Gauge>, value| {
            family.get_or_create(&labels).set(value);
        };
        set(&self.expiry, left(account.token_expires, now));
        set(&self.ended, (account.state == AccountState::Ended).into());
        set(&self.needed, (account.state != AccountState::Ready).into());
        set(&self.backoffs, account.backoff.as_ref().map_or(0, |backoff| left(backoff.until, now)));
        if let Some(end) = account.refresh_token_ends {
            set(&self.idle_end, left(end, now));
        }
        for Occupancy { protocol, open, limit, waiting } in &account.connections {
            let mut labels = labels.clone();
            labels.push(("protocol", protocol.name().to_owned()));
            self.connections.get_or_create(&labels).set(number(*open));
            self.waiting.get_or_create(&labels).set(number(*waiting));
            if let Some(limit) = limit {
                self.limits.get_or_create(&labels).set(number(*limit));
            }
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The seconds until then; negative if it is past.
fn left(end: Moment, now: Moment) -> i64 {
    let seconds = |moment: Moment| i64::try_from(moment.0).unwrap_or(i64::MAX);
    seconds(end).saturating_sub(seconds(now))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::throttle::Backoff;
    use super::*;
    use crate::vault::StoredAccount;

    #[test]
    fn the_text_contains_all_metrics() {
        let metrics = Metrics::default();
        let _open = metrics.session(Protocol::Imap);
        (metrics.session(Protocol::Imap).up, metrics.session(Protocol::Imap).down) = (3, 500);
        metrics.login(Protocol::Smtp, "credentials");
        metrics.refresh("ok");
        metrics.upstream(Protocol::Pop3, UpstreamStep::Tls, Duration::from_millis(200));
        let [imap, smtp] = [(Protocol::Imap, 3, Some(15), 1), (Protocol::Smtp, 2, None, 0)]
            .map(|(protocol, open, limit, waiting)| Occupancy { protocol, open, limit, waiting });
        let account = |address: &str| AccountStatus {
            address: address.to_owned(),
            state: AccountState::Ended,
            token_expires: Moment(95),
            refresh_token_ends: Some(Moment(86_500)),
            connections: vec![imap, smtp],
            backoff: Some(Backoff { until: Moment(130), why: String::new() }),
            doubtful: true,
            ..AccountStatus::default()
        };
        let clients = vec![("corp".to_owned(), Moment(86_500))];
        let file = "/etc/postkey/cert.pem".to_owned();
        metrics.certificates(vec![CertificateExpiry { file, ends: Moment(40), soon: 0, advice: "" }]);
        let mut census = Census { is_degraded: true, ..Census::default() };
        let mut record = StoredAccount::default();
        (record.provider, record.doubtful) = ("own".to_owned(), true);
        census.count(&record, AccountState::Ended, None);
        census.count(&record, AccountState::Ready, Some(Moment(86_500)));
        census.damaged.add("eve@example.test");
        let of = |provider: &str| (provider.to_owned(), Protocol::Imap);
        let connections = Totals {
            connections: BTreeMap::from([(of("own"), (7, 2))]),
            backoffs: BTreeMap::from([("own".to_owned(), 4)]),
        };
        let one = [account("ann@example.test")];
        let text = metrics.text(&Figures { census: &census, connections, each: &one, clients }, Moment(100));
        for line in [
            "postkey_sessions{protocol=\"imap\"} 1",
            "postkey_relayed_bytes_total{protocol=\"imap\",direction=\"down\"} 500",
            "postkey_logins_total{protocol=\"smtp\",result=\"credentials\"} 1",
            "postkey_refreshes_total{result=\"ok\"} 1",
            "postkey_upstream_seconds_bucket{le=\"0.3\",protocol=\"pop3\",step=\"tls\"} 1",
            "postkey_upstream_seconds_bucket{le=\"0.1\",protocol=\"pop3\",step=\"tls\"} 0",
            "postkey_token_expiry_seconds{account=\"ann@example.test\"} -5",
            "postkey_refresh_token_expiry_seconds{account=\"ann@example.test\"} 86400",
            "postkey_account_ended{account=\"ann@example.test\"} 1",
            "postkey_account_connections{account=\"ann@example.test\",protocol=\"imap\"} 3",
            "postkey_account_connections_limit{account=\"ann@example.test\",protocol=\"imap\"} 15",
            "postkey_account_connections_waiting{account=\"ann@example.test\",protocol=\"imap\"} 1",
            "postkey_account_connections{account=\"ann@example.test\",protocol=\"smtp\"} 2",
            "postkey_account_backoff_seconds{account=\"ann@example.test\"} 30",
            "postkey_account_needs_person{account=\"ann@example.test\"} 1",
            "postkey_vault_degraded 1",
            "postkey_vault_damaged 3",
            "postkey_accounts{provider=\"own\",state=\"ended\"} 1",
            "postkey_accounts{provider=\"own\",state=\"ready\"} 1",
            "postkey_accounts{provider=\"own\",state=\"refused\"} 0",
            "postkey_accounts_backoff{provider=\"own\"} 4",
            "postkey_refresh_token_first_expiry_seconds{provider=\"own\"} 86400",
            "postkey_connections{provider=\"own\",protocol=\"imap\"} 7",
            "postkey_connections_waiting{provider=\"own\",protocol=\"imap\"} 2",
            "postkey_client_expiry_seconds{client=\"corp\"} 86400",
            "postkey_certificate_expiry_seconds{file=\"/etc/postkey/cert.pem\"} -60",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        let (census, other) = (Census::default(), [account("ben@example.test")]);
        let text = metrics.text(&figures(&census, &other), Moment(100));
        assert!(!text.contains("ann@") && !text.contains("\"own\""), "forgotten accounts disappear");
    }

    fn figures<'a>(census: &'a Census, each: &'a [AccountStatus]) -> Figures<'a> {
        Figures { census, connections: Totals::default(), each, clients: Vec::new() }
    }

    /// Each scrape clears the families of the accounts and fills them again.
    #[test]
    fn scrapes_at_the_same_time_see_all_accounts() {
        let account = |number| AccountStatus { address: format!("u{number}@example.test"), ..AccountStatus::default() };
        let accounts: Vec<_> = (0..50).map(account).collect();
        let metrics = Metrics::default();
        let census = Census::default();
        let scrape = || {
            for _ in 0..200 {
                let text = metrics.text(&figures(&census, &accounts), Moment(0));
                assert_eq!(text.matches("postkey_account_ended{").count(), 50);
            }
        };
        std::thread::scope(|threads| (0..4).for_each(|_| drop(threads.spawn(scrape))));
    }
}
