//! What is read in one piece: SASL messages, PROXY headers, the browser's return, the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use postkey::config::Config;
use postkey::config::environment::Environment;
use postkey::downstream::sasl;
use postkey::name::Name;
use postkey::oauth::authorization_code::{AuthorizationParameters, PendingAuthorization, RedirectError};
use postkey::wire;
use postkey::wire::proxy_header::LONGEST;
use url::Url;

use super::client::check_credentials;

/// A line of base64 with a PLAIN message in it, and the message itself.
pub fn sasl(input: &[u8]) {
    for message in
        [sasl::decode(input).ok().map(|message| message.to_vec()), Some(input.to_vec())].into_iter().flatten()
    {
        let Ok(credentials) = sasl::plain(&message) else { continue };
        check_credentials(&credentials);
        let (user, password) = (credentials.user.as_bytes(), credentials.password.expose());
        let with = |authzid: &[u8]| [authzid, b"\0", user, b"\0", password].concat();
        // An authorization identity that is the same name in another spelling counts as none.
        let authzid = message.split(|byte| *byte == 0).next().unwrap_or_default();
        let named = String::from_utf8_lossy(authzid);
        let is_same = authzid.is_empty() || Name::typed(&named).same_as(&Name::typed(&credentials.user));
        assert_eq!(credentials.acts_as.as_deref(), (!is_same).then_some(&*named));
        assert!(message == with(authzid), "something got lost, or was made up");
    }
}

/// The first bytes of a load balancer's connection. A header ends at the same place however much of it has arrived and
/// whatever follows it.
pub fn proxy_header(input: &[u8]) {
    let whole = wire::proxy_header::read(input);
    for length in 0..input.len() {
        match (wire::proxy_header::read(&input[..length]), whole) {
            (Ok(None), _) => {}
            (Ok(Some(header)), whole) => {
                assert!(header.length <= length, "it takes bytes that have not arrived");
                assert_eq!(whole, Ok(Some(header)), "what follows changes it");
            }
            (Err(malformed), whole) => assert_eq!(whole, Err(malformed), "what follows makes it a header"),
        }
    }
    match whole {
        Ok(Some(header)) => assert!(header.length <= LONGEST && header.length <= input.len()),
        Ok(None) => assert!(input.len() < LONGEST, "it waits for ever"),
        Err(_) => {}
    }
}

/// The query that a browser returns, and what a person pastes: without the right `state` neither gives a code.
pub fn redirect(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let pending = pending();
    let state = pending.url.query_pairs().find(|(key, _)| key == "state").map(|(_, state)| state.into_owned());
    let state = state.unwrap_or_default();
    assert!(state.len() >= 16);
    match pending.code(&text) {
        Ok(_) => panic!("nobody can know this state"),
        Err(RedirectError::Denied(_)) => panic!("a stranger has ended the authorization"),
        Err(
            RedirectError::NoAnswer | RedirectError::WrongState | RedirectError::WrongIssuer | RedirectError::BrokenOff,
        ) => {}
    }
    // The same, but from the authorization server.
    if let Err(RedirectError::Denied(said)) = pending.code(&format!("state={state}&{text}")) {
        let said = said.to_string();
        assert!(said.len() <= 600 && said.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{said:?}");
    }
    if let Ok(code) = pending.pasted(&text) {
        assert_eq!(code.secret(), postkey::pasted::bare(&text), "only a bare code comes without a state");
    }
}

/// One for all inputs, because making one costs more than using it.
fn pending() -> &'static PendingAuthorization {
    static PENDING: OnceLock<PendingAuthorization> = OnceLock::new();
    PENDING.get_or_init(|| {
        let [endpoint, redirect_uri] =
            ["https://auth.example.test/", "http://127.0.0.1:4711/"].map(|url| Url::parse(url).expect("a URL"));
        PendingAuthorization::begin(&AuthorizationParameters {
            endpoint: &endpoint,
            issuer: Some("https://auth.example.test"),
            names_itself: false,
            client_id: "client",
            redirect_uri: &redirect_uri,
            scope: &["mail".to_owned()],
            parameters: &BTreeMap::new(),
            login_hint: "ann@example.test",
        })
    })
}

/// A configuration file: it is valid, or each of its mistakes has its place in the file.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Config::parse(&text, Path::new("/etc/postkey.toml"), &environment()) {
        Ok(config) => assert!(config.state_dir.is_absolute() && !config.listeners.is_empty()),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            assert!(told.iter().all(|line| line.starts_with("/etc/postkey.toml")), "{told:?}");
        }
    }
}

fn environment() -> Environment {
    Environment {
        root: false,
        state_directory: None,
        config_home: None,
        state_home: None,
        home: Some(PathBuf::from("/home/ann")),
    }
}
