//! Metrics, health and status.

use postkey::protocol::{Protocol, Security};

use crate::manager::{Service, house};
use crate::support::house::{ANN, House, Way};

/// The value in a line of the metrics.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn without_users(config: &str) -> String {
    config.lines().filter(|line| !line.starts_with("metrics_allow_uids")).map(|line| format!("{line}\n")).collect()
}

async fn use_it(house: &House) {
    let mut program = house.logged_in(Protocol::Imap).await;
    program.prove().await;
    house.program(Protocol::Pop3, Security::Clear).await.log_in(Way::Own, ANN, "wrong").await;
    program.client.say("a LOGOUT").await;
    program.client.expect("* BYE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_counted() {
    let service = Service::with(|config| format!("metrics_accounts = true\n{config}")).await;
    use_it(&service.house).await;
    let open = service.house.logged_in(Protocol::Smtp).await;
    crate::support::house::until("the sessions to end", async || {
        let metrics = service.house.run(&["metrics"], "").out;
        value(&metrics, "postkey_sessions{protocol=\"imap\"}") == Some(0.0)
            && value(&metrics, "postkey_sessions{protocol=\"pop3\"}") == Some(0.0)
    })
    .await;
    let ended = service.house.run(&["metrics"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let metrics = ended.out;
    for (name, wanted) in [
        ("postkey_sessions{protocol=\"smtp\"}", 1.0),
        ("postkey_logins_total{protocol=\"imap\",result=\"ok\"}", 1.0),
        ("postkey_logins_total{protocol=\"pop3\",result=\"credentials\"}", 1.0),
        ("postkey_upstream_seconds_count{protocol=\"imap\",step=\"connect\"}", 1.0),
        ("postkey_upstream_seconds_count{protocol=\"smtp\",step=\"tls\"}", 1.0),
        ("postkey_upstream_seconds_count{protocol=\"smtp\",step=\"auth\"}", 1.0),
        (&format!("postkey_account_ended{{account=\"{ANN}\"}}"), 0.0),
    ] {
        assert_eq!(value(&metrics, name), Some(wanted), "{name} in\n{metrics}");
    }
    assert!(value(&metrics, "postkey_relayed_bytes_total{protocol=\"imap\",direction=\"down\"}").unwrap() > 20.0);
    assert!(value(&metrics, &format!("postkey_token_expiry_seconds{{account=\"{ANN}\"}}")).unwrap() > 0.0);
    assert_eq!(value(&metrics, "postkey_accounts{provider=\"own\",state=\"ready\"}"), Some(1.0));
    assert!(metrics.ends_with("# EOF\n"));
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_health_are_served_where_the_configuration_says_and_cost_no_login() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let key = format!("metrics = \"127.0.0.1:{port}\"\nmetrics_accounts = true\n");
    let mut service = Service::with(|config| key.clone() + &config).await;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let client = service.house.provider.http_client();
    let metrics = client.get(url("/metrics")).send().await.unwrap();
    assert!(metrics.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.text().await.unwrap().ends_with("# EOF\n"));
    let health = client.get(url("/health")).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.text().await.unwrap()), (200, "ok\n".to_owned()));
    let foreign = client.get(url("/metrics")).header("host", "evil.test").send().await.unwrap();
    assert_eq!(foreign.status().as_u16(), 421);
    assert!(service.house.provider.connections(Protocol::Imap) == 0, "nobody has logged in");
    let own = rustix::process::geteuid().as_raw();
    for (uid, status) in [(own + 1, 403), (own, 200)] {
        service.reload(|config| format!("metrics_allow_uids = {uid}\n{}", without_users(&config))).await;
        let told = client.get(url("/metrics")).send().await.unwrap();
        assert_eq!(told.status().as_u16(), status, "uid {uid}");
        assert_eq!(told.text().await.unwrap().contains(ANN), status == 200);
        assert_eq!(client.get(url("/health")).send().await.unwrap().status().as_u16(), 200, "names nobody");
    }
    service.reload(|config| without_users(&config)).await;
    service.reload(|config| config.replace(&key, "")).await;
    let closed = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err();
    crate::support::house::until("the port to be closed", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_of_status_is_for_monitoring() {
    let house = house(|config| config).await;
    let status = |house: &House| house.run(&["status", "--exit-code"], "");
    assert_eq!(status(&house).code, Some(69));
    let service = Service::start(house, Default::default()).await;
    let ended = status(&service.house);
    assert_eq!((ended.code, &*ended.out), (Some(0), "1 account.\n"), "{}", ended.err);
    service.house.provider.revoke_access_tokens();
    service.house.provider.end_grant(ANN);
    service.house.try_login(Protocol::Imap).await;
    let ended = status(&service.house);
    assert!(ended.code == Some(77) && ended.err.contains(ANN), "{}{}", ended.out, ended.err);
}
