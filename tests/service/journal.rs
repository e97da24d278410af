//! The log.

use postkey::protocol::{Protocol, Security};

use crate::manager::Service;
use crate::support::house::{ANN, Way, accepted, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_and_a_session_are_one_line_each() {
    let service = Service::with(|config| config).await;
    let mut program = service.house.logged_in(Protocol::Imap).await;
    program.prove().await;
    program.client.say("a LOGOUT").await;
    program.client.rest().await;
    let mut wrong = service.house.program(Protocol::Pop3, Security::Tls).await;
    assert!(!accepted(Protocol::Pop3, &wrong.log_in(Way::Own, ANN, "wrong").await));
    drop((program, wrong));
    let (_, ended) = service.terminate();
    let lines: Vec<&str> = ended.err.lines().filter(|line| line.contains("session{")).collect();
    let [login, end, refused] = ["logged in", "session ended", "login refused"].map(|what| {
        let [line] = lines.iter().filter(|line| line.contains(what)).collect::<Vec<_>>()[..] else {
            panic!("{what}: {}", ended.err)
        };
        *line
    });
    assert_eq!(lines.len(), 3, "{}", ended.err);
    for (line, parts) in [
        (login, &["protocol=\"imap\"", "security=\"none\"", "peer=127.0.0.1:", ANN, "milliseconds="][..]),
        (end, &["protocol=\"imap\"", ANN, "up=", "down=", "seconds="]),
        (refused, &["protocol=\"pop3\"", "security=\"tls\"", ANN, "reason=\"credentials\""]),
    ] {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_is_logged_on_demand_until_the_next_reload() {
    let mut service = Service::with(|config| config).await;
    let ended = service.house.run(&["log", "nonsense=loud"], "");
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    drop(service.house.program(Protocol::Imap, Security::Clear).await);
    assert_eq!(service.house.run(&["log", "debug"], "").code, Some(0));
    drop(service.house.program(Protocol::Pop3, Security::Clear).await);
    let line = service.process.hear_complaint("before the login");
    assert!(line.contains("pop3"), "the IMAP session was not logged: {line}");
    service.reload(|config| config).await;
    drop(service.house.program(Protocol::Smtp, Security::Clear).await);
    let (_, ended) = service.terminate();
    assert!(!ended.err.contains("protocol=\"smtp\" security=\"none\" peer"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_json_is_opened_anew_by_a_reload() {
    let mut service = Service::with(|config| format!("log_file = \"log\"\nlog_format = \"json\"\n{config}")).await;
    let (now, before) = (service.house.folder.path().join("log"), service.house.folder.path().join("log.1"));
    drop(service.house.logged_in(Protocol::Imap).await);
    let has = |path: &std::path::Path, what: &str| std::fs::read_to_string(path).is_ok_and(|text| text.contains(what));
    until("the line", async || has(&now, "logged in")).await;
    std::fs::rename(&now, &before).unwrap();
    service.reload(|config| config).await;
    drop(service.house.logged_in(Protocol::Smtp).await);
    until("the line in the new file", async || has(&now, "\"smtp\"")).await;
    assert!(!has(&before, "\"protocol\":\"smtp\",\"security\":\"none\",\"peer\""));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&now).unwrap().permissions().mode() & 0o777, 0o600);
    for line in std::fs::read_to_string(&before).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_format_that_takes_a_restart_is_named_at_the_reload() {
    let mut service = Service::with(|config| config).await;
    service.reload(|config| format!("log_format = \"json\"\n{config}")).await;
    let line = service.process.hear_complaint("takes a restart");
    assert!(line.contains("WARN") && !line.starts_with('{'), "{line}");
    service.process.hear_complaint("has been read anew");
    service.reload(|config| config.replacen("json", "plain", 1)).await;
    let (_, ended) = service.terminate();
    assert_eq!(ended.err.matches("takes a restart").count(), 1, "plain is what it was: {}", ended.err);
}
