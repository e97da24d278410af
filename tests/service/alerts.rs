//! The alerts and the dashboard in packaging/monitoring, against the metrics of the real daemon and with Prometheus itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postkey::protocol::{Protocol, Security};
use serde_json::Value;

use crate::manager::Service;
use crate::support::house::{ANN, Way, free_port, until};
use crate::support::skipped::skipped;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap()
}

/// All expressions that the dashboard sends to Prometheus, with values for Grafana's variables.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("packaging/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = targets.map(|target| target["expr"].as_str().expect("an expression"));
    let filled = |query: &str| query.replace("$__rate_interval", "5m").replace("$__range", "1h");
    queries.map(filled).collect()
}

/// The expressions of all alerts.
fn alert_expressions() -> String {
    let text = read("packaging/monitoring/alerts.yml");
    let blocks = text.split("        expr: ").skip(1);
    blocks.map(|block| block.split("        labels:").next().unwrap_or_default()).collect()
}

/// The words in a text that could be a metric of postkey.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("postkey_")).collect()
}

/// Runs promtool. False if this machine does not have it.
fn promtool(arguments: &[&str]) -> bool {
    let output = match Command::new("promtool").args(arguments).output() {
        Err(_) => {
            skipped("promtool is missing; Debian's package prometheus has it");
            return false;
        }
        Ok(output) => output,
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    true
}

/// A daemon whose metrics have something to show everywhere.
async fn watched(port: u16) -> Service {
    let more = "refresh_token_life = 90\nclient_expires = \"2100-01-01\"\nconnections = 5\nmechanisms = ";
    let config = |config: String| config.replace("mechanisms = ", more);
    let service = Service::with(|text| format!("metrics = \"127.0.0.1:{port}\"\n{}", config(text))).await;
    service.house.logged_in(Protocol::Imap).await.prove().await;
    service.house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Own, ANN, "wrong").await;
    service
}

/// Makes the account need a person: the provider has ended its authorization.
async fn end_authorization(service: &Service) {
    service.house.provider.revoke_access_tokens();
    service.house.provider.end_grant(ANN);
    service.house.try_login(Protocol::Imap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_an_alert_or_a_panel_exists() {
    let service = watched(free_port()).await;
    let all = || service.house.run(&["metrics"], "").out;
    // The expiry of a refresh token is shown as long as the authorization lasts.
    let before = all();
    end_authorization(&service).await;
    until("the clients' expiry", async || all().contains("\npostkey_client_expiry_seconds{")).await;
    let metrics = before + &all();
    let samples = metrics.lines().filter_map(|line| line.split(['{', ' ']).next());
    let samples: BTreeSet<&str> = samples.collect();
    let (alerts, panels) = (alert_expressions(), dashboard_expressions().join("\n"));
    assert!(metric_names(&alerts).len() > 8 && metric_names(&panels).len() > 12, "{alerts}\n{panels}");
    for name in metric_names(&alerts).union(&metric_names(&panels)) {
        assert!(samples.contains(name), "{name} is not in\n{metrics}");
    }
    let guide = read("docs/guide/monitoring.md");
    for name in samples.iter().filter(|name| name.starts_with("postkey_") && !name.contains("_seconds_")) {
        let described = name.trim_end_matches("_limit").trim_end_matches("_waiting");
        assert!(guide.contains(&format!("| `{described}` |")), "the guide does not describe {name}");
    }
}

#[test]
fn every_result_of_an_alert_is_one_that_logins_or_refreshes_have() {
    let sources = read("src/wire/mod.rs") + &read("src/oauth/failure.rs") + &read("src/broker/refresh.rs");
    let alerts = alert_expressions();
    let values = alerts.split("result=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let results: BTreeSet<&str> = values.flat_map(|value| value.split('|')).collect();
    assert!(results.len() > 5, "{results:?}");
    for result in results.into_iter().filter(|result| *result != "ok") {
        assert!(sources.contains(&format!("=> \"{result}\",")), "{result}");
    }
}

#[test]
fn prometheus_understands_the_alerts_and_they_fire_when_they_should() {
    let (rules, tests) = (project("packaging/monitoring/alerts.yml"), project("tests/service/alerts.yml"));
    if promtool(&["check", "rules", rules.to_str().unwrap()]) {
        promtool(&["test", "rules", tests.to_str().unwrap()]);
    }
    let tested = read("tests/service/alerts.yml");
    for name in
        read("packaging/monitoring/alerts.yml").split("- alert: ").skip(1).filter_map(|rest| rest.lines().next())
    {
        let cases: Vec<&str> = tested.split(&format!("alertname: {name}")).skip(1).collect();
        let fires = cases.iter().filter(|case| case.lines().take(3).any(|line| line.ends_with("exp_alerts:"))).count();
        assert!(fires > 0 && fires < cases.len(), "{name} has to fire in one test and not in another");
    }
}

#[test]
fn prometheus_understands_the_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panels.yml");
    let rule = |query: &String| format!("  - record: panel\n    expr: {}\n", serde_json::to_string(query).unwrap());
    let rules: String = dashboard_expressions()
        .iter()
        .enumerate()
        .map(|(at, query)| rule(query).replace("record: panel", &format!("record: panel{at}")))
        .collect();
    std::fs::write(&file, format!("groups:\n- name: panels\n  rules:\n{rules}")).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

/// A Prometheus, ended when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Prometheus {
    /// Starts it on a free port, with the alerts firing at once. None if this machine does not have it.
    fn start(folder: &Path, daemon: u16) -> Option<Self> {
        let alerts = read("packaging/monitoring/alerts.yml");
        let patient = alerts.lines().map(|line| if line.contains(" for: ") { "        for: 0s" } else { line });
        std::fs::write(folder.join("alerts.yml"), patient.collect::<Vec<_>>().join("\n")).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n- job_name: postkey\n  static_configs: [{{ targets: ['127.0.0.1:{daemon}'] }}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus");
        command.current_dir(folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            skipped("prometheus is missing");
            return None;
        };
        Some(Self { child, url: format!("http://127.0.0.1:{port}/api/v1/alerts") })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_the_daemon_and_an_ended_authorization_fires() {
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let service = watched(port).await;
    let Some(prometheus) = Prometheus::start(folder.path(), port) else { return };
    let client = service.house.provider.http_client();
    let firing = async || {
        let answer = client.get(&prometheus.url).send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        let alerts = answer["data"]["alerts"].as_array()?.iter().filter(|alert| alert["state"] == "firing");
        let name = |alert: &Value| Some(alert["labels"]["alertname"].as_str()?.to_owned());
        Some(alerts.filter_map(name).collect::<Vec<_>>())
    };
    // That it does not answer at first would be an alert, so this also shows that it is scraped.
    until("Prometheus", async || firing().await.is_some_and(|alerts| alerts.is_empty())).await;
    end_authorization(&service).await;
    until("the alert", async || firing().await.is_some_and(|alerts| alerts == ["PostkeyPersonNeeded"])).await;
    let ended = service.terminate();
    until("the other alert", async || firing().await.is_some_and(|alerts| alerts == ["PostkeyDown"])).await;
    drop(ended);
}
