//! A person adds an account on the page in the browser, and does there what the commands do.

use postkey::protocol::{Protocol, Security};
use serde_json::json;
use url::Url;

use crate::setup_page::browser;
use crate::support::browser::{Answer, Browser};
use crate::support::house::{ANN, BEN, House, Way, accepted, until};
use crate::support::{Options, assertions};

/// A daemon without an account, with its configuration changed.
async fn empty(edit: impl FnOnce(String) -> String) -> House {
    let mut house = House::empty(Security::Tls, Options::default(), edit).await;
    house.start().await;
    house
}

/// The browser comes back from the provider, and is led to the page where it began.
async fn come_back(house: &House, target: &Url, page: &str) {
    let client = house.provider.http_client();
    let answer = client.get(target.clone()).send().await.expect("an answer");
    assert_eq!(answer.status(), 303);
    let next = target.join(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert!(next.query().is_none(), "no code in the browser's history");
    let last = client.get(next).send().await.expect("a page").text().await.unwrap();
    assert!(last.contains(page), "{last}");
}

/// Begins on the page Add, signs in as `signs_in`, and returns the last page with its path.
async fn add(house: &House, browser: &Browser, fields: &[(&str, &str)], signs_in: &str) -> (Answer, String) {
    let sent = browser.post("/add", fields).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    let path = sent.place().to_owned();
    sign_in(house, browser, &path, signs_in).await;
    (browser.get(&path).await, path)
}

async fn sign_in(house: &House, browser: &Browser, path: &str, signs_in: &str) {
    let url = browser.get(path).await.link("Sign in at ");
    let target = house.provider.person().consent(&url, signs_in).await;
    let page = format!("http://{}{path}", browser.base.authority());
    come_back(house, &target, &page).await;
}

async fn can_log_in(house: &House, address: &str, password: &str) -> bool {
    let mut all = true;
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        all &= accepted(protocol, &program.log_in(Way::Plain, address, password).await);
    }
    all
}

#[tokio::test]
async fn a_newcomer_gets_a_password_that_works_and_is_shown_once() {
    let house = empty(|config| config).await;
    let browser = browser(&house).await;
    let (done, path) = add(&house, &browser, &[("address", ANN), ("program", "curl")], ANN).await;
    assert!(done.text.contains(&format!("{ANN} is set up")), "{}", done.text);
    assert_eq!(done.text.matches("works</span>").count(), 3, "{}", done.text);
    let password = done.element("password").to_owned();
    assert_eq!(password.len(), 30, "{}", done.text);
    assert!(done.text.matches(&password).count() > 1, "the settings for curl have it, too: {}", done.text);
    assert!(can_log_in(&house, ANN, &password).await);
    let again = browser.get(&path).await;
    assert!(again.status == 200 && !again.text.contains(&password), "{}", again.text);
    let slots: Vec<_> = house.status().await.accounts[0].slots.iter().map(|slot| slot.name.clone()).collect();
    assert_eq!(slots, ["curl"]);
    // Everything that has an address is without secrets, and the page shows who has logged in.
    let overview = browser.get("/").await.text;
    assert_eq!(overview.matches("<tr><td>").count(), 3, "{overview}");
    for page in ["/", &format!("/accounts/{ANN}"), &format!("/accounts/{ANN}/settings?for=mutt"), "/configuration"] {
        assert!(!browser.get(page).await.text.contains(&password), "{page}");
    }
}

#[tokio::test]
async fn a_set_up_is_for_the_browser_that_has_begun_it() {
    let house = empty(|config| config).await;
    let (first, other) = (browser(&house).await, browser(&house).await);
    let sent = first.post("/add", &[("address", ANN)]).await;
    let path = sent.place();
    sign_in(&house, &first, path, ANN).await;
    assert_eq!(other.get(path).await.status, 404);
    assert_eq!(first.get(path).await.element("password").len(), 30);
}

#[tokio::test]
async fn a_mistake_keeps_what_was_typed_and_says_what_to_do() {
    let house = empty(|config| config).await;
    let browser = browser(&house).await;
    for (typed, words) in [("nobody", "is not an e-mail address"), ("ann@unknown.invalid", "choose it")] {
        let page = browser.post("/add", &[("address", typed), ("signs_in", "boss@example.test")]).await;
        assert_eq!(page.status, 422);
        assert!(page.text.contains(words) && page.text.contains(&format!("value=\"{typed}\"")), "{}", page.text);
        assert!(page.text.contains("value=\"boss@example.test\"") && page.text.contains("aria-describedby"));
    }
    let chosen = browser.post("/add", &[("address", "ann@unknown.invalid"), ("provider", "own")]).await;
    assert_eq!(chosen.status, 303, "{}", chosen.text);
}

#[tokio::test]
async fn somebody_else_who_signs_in_changes_nothing_and_ann_can_try_again() {
    let house = empty(|config| config).await;
    let browser = browser(&house).await;
    let (page, path) = add(&house, &browser, &[("address", ANN)], BEN).await;
    assert!(page.text.contains(&format!("{BEN} has signed in, not {ANN}")), "{}", page.text);
    assert!(house.status().await.accounts.is_empty());
    sign_in(&house, &browser, &path, ANN).await;
    assert!(browser.get(&path).await.text.contains("is set up"));
}

#[tokio::test]
async fn a_browser_elsewhere_can_paste_the_address_of_its_last_page() {
    let house = empty(|config| config).await;
    let browser = browser(&house).await;
    let sent = browser.post("/add", &[("address", ANN)]).await;
    let path = sent.place();
    let url = browser.get(path).await.link("Sign in at ");
    let target = house.provider.person().consent(&url, ANN).await;
    let paste = format!("{path}/paste");
    browser.post(&paste, &[("pasted", "http://127.0.0.1/?code=stolen&state=wrong")]).await;
    let wrong = browser.get(path).await;
    assert!(wrong.text.contains("belongs to another attempt"), "{}", wrong.text);
    browser.post(&paste, &[("pasted", target.as_str())]).await;
    assert!(browser.get(path).await.text.contains("is set up"));
}

#[tokio::test]
async fn a_registration_that_was_typed_is_used_by_the_next_account() {
    let without = |config: String| {
        let lines = config.lines().filter(|line| !line.starts_with("client_"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let house = empty(without).await;
    let browser = browser(&house).await;
    let asked = browser.post("/add", &[("address", ANN)]).await;
    assert_eq!(asked.status, 422);
    assert!(asked.text.contains("http://127.0.0.1/") && asked.text.contains("name=\"client_id\""), "{}", asked.text);
    let options = Options::default();
    let mut fields = vec![("address", ANN), ("client_id", options.client_id.as_str())];
    fields.extend(options.client_secret.as_deref().map(|secret| ("client_secret", secret)));
    let (done, _) = add(&house, &browser, &fields, ANN).await;
    assert!(done.text.contains("is set up"), "{}", done.text);
    let (done, _) = add(&house, &browser, &[("address", BEN)], BEN).await;
    assert!(done.text.contains("is set up"), "{}", done.text);
    assert!(browser.get("/providers/own").await.text.contains(&options.client_id));
}

/// The steps are those of the guide, and what they say to enter can be copied.
#[tokio::test]
async fn the_steps_at_a_known_provider_are_on_the_page() {
    let house = empty(|config| config).await;
    let browser = browser(&house).await;
    let asked = browser.post("/add", &[("address", "ann@outlook.com")]).await;
    assert_eq!(asked.status, 422, "{}", asked.text);
    let steps = asked.text.split_once("<ol class=\"todo\">").unwrap().1.split_once("</ol>").unwrap().0;
    assert!(steps.matches("<li>").count() >= 6, "{steps}");
    assert!(steps.contains("href=\"https://entra.microsoft.com/\"") && steps.contains("<strong>"), "{steps}");
    assert!(steps.contains(">http://localhost</code> <button"), "{steps}");
    assert!(!steps.contains("redirect-uri"), "the step has it: {steps}");
    let google = browser.get("/providers/google").await;
    assert!(google.text.contains(">https://mail.google.com/</code> <button"), "{}", google.text);
    assert!(google.text.contains("id=\"redirect-uri\">http://127.0.0.1/<"), "{}", google.text);
    assert!(browser.get("/providers/yahoo").await.text.contains("Yahoo grants the mail scopes only to clients"));
}

/// What was typed stays, except secrets, when the provider refuses it.
#[tokio::test]
async fn a_client_that_is_refused_can_be_corrected() {
    let options = Options { client_secret: Some("the right secret".to_owned()), ..Options::default() };
    let without = |config: String| {
        let lines = config.lines().filter(|line| !line.starts_with("client_"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let mut house = House::empty(Security::Tls, options.clone(), without).await;
    house.start().await;
    let browser = browser(&house).await;
    let fields = |secret| {
        [
            ("address", ANN),
            ("way", "client-credentials"),
            ("client_id", options.client_id.as_str()),
            ("client_secret", secret),
        ]
    };
    let sent = browser.post("/add", &fields("a wrong secret")).await;
    let refused = browser.get(sent.place()).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("role=\"alert\"") && !refused.text.contains("a wrong secret"), "{}", refused.text);
    for kept in
        [&format!("value=\"{}\"", options.client_id), "name=\"client_secret\"", "\"client-credentials\" selected"]
    {
        assert!(refused.text.contains(kept), "{kept}: {}", refused.text);
    }
    let sent = browser.post("/add", &fields("the right secret")).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    let done = browser.get(sent.place()).await;
    assert!(done.text.contains("is set up"), "{}", done.text);
}

/// The key of a service account is sealed with the account, and is all that new tokens need.
#[tokio::test]
async fn the_key_of_a_service_account_is_asked_for_and_kept() {
    let mut house = empty(|config| config).await;
    // The provider checks when an assertion was made.
    house.set_clock();
    let browser = browser(&house).await;
    let way = [("address", ANN), ("way", "jwt-bearer")];
    let asked = browser.post("/add", &way).await;
    assert!(asked.status == 422 && asked.text.contains("name=\"service_account\""), "{}", asked.text);
    let key = |private: &str| {
        let issuer = house.provider.issuer();
        json!({"client_email": "service@example.test", "private_key": private, "token_uri": format!("{issuer}/token")})
            .to_string()
    };
    let private = std::fs::read_to_string(assertions::key_file()).unwrap();
    let right = key(&private);
    for (file, words) in [("{\"private_key\": \"hush\"}", "it is not the JSON file"), (&key("hush"), "cannot be used")]
    {
        let sent = browser.post("/add", &[way.as_slice(), &[("service_account", file)]].concat()).await;
        let refused = browser.get(sent.place()).await;
        assert!(refused.status == 422 && refused.text.contains(words), "{}", refused.text);
        assert!(
            refused.text.contains("name=\"service_account\"") && !refused.text.contains("hush"),
            "{}",
            refused.text
        );
    }
    let sent = browser.post("/add", &[way.as_slice(), &[("service_account", &right)]].concat()).await;
    let done = browser.get(sent.place()).await;
    let password = done.element("password").to_owned();
    assert!(can_log_in(&house, ANN, &password).await, "{}", done.text);
    let vault = house.vault_bytes();
    let line = private.lines().nth(1).unwrap().as_bytes();
    assert!(!vault.windows(line.len()).any(|part| part == line), "the key is sealed");
    house.restart().await;
    house.provider.revoke_access_tokens();
    assert!(can_log_in(&house, ANN, &password).await, "with a new token");
}

#[tokio::test]
async fn the_settings_of_a_program_are_a_file_with_the_password() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let path = format!("/accounts/{ANN}/settings/file");
    let file = browser.post(&path, &[("for", "mutt"), ("password", "pa:s/1")]).await;
    assert_eq!(file.headers["content-disposition"], "attachment; filename=\"muttrc\"");
    assert_eq!((file.status, file.headers["cache-control"].as_str()), (200, "no-store"));
    assert!(file.text.starts_with("set from = ") && file.text.contains("pa:s/1"), "{}", file.text);
    let profile = browser.post(&path, &[("for", "apple-profile")]).await;
    assert!(profile.headers["content-disposition"].contains("postkey.mobileconfig"));
    assert!(profile.text.starts_with("<?xml") && !profile.text.contains("APP-PASSWORD"), "{}", profile.text);
    for (program, words) in [("thunderbird", "reads no file"), ("nothing", "no settings for nothing")] {
        let none = browser.post(&path, &[("for", program)]).await;
        assert!(none.status == 422 && none.text.contains(words), "{}", none.text);
    }
    let shown = browser.get(&format!("/accounts/{ANN}/settings?for=mutt")).await;
    assert!(shown.text.contains("Download muttrc") && !shown.text.contains("name=\"password\""), "{}", shown.text);
    assert!(!browser.get(&format!("/accounts/{ANN}/settings?for=thunderbird")).await.text.contains("Download"));
}

#[tokio::test]
async fn a_code_is_entered_on_another_device() {
    let device = |config: String| {
        let issuer = config.split("issuer = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
        let line = format!("\ndevice_authorization_endpoint = \"{issuer}/device_authorization\"\nissuer =");
        config.replacen("\nissuer =", &line, 1)
    };
    let house = empty(device).await;
    let browser = browser(&house).await;
    let sent = browser.post("/add", &[("address", ANN), ("way", "device-code")]).await;
    let page = browser.get(sent.place()).await;
    assert!(page.text.contains("<svg"), "{}", page.text);
    let url = page.text.split("href=\"").find(|rest| rest.contains("/device\"")).unwrap().split('"').next().unwrap();
    let status = house.provider.person().type_in(url, page.element("code"), ANN, "allow").await;
    assert_eq!(status, 200);
    let is_done = async || browser.get(sent.place()).await.text.contains("is set up");
    until("the end", is_done).await;
}

#[tokio::test]
async fn the_page_of_an_account_does_what_the_commands_do() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let path = format!("/accounts/{ANN}");
    let own = house.password.as_str();
    let wrong = browser.post(&format!("{path}/passwords"), &[("name", "phone"), ("password", "wrong")]).await;
    assert!(wrong.status == 422 && wrong.text.contains("value=\"phone\""), "{}", wrong.text);
    assert!(wrong.text.contains("add-password-error"), "{}", wrong.text);
    let fields = [("name", "phone"), ("protocol", "imap"), ("password", own)];
    let added = browser.post(&format!("{path}/passwords"), &fields).await;
    let password = added.element("password").to_owned();
    let log_in = async |protocol: Protocol| {
        let mut program = house.program(protocol, Security::Clear).await;
        accepted(protocol, &program.log_in(Way::Plain, ANN, &password).await)
    };
    assert!(log_in(Protocol::Imap).await && !log_in(Protocol::Pop3).await);
    assert!(browser.get(&path).await.text.contains("only imap"));

    let tested = browser.post(&format!("{path}/test"), &[("password", own)]).await;
    assert_eq!(tested.text.matches("works</span>").count(), 3, "{}", tested.text);
    house.set_clock();
    let report = browser.post(&format!("{path}/doctor"), &[("password", own)]).await;
    assert!(report.text.contains("id=\"report\"") && report.text.contains("authorization"), "{}", report.text);
    assert!(report.text.contains("Everything works from here to the mailbox"), "{}", report.text);
    let ports = house.status().await.listeners.len();
    assert_eq!(report.text.matches("reachable; security").count(), ports, "as in the command: {}", report.text);
    assert!(report.text.contains("</span> certificate "), "{}", report.text);
    let settings = browser.get(&format!("{path}/settings?for=mutt")).await;
    assert!(settings.text.contains("APP-PASSWORD") && settings.text.contains(ANN), "{}", settings.text);
    assert!(browser.get(&path).await.text.contains("value=\"mutt\" selected"), "it is remembered");

    let removed = browser.post(&format!("{path}/passwords/remove"), &[("name", "phone")]).await;
    assert_eq!(removed.status, 303);
    assert!(!log_in(Protocol::Imap).await);
    let last = browser.post(&format!("{path}/passwords/remove"), &[("name", "main")]).await;
    assert!(last.status == 422 && last.text.contains("role=\"alert\""), "{}", last.text);

    let again = browser.post(&format!("{path}/sign-in"), &[]).await;
    sign_in(&house, &browser, again.place(), ANN).await;
    let renewed = browser.get(again.place()).await;
    assert!(renewed.text.contains("Mail programs keep their app passwords"), "{}", renewed.text);

    let unsure = browser.post(&format!("{path}/forget"), &[("password", own)]).await;
    assert_eq!((unsure.status, house.status().await.accounts.len()), (422, 1));
    let forgotten = browser.post(&format!("{path}/forget"), &[("password", own), ("sure", "yes")]).await;
    assert!(forgotten.text.contains("is removed") && forgotten.text.contains("is revoked"), "{}", forgotten.text);
    assert!(house.status().await.accounts.is_empty());
    assert_eq!(browser.get(&path).await.status, 404);
}

/// What is live needs no reload, and shows nothing of a password.
#[tokio::test]
async fn logins_are_shown_as_they_come() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let house = House::open().await;
    let browser = browser(&house).await;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", browser.base.port().unwrap())).await.unwrap();
    let (host, cookie) = (browser.base.authority(), &browser.cookie);
    let request =
        format!("GET /events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    let mut password = house.password.clone();
    for (wanted, name) in
        [("text/event-stream", None), ("\"refused\":null", Some(ANN)), ("\"refused\":\"", Some("eve@example.test"))]
    {
        if let Some(name) = name {
            let mut program = house.program(Protocol::Imap, Security::Clear).await;
            program.log_in(Way::Plain, name, &password).await;
            password = "another secret".to_owned();
        }
        while !heard.contains(wanted) {
            let count = socket.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{heard}");
            heard += &String::from_utf8_lossy(&buffer[..count]);
        }
    }
    assert!(heard.contains(ANN) && heard.contains("\"from\":\"127.0.0.1\""), "{heard}");
    assert!(!heard.contains(&house.password) && !heard.contains("another secret"), "{heard}");
}
