//! The log.

use postkey::protocol::{Protocol, Security};

use crate::manager::Service;
use crate::support::house::{ANN, Way, accepted, until};

/// The sentences of a day in the log without their fields: who, what, where and why. Each is in the log once.
const DAY: [&[&str]; 13] = [
    &["listening on 127.0.0.1:", " for IMAP with no encryption"],
    &["listening on 127.0.0.1:", " for POP3 with TLS"],
    &["ann@example.test logged in by IMAP from 127.0.0.1 in ", " ms (app password main)"],
    &["IMAP session of ann@example.test from 127.0.0.1 ended after ", " s: ", " bytes up, ", " bytes down"],
    &["login of ann@example.test by POP3 from 127.0.0.1 refused after ", " ms: Wrong user name or password."],
    &["login of nobody@example.test by SMTP from 127.0.0.1 refused after ", " ms: Wrong user name or password."],
    &[" refuses the IMAP login of ann@example.test: "],
    &["cannot refresh the access token of ann@example.test: ", "invalid_grant"],
    &["authorization of ann@example.test ended: ", "; run `postkey authorize ann@example.test`"],
    &["login of ann@example.test by IMAP from 127.0.0.1 refused after ", " ms: ", "postkey authorize"],
    &["configuration reloaded"],
    &["stopping; a second signal stops at once"],
    &["stopped"],
];

/// The sentences of a day in this format of the log, and the lines as they are.
async fn day(format: &str) -> Vec<String> {
    let mut service = Service::with(|config| format!("log_format = \"{format}\"\nlog = \"info\"\n{config}")).await;
    let mut program = service.house.logged_in(Protocol::Imap).await;
    program.prove().await;
    program.client.say("a LOGOUT").await;
    program.client.rest().await;
    drop(program);
    for (protocol, name) in [(Protocol::Pop3, ANN), (Protocol::Smtp, "nobody@example.test")] {
        let mut wrong = service.house.program(protocol, Security::Tls).await;
        assert!(!accepted(protocol, &wrong.log_in(Way::Own, name, "wrong").await));
    }
    service.house.provider.revoke_access_tokens();
    service.house.provider.end_grant(ANN);
    assert!(!accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
    service.reload(|config| config).await;
    let (_, ended) = service.terminate();
    ended.err.lines().map(str::to_owned).collect()
}

fn assert_whole_day(sentences: &[&str]) {
    for parts in DAY {
        let tells = |sentence: &&&str| {
            let mut rest = **sentence;
            parts.iter().all(|part| rest.split_once(part).map(|(_, behind)| rest = behind).is_some())
        };
        assert_eq!(sentences.iter().filter(tells).count(), 1, "{parts:?} in\n{}", sentences.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_tells_who_what_where_and_why_by_itself() {
    let lines = day("plain").await;
    let sentences = lines.iter().map(|line| line.split_once(": ").expect("a module before the sentence").1);
    assert_whole_day(&sentences.collect::<Vec<_>>());
    let login = lines.iter().find(|line| line.contains("logged in")).unwrap();
    let fields = login.split_once("(app password main) ").unwrap().1;
    assert!(fields.starts_with("uid=") && fields.contains(" security=none peer=127.0.0.1:"), "{login}");
    assert_eq!(login.matches(ANN).count(), 1, "{login}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_words_are_in_json_with_all_fields_beside_them() {
    let lines = day("json").await;
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_whole_day(&lines.iter().map(|line| line["fields"]["message"].as_str().unwrap()).collect::<Vec<_>>());
    let of = |words: &str| lines.iter().find(|line| line.to_string().contains(words)).unwrap();
    let (login, refused, ended) = (of("logged in"), of("refused after"), of("IMAP session"));
    assert_eq!((&login["fields"]["account"], &login["span"]["protocol"]), (&ANN.into(), &"imap".into()));
    assert_eq!(
        (&login["fields"]["app_password"], &refused["fields"]["reason"]),
        (&"main".into(), &"credentials".into())
    );
    assert!(["up", "down", "seconds"].iter().all(|field| ended["fields"][field].is_u64()), "{ended}");
    assert!(login["fields"]["milliseconds"].is_number() && refused["fields"]["account"] == ANN, "{login} {refused}");
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
    assert!(line.contains("POP3"), "the IMAP session was not logged: {line}");
    service.reload(|config| config).await;
    drop(service.house.program(Protocol::Smtp, Security::Clear).await);
    let (_, ended) = service.terminate();
    assert!(!ended.err.contains("SMTP connection"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_opens_a_file_of_json_again() {
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
    let line = service.process.hear_complaint("needs a restart");
    assert!(line.contains("WARN") && !line.starts_with('{'), "{line}");
    service.process.hear_complaint("configuration reloaded");
    service.reload(|config| config.replacen("json", "plain", 1)).await;
    let (_, ended) = service.terminate();
    assert_eq!(ended.err.matches("needs a restart").count(), 1, "plain is what it was: {}", ended.err);
}
