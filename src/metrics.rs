//! What is counted, for monitoring.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::protocol::Protocol;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The account, and its delegate if it has one.
type AccountLabels = Vec<(&'static str, String)>;

/// The steps towards a provider's server, in seconds: from a machine nearby to one that hardly answers in time.
const BUCKETS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0];

/// Counters of one process.
pub struct Metrics {
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
}

/// A step towards a provider's server.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The name is looked up, and the connection is made.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The token is shown, and judged.
    Auth,
}

/// An account, as far as it is measured.
pub struct Measured {
    /// Its address.
    pub address: String,
    /// Whose authorization opens it, if not its own.
    pub delegate: Option<String>,
    /// Seconds until its access token expires; negative if that was in the past.
    pub left: i64,
    /// Seconds until its refresh token ends unless it is used, where the provider has such a time.
    pub idle_left: Option<i64>,
    /// Whether a person has to authorize it anew.
    pub ended: bool,
    /// Whether nothing is asked for it any more until a person acts, in whatever way.
    pub needed: bool,
}

/// A session that is under way. A panic ends it, too.
pub struct Session<'a> {
    metrics: &'a Metrics,
    protocol: Protocol,
    /// What it has relayed to the provider, in bytes.
    pub up: u64,
    /// What it has relayed to the client, in bytes.
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
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("postkey"),
            sessions: Family::default(),
            logins: Family::default(),
            refreshes: Family::default(),
            upstream: Family::new_with_constructor(histogram),
            relayed: Family::default(),
            defects: Counter::default(),
            expiry: Family::default(),
            idle_end: Family::default(),
            ended: Family::default(),
            needed: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("sessions", "Connections of mail programs that are open", self.sessions.clone());
        registry.register("logins", "Logins of mail programs, by how they were answered", self.logins.clone());
        registry.register("refreshes", "Requests for a new access token, by their outcome", self.refreshes.clone());
        let upstream = "Time that a step towards the provider's mail server took";
        registry.register_with_unit("upstream", upstream, Unit::Seconds, self.upstream.clone());
        let relayed = "What was relayed in sessions that have ended";
        registry.register_with_unit("relayed", relayed, Unit::Bytes, self.relayed.clone());
        registry.register("defects", "Sessions that were ended by a defect of postkey", self.defects.clone());
        let expiry = "Time until the account's access token expires; it is refreshed at the first login after that";
        registry.register_with_unit("token_expiry", expiry, Unit::Seconds, self.expiry.clone());
        let idle = "Time until the account's refresh token ends unless it is used, where the provider has such a time";
        registry.register_with_unit("refresh_token_expiry", idle, Unit::Seconds, self.idle_end.clone());
        let needed = "1 if nothing is asked for the account until a person acts";
        registry.register("account_needs_person", needed, self.needed.clone());
        registry.register("account_ended", "1 if a person has to authorize the account anew", self.ended.clone());
    }

    /// A session begins; it ends when what this returns is dropped.
    pub fn session(&self, protocol: Protocol) -> Session<'_> {
        self.sessions.get_or_create(&[("protocol", protocol.name())]).inc();
        Session { metrics: self, protocol, up: 0, down: 0 }
    }

    /// A login was answered so: "ok", or the reason of the refusal.
    pub fn login(&self, protocol: Protocol, result: &'static str) {
        self.logins.get_or_create(&[("protocol", protocol.name()), ("result", result)]).inc();
    }

    /// A refresh came out so: "ok", or the kind of its failure.
    pub fn refresh(&self, result: &'static str) {
        self.refreshes.get_or_create(&[("result", result)]).inc();
    }

    /// A step towards a provider's server has been made.
    pub fn upstream(&self, protocol: Protocol, step: Step, time: Duration) {
        let step = match step {
            Step::Connect => "connect",
            Step::Tls => "tls",
            Step::Auth => "auth",
        };
        let labels = [("protocol", protocol.name()), ("step", step)];
        self.upstream.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Everything, in the text form of OpenMetrics 1.0, which Prometheus reads.
    pub fn text(&self, accounts: &[Measured]) -> String {
        // An account that was forgotten is not shown any more.
        self.expiry.clear();
        self.ended.clear();
        self.idle_end.clear();
        self.needed.clear();
        for account in accounts {
            let mut labels = vec![("account", account.address.clone())];
            labels.extend(account.delegate.clone().map(|delegate| ("delegate", delegate)));
            self.expiry.get_or_create(&labels).set(account.left);
            self.ended.get_or_create(&labels).set(account.ended.into());
            self.needed.get_or_create(&labels).set(account.needed.into());
            if let Some(left) = account.idle_left {
                self.idle_end.get_or_create(&labels).set(left);
            }
        }
        let mut text = String::new();
        // A String takes everything.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_happened_is_in_the_text() {
        let metrics = Metrics::default();
        let _open = metrics.session(Protocol::Imap);
        (metrics.session(Protocol::Imap).up, metrics.session(Protocol::Imap).down) = (3, 500);
        metrics.login(Protocol::Smtp, "credentials");
        metrics.refresh("ok");
        metrics.upstream(Protocol::Pop3, Step::Tls, Duration::from_millis(200));
        let account = |address: &str| Measured {
            address: address.to_owned(),
            delegate: None,
            left: -5,
            idle_left: Some(86400),
            ended: true,
            needed: true,
        };
        let text = metrics.text(&[account("ann@example.test")]);
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
            "postkey_account_needs_person{account=\"ann@example.test\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(!metrics.text(&[account("ben@example.test")]).contains("ann@"), "forgotten accounts are gone");
    }
}
