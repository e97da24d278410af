//! From the files of other programs, in their documented form, to what postkey would do with them.

use std::path::{Path, PathBuf};

use super::account::{ImportedAccount, ImportedFiles, ImportedTokens};
use super::lock::Closed;
use super::passwords::ImportFiles;
use super::plan::{Fate, ImportPlan};
use super::source;
use crate::cli::arguments::{Arguments, CliCommand, ImportOptions};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::flow::Flow;
use crate::control::Status;
use crate::protocol::Security;
use crate::secret::Secret;

/// An account of email-oauth2-proxy with its tokens, under the password "the old password" and 1000 rounds.
const LOCKED: &str = "
token_salt = MDEyMzQ1Njc4OWFiY2RlZg==
token_iterations = 1000
access_token = gAAAAABrDC0R4ps-uJr1N1bD6fbSblWbXRnNPgKcbtOWf1qF3epS5UT_KKulae5YqsrDb7FNRpWxCtxhXxUNuG7LRx_Vp_4S2w==
access_token_expiry = 1795962870
refresh_token = gAAAAABrDC0Ru1j5R0BWgUiqwt_ErZvF8k5wkUX-mOo2X56oCOAWc-6Mq1WkKPEyYuZvgDmxA-Nd9G9P_PfRp9sHJ4CtHFn_vIH3nGQctfVpoJh_Xv5r8fw=
client_secret_encrypted = gAAAAABrDC0RG8Eb0ChAx4wkBXVXvkAaAbsAaD6pDr-q_DcIEEXcdX40KKi4f4dAWIwnfO4PmoUTFSwNuNWzmXT2-zQrGQRNvA==
last_activity = 1795959273
";

const GOOGLE: &str = "
permission_url = https://accounts.google.com/o/oauth2/auth
token_url = https://oauth2.googleapis.com/token
oauth2_scope = https://mail.google.com/
redirect_uri = http://localhost
client_id = 123.apps.example
";

fn microsoft(tenant: &str) -> String {
    format!(
        "
permission_url = https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize
token_url = https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/IMAP.AccessAsUser.All offline_access
redirect_uri = http://localhost
client_id = m
"
    )
}

fn options(arguments: &str) -> ImportOptions {
    let words = ["postkey", "import", "FILE"].into_iter().chain(arguments.split_whitespace());
    match <Arguments as clap::Parser>::try_parse_from(words).ok().unwrap().command {
        Some(CliCommand::Import(options)) => *options,
        _ => panic!("another command"),
    }
}

/// Reads files with these contents, named a, b and so on.
fn found(texts: &[&str]) -> Result<Vec<ImportedFiles>, String> {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = ('a'..).zip(texts).map(|(name, _)| folder.path().join(name.to_string())).collect();
    files.iter().zip(texts).for_each(|(path, text)| std::fs::write(path, text).unwrap());
    let files = ImportFiles::read(&ImportOptions { files, ..options("") }).map_err(|failed| failed.message)?;
    source::read(&files.contents).map_err(|failed| failed.message)
}

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("/postkey.toml"), &Environment { home: Some("/".into()), ..Default::default() })
        .unwrap()
}

fn plan(texts: &[&str], existing: &str, arguments: &str) -> ImportPlan {
    let (config, found) = (config(existing), found(texts).unwrap());
    ImportPlan::new(&config, "/nowhere/postkey.toml".into(), found, &Status::default(), &options(arguments))
        .ok()
        .unwrap()
}

/// The provider for which each account is imported.
fn imported(plan: &ImportPlan) -> Vec<(&str, &str)> {
    let one = |account: &super::plan::PlannedAccount| match &account.fate {
        Fate::Import(provider) => Some((account.account.address.clone(), provider.clone())),
        _ => None,
    };
    let all: Vec<_> = plan.accounts.iter().filter_map(one).collect();
    all.into_iter().map(|(address, provider)| (&*address.leak(), &*provider.leak())).collect()
}

fn open(account: &ImportedAccount, password: &str) -> Result<(Option<String>, Option<String>), Closed> {
    let ImportedTokens::Locked(lock) = &account.tokens else { panic!("{} is not locked", account.address) };
    let opened = lock.open(&Secret::new(password.into()), account.flow)?;
    let secret = opened.client_secret.map(|secret| String::from_utf8(secret.expose().to_vec()).unwrap());
    Ok((opened.refresh.map(|token| token.expose().to_owned()), secret))
}

#[test]
fn the_mail_programs_password_opens_tokens_and_client_secret() {
    let found = found(&[&format!("[emailproxy]\n[Ann@Gmail.com]{GOOGLE}{LOCKED}")]).unwrap();
    let account = &found[0].accounts[0];
    assert_eq!((account.address.as_str(), account.flow), ("ann@gmail.com", Flow::AuthorizationCode));
    let expected = (Some("1//refresh-token".to_owned()), Some("client secret".to_owned()));
    assert_eq!(open(account, "the old password"), Ok(expected));
}

#[test]
fn a_secret_in_clear_comes_before_an_encrypted_one() {
    let found = found(&[&format!("[ann@gmail.com]{GOOGLE}client_secret = clear # not a comment{LOCKED}")]).unwrap();
    let account = &found[0].accounts[0];
    assert_eq!(account.client_secret.as_ref().unwrap().expose(), b"clear # not a comment");
    assert_eq!(open(account, "the old password"), Ok((Some("1//refresh-token".to_owned()), None)));
}

#[test]
fn catch_all_sections_hand_options_on_only_if_that_is_allowed() {
    let text = format!("[@gmail.com]{GOOGLE}\n[ann@gmail.com]{LOCKED}\n[@]\nclient_id = everybody\n");
    let refused = found(&[&text]).unwrap();
    assert!(refused[0].accounts.is_empty() && refused[0].left.len() == 3, "{:?}", refused[0].left);
    let allowed = found(&[&format!("[emailproxy]\nallow_catch_all_accounts = True\n{text}")]).unwrap();
    let account = &allowed[0].accounts[0];
    assert_eq!((account.address.as_str(), account.client_id.as_deref()), ("ann@gmail.com", Some("123.apps.example")));
    assert_eq!(allowed[0].domains[0].address, "*@gmail.com");
    assert!(allowed[0].left[0].contains("[@] is for every address"));
}

#[test]
fn a_cache_store_completes_the_configuration() {
    let text = format!("[ann@gmail.com]{GOOGLE}");
    let cache = format!("[ann@gmail.com]{LOCKED}\n[ben@gmail.com]{LOCKED}");
    let merged = found(&[&text, &cache]).unwrap();
    assert_eq!(merged[0].accounts.len(), 1);
    assert!(open(&merged[0].accounts[0], "the old password").is_ok());
    assert!(found(&[&cache]).err().unwrap().contains("name its emailproxy.config as well"));
    let json = serde_json::json!({"ann@gmail.com": {"token_salt": "MDEy", "refresh_token": "gAAA"}}).to_string();
    assert!(matches!(found(&[&json, &text]).unwrap()[0].accounts[0].tokens, ImportedTokens::Locked(_)));
}

#[test]
fn known_providers_are_found_by_their_endpoints() {
    let account = |address: &str, settings: &str| format!("[{address}]{settings}{LOCKED}\n");
    let servers = "[IMAP-1993]\nserver_address = outlook.office365.com\nserver_port = 993\n\
                   [SMTP-1587]\nserver_address = smtp.office365.com\nserver_port = 587\nserver_starttls = True\n";
    let text = [
        account("ann@example.com", GOOGLE),
        account("ben@outlook.com", &microsoft("common")),
        account("cy@example.com", &microsoft("common")),
        account("di@example.com", &microsoft("organizations")),
        servers.to_owned(),
    ];
    let plan = plan(&[&text.concat()], "", "");
    let expected = [
        ("ann@example.com", "google"),
        ("ben@outlook.com", "outlook"),
        ("cy@example.com", "microsoft"),
        ("di@example.com", "microsoft"),
    ];
    assert_eq!(imported(&plan), expected);
    assert!(plan.block.is_empty(), "{}", plan.block.shown);
}

#[test]
fn a_tenants_own_endpoints_are_a_provider_of_its_own() {
    let text = format!("[ann@contoso.example]{}{LOCKED}", microsoft("contoso.example"));
    let plan = plan(&[&text], "", "");
    assert_eq!(imported(&plan), [("ann@contoso.example", "microsoft-contoso-example")]);
    let config = config(&plan.block.written);
    let provider = &config.providers["microsoft-contoso-example"];
    assert_eq!(provider.endpoints.token.as_ref().unwrap().path(), "/contoso.example/oauth2/v2.0/token");
    assert_eq!(provider.endpoints.jwks.as_ref().unwrap().path(), "/contoso.example/discovery/v2.0/keys");
    assert_eq!(provider.servers.len(), 3);
    assert_eq!(config.provider_for("ben@contoso.example").unwrap().name, "microsoft-contoso-example");
}

#[test]
fn an_unknown_provider_is_described_with_the_servers_of_the_file() {
    let own = "
permission_url = https://auth.example.org/authorize
token_url = https://auth.example.org/token
oauth2_scope = mail offline_access
redirect_uri = http://localhost:8080
client_id = own
";
    let servers = "[IMAP-1993]\nserver_address = imap.example.org\nserver_port = 993\nlocal_address = 127.0.0.1\n\
                   [IMAP-1994]\nserver_address = imap.gmail.com\nserver_port = 993\nlocal_certificate_path = c.pem\nlocal_key_path = k.pem\n\
                   [POP-1995]\nserver_address = pop.example.org\nserver_port = 995\n\
                   [SMTP-1587]\nserver_address = smtp.example.org\nserver_port = 587\nstarttls = true\nlocal_address = 192.0.2.1\n";
    let text = format!("[emailproxy]\n{servers}[ann@example.org]{own}{LOCKED}[ben@example.org]{own}{LOCKED}");
    let plan = plan(&[&text], "", "");
    assert_eq!(imported(&plan), [("ann@example.org", "example-org"), ("ben@example.org", "example-org")]);
    let config = config(&plan.block.written);
    let provider = &config.providers["example-org"];
    let servers: Vec<_> = provider.servers.values().map(|server| (server.host.as_str(), server.security)).collect();
    let expected = [
        ("imap.example.org", Security::Tls),
        ("pop.example.org", Security::Tls),
        ("smtp.example.org", Security::StartTls),
    ];
    assert_eq!(servers, expected);
    assert_eq!(provider.redirect_uri.port(), Some(8080));
    let ports: Vec<_> = plan.listeners.iter().map(|port| port.provider.as_deref()).collect();
    assert_eq!(ports, [Some("example-org"), Some("google"), Some("example-org"), Some("example-org")]);
    let mut block = super::block::Block::default();
    let warnings: Vec<_> = plan.listeners.iter().filter_map(|port| block.add_listener(&port.listener, None)).collect();
    assert_eq!(warnings.len(), 2, "the ports for all addresses and for another machine: {warnings:?}");
    assert!(block.shown.contains("allow_remote = true") && block.shown.contains("\"[::]:1994\""), "{}", block.shown);
}

#[test]
fn grants_without_a_sign_in_get_an_entry() {
    let unattended = |flow: &str, client: &str| {
        let all = microsoft("contoso.example");
        let lines = all.lines().filter(|line| !line.starts_with("permission_url") && !line.starts_with("client_id"));
        format!("{}\noauth2_flow = {flow}\n{client}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    let text = format!(
        "[emailproxy]\nuse_login_password_as_client_credentials_secret = True\n[a@contoso.example]{}[b@contoso.example]{}\
         [c@contoso.example]{}[d@gmail.com]\ntoken_url = https://oauth2.googleapis.com/token\noauth2_scope = x\n\
         oauth2_flow = service_account\nclient_id = file\nclient_secret = key.json\n",
        unattended("client_credentials", "client_id = one"),
        unattended("client_credentials", "client_id = two\njwt_certificate_path = /c.pem\njwt_key_path = /k.pem"),
        unattended("password", "client_id = three"),
    );
    let plan = plan(&[&text], "", "");
    let config = config(&plan.block.written);
    let providers: Vec<_> = imported(&plan).into_iter().map(|(_, provider)| provider).collect();
    let tenant = "microsoft-contoso-example";
    assert_eq!(providers, [tenant, tenant, "microsoft-contoso-example-2", "google-service-account"]);
    assert_eq!(config.account("b@contoso.example").client.as_ref().unwrap().id, "two");
    assert!(config.account("c@contoso.example").legacy && config.providers["google-service-account"].bearer.is_some());
    let accounts: Vec<_> = plan.accounts.iter().map(|planned| &planned.account).collect();
    assert_eq!(open(accounts[0], "pass word").unwrap(), (None, Some("pass word".to_owned())));
    assert_eq!(open(accounts[2], "pass word").unwrap(), (None, None));
}

#[test]
fn what_cannot_be_taken_over_is_named() {
    let text = format!(
        "[IMAP-1993]\nserver_address = imap.elsewhere.example\nserver_port = 993\nplugins = {{'X': {{}}}}\n\
         [SMTP-99999]\nserver_address = a\nserver_port = 1\n[ann@gmail.com]{GOOGLE}\n\
         [example@gmail.com]\ntoken_url = x\nclient_id = *** your client id here ***\n[bad@gmail.com]\ntoken_url = https://x.test/\noauth2_flow = magic\n"
    );
    let plan = plan(&[&text], "", "");
    let left: String = plan.left.iter().map(|(_, why)| format!("{why}\n")).collect();
    for words in
        ["plug-ins of [IMAP-1993]", "imap.elsewhere.example", "[SMTP-99999] cannot be used", "is the example", "magic"]
    {
        assert!(left.contains(words), "{words}: {left}");
    }
    assert!(matches!(plan.accounts[0].fate, Fate::SignIn(_)));
    assert!(plan.check().is_err());
}

#[test]
fn secrets_are_written_but_not_shown() {
    let text = format!("[emailproxy]\nallow_catch_all_accounts = on\n[@gmail.com]{GOOGLE}client_secret = hush\n");
    let plan = plan(&[&text], "", "");
    assert!(plan.block.written.contains("hush") && !plan.block.shown.contains("hush"));
    assert_eq!(
        config(&plan.block.written).domains["gmail.com"].members.client.as_ref().unwrap().id,
        "123.apps.example"
    );
}

#[test]
fn other_files_are_recognized_by_their_content() {
    let dump = "[PIZAUTH]";
    for (text, words) in [
        ("", "it is empty"),
        ("hello\nworld\n", "none of the files"),
        ("[Unit]\nDescription = x\n", "none of the files"),
        ("[a@b]\nrefresh_token", "line 2 is damaged"),
        ("{\"refresh_token\": ", "is damaged"),
        ("-----BEGIN PGP MESSAGE-----\n\nx\n", "--decrypt-command"),
        (dump, "none of the files"),
    ] {
        assert!(found(&[text]).err().unwrap().contains(words), "{text:?}");
    }
    let mutt = r#"{"registration":"google","authflow":"authcode","email":"ann@gmail.com","refresh_token":"1//r","client_id":"i","client_secret":"s"}"#;
    assert_eq!(imported(&plan(&[mutt], "", "")), [("ann@gmail.com", "google")]);
    let alone = plan(&["1//0a-refresh_token-alone\n"], "", "--client-id i --address ann@gmail.com");
    assert_eq!(imported(&alone), [("ann@gmail.com", "google")]);
    assert!(
        matches!(&plan(&["1//0a-refresh_token-alone\n"], "", "").accounts[0].fate, Fate::Impossible(why) if why.contains("--address"))
    );
}

#[test]
fn a_file_is_decrypted_by_the_users_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(
        &file,
        "}\"r//1\":\"nekot_hserfer\",\"moc.liamg@nna\":\"liame\",\"edoctua\":\"wolfhtua\",\"elgoog\":\"noitartsiger\"{",
    )
    .unwrap();
    let read = |command: &str| {
        let mut options = ImportOptions { files: vec![file.clone()], ..options("") };
        options.decrypt_command = Some(command.to_owned());
        ImportFiles::read(&options)
    };
    assert_eq!(source::read(&read("rev").ok().unwrap().contents).ok().unwrap()[0].accounts[0].address, "ann@gmail.com");
    assert!(read("false").err().unwrap().message.contains("`false` failed"));
    assert!(read("cat").err().unwrap().message.contains("after `cat`"));
}

#[test]
fn davmails_tokens_need_a_provider_that_names_the_scopes() {
    let text =
        "davmail.mode=O365\ndavmail.oauth.clientId=id\ndavmail.oauth.ann@contoso.example.refreshToken={AES}AAAA\n";
    let plan = plan(&[text], "", "");
    assert_eq!(imported(&plan), [("ann@contoso.example", "microsoft-common")]);
    let config = config(&plan.block.written);
    assert!(
        config.providers["microsoft-common"].refresh_scope && !config.providers["microsoft-common"].scope.is_empty()
    );
}
