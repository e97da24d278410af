//! `postkey settings`: how to set up one mail program, with the addresses on which this postkey listens.
//!
//! Each program has a file in `config/programs`: its first line is the program's name, then after a bar the protocols that it
//! needs; the rest is a template.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use super::admin::AdminClient;
use super::terminal::{Input, complain, say};
use crate::address::Address;
use crate::config::{Config, ListenerConfig};
use crate::control::{Listening, Status};
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::protocol::{Protocol, Security};
use crate::secret::Secret;

/// The programs by the name that `--for` takes.
const PROGRAMS: &[(&str, &str)] = &[
    ("aerc", include_str!("../../config/programs/aerc")),
    ("alpine", include_str!("../../config/programs/alpine")),
    ("apple-mail", include_str!("../../config/programs/apple-mail")),
    ("claws-mail", include_str!("../../config/programs/claws-mail")),
    ("curl", include_str!("../../config/programs/curl")),
    ("dotnet", include_str!("../../config/programs/dotnet")),
    ("emacs", include_str!("../../config/programs/emacs")),
    ("evolution", include_str!("../../config/programs/evolution")),
    ("exim", include_str!("../../config/programs/exim")),
    ("fetchmail", include_str!("../../config/programs/fetchmail")),
    ("geary", include_str!("../../config/programs/geary")),
    ("getmail", include_str!("../../config/programs/getmail")),
    ("git-send-email", include_str!("../../config/programs/git-send-email")),
    ("java", include_str!("../../config/programs/java")),
    ("kmail", include_str!("../../config/programs/kmail")),
    ("mbsync", include_str!("../../config/programs/mbsync")),
    ("msmtp", include_str!("../../config/programs/msmtp")),
    ("mutt", include_str!("../../config/programs/mutt")),
    ("node", include_str!("../../config/programs/node")),
    ("offlineimap", include_str!("../../config/programs/offlineimap")),
    ("outlook", include_str!("../../config/programs/outlook")),
    ("php", include_str!("../../config/programs/php")),
    ("postfix", include_str!("../../config/programs/postfix")),
    ("python", include_str!("../../config/programs/python")),
    ("s-nail", include_str!("../../config/programs/s-nail")),
    ("scanner", include_str!("../../config/programs/scanner")),
    ("thunderbird", include_str!("../../config/programs/thunderbird")),
    ("thunderbird-android", include_str!("../../config/programs/thunderbird-android")),
];

/// The providers that save a sent mail themselves, so that a second copy of it appears if the program saves it, too.
const KEEPS_SENT: [&str; 2] = ["google", "microsoft"];

/// Stands for the app password, which only its owner knows.
const NO_PASSWORD: &str = "APP-PASSWORD";

/// Shows the settings of an account for a program, or which programs there are.
pub async fn run(config: &Config, address: &str, program: Option<&str>, has_password: bool) -> Result<(), Failed> {
    let status = AdminClient::connect(config).await?.status().await?;
    let address = config.address_of(address);
    let address = status.account(&address).map_or(address, |account| account.address.clone());
    let Some(name) = program else {
        say("Add `--for PROGRAM` for the settings of one of these programs:\n");
        for (name, text) in PROGRAMS {
            say(format_args!("  {name:<20} {}", MailProgram::read(text).title));
        }
        return Ok(());
    };
    let program = PROGRAMS.iter().find(|(known, _)| *known == name).map(|(_, text)| MailProgram::read(text));
    let program = program.ok_or_else(|| Failed::new(Exit::Usage, unknown(name)))?;
    let password = match has_password {
        true => Input::new().password("The app password: ").await?,
        false => Secret::new(NO_PASSWORD.into()),
    };
    let password = std::str::from_utf8(password.expose())
        .map_err(|_| Failed::new(Exit::Data, "this app password is not UTF-8, and a program's settings are text"))?;
    let settings = program.render(&Account::new(config, &status, &address), password)?;
    // The standard output can be the program's file.
    complain(format_args!("the settings for {}:", program.title));
    say(settings.trim_end());
    Ok(())
}

fn unknown(name: &str) -> String {
    let similar = PROGRAMS
        .iter()
        .map(|(known, _)| *known)
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)));
    format!(
        "there are no settings for {name}; did you mean {}? `postkey settings ADDRESS` lists all programs, and every other \
         program needs the same host, port, user name and password as those",
        similar.unwrap_or_default()
    )
}

/// One file of `config/programs`.
struct MailProgram {
    title: &'static str,
    needs: Vec<&'static str>,
    template: &'static str,
}

impl MailProgram {
    fn read(text: &'static str) -> Self {
        let (head, template) = text.split_once('\n').unwrap_or((text, ""));
        let (title, needs) = head.split_once('|').unwrap_or((head, ""));
        Self { title: title.trim(), needs: needs.split_whitespace().collect(), template }
    }

    fn render(&self, account: &Account, password: &str) -> Result<String, Failed> {
        for protocol in Protocol::ALL.iter().filter(|protocol| self.needs.contains(&protocol.name())) {
            if account.listener(*protocol).is_none() {
                let why = format!(
                    "{} needs {protocol}, and no {protocol} listener of this postkey serves {} over TCP; add a [[listener]] to \
                     the configuration",
                    self.title, account.address
                );
                return Err(Failed::new(Exit::Config, why));
            }
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        let (local, domain) = account.address.rsplit_once('@').unwrap_or((&account.address, ""));
        let context = context! {
            user => &account.address,
            user_in_url => in_url(&account.address),
            password => password,
            password_in_url => in_url(password),
            domain => domain,
            account => local.replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
            provider => account.provider.as_deref().unwrap_or("the provider"),
            keeps_sent => account.provider.as_deref().is_some_and(|name| KEEPS_SENT.contains(&name)),
            imap => endpoint(account, Protocol::Imap),
            smtp => endpoint(account, Protocol::Smtp),
        };
        environment
            .render_str(self.template, context)
            .map_err(|error| Failed::new(Exit::Software, format!("the settings for {} are wrong: {error}", self.title)))
    }
}

/// A listener as templates see it.
fn endpoint(account: &Account, protocol: Protocol) -> Option<minijinja::Value> {
    let (host, port, security) = account.listener(protocol)?;
    let scheme = format!("{}{}", protocol.name(), if security == Security::Tls { "s" } else { "" });
    Some(context! { host => host, port => port, security => security.name(), scheme => scheme })
}

/// A user name or password as the part of a URL before the host (RFC 3986 section 3.2.1).
fn in_url(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The facts on which the settings of an account depend.
struct Account {
    address: String,
    provider: Option<String>,
    listeners: Vec<Listening>,
}

impl Account {
    fn new(config: &Config, status: &Status, address: &str) -> Self {
        let stored = status.account(address).map(|account| account.provider.clone());
        let provider = stored.or_else(|| config.provider_for(address).map(|provider| provider.name.clone()));
        let serves = |listener: &ListenerConfig| {
            listener.password.is_none()
                && listener.account.as_ref().is_none_or(|only| Name::typed(only).same_as(&Name::typed(address)))
                && listener.provider.as_ref().is_none_or(|only| Some(only) == provider.as_ref())
        };
        let others: Vec<&Address> = config
            .listeners
            .iter()
            .filter(|listener| !serves(listener))
            .flat_map(|listener| &listener.addresses)
            .collect();
        let mut listeners = listening(config, status);
        listeners.retain(|listener| !others.contains(&&listener.address));
        Self { address: address.to_owned(), provider, listeners }
    }

    /// The host, port and security of the first listener of a protocol that a program can reach by TCP.
    fn listener(&self, protocol: Protocol) -> Option<(String, u16, Security)> {
        self.listeners.iter().filter(|listener| listener.protocol == protocol).find_map(|listener| {
            let Address::Tcp(address) = &listener.address else { return None };
            let host = match address.ip() {
                all if all.is_unspecified() => "localhost".to_owned(),
                ip => ip.to_string(),
            };
            Some((host, address.port(), listener.security))
        })
    }
}

/// The open ports of the daemon, or those of the configuration if none runs.
pub fn listening(config: &Config, status: &Status) -> Vec<Listening> {
    if !status.listeners.is_empty() {
        return status.listeners.clone();
    }
    let mut ports = Vec::new();
    for ListenerConfig { protocol, security, addresses, .. } in &config.listeners {
        let port = |address: &Address| Listening { protocol: *protocol, address: address.clone(), security: *security };
        ports.extend(addresses.iter().map(port));
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(security: Security, provider: &str) -> Account {
        let listener = |(protocol, port): (&Protocol, u16)| Listening {
            protocol: *protocol,
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
            security,
        };
        let listeners = Protocol::ALL.iter().zip(1143..).map(listener).collect();
        Account { address: "ann+x@example.test".into(), provider: Some(provider.into()), listeners }
    }

    #[test]
    fn every_program_has_settings_for_every_security() {
        for (name, text) in PROGRAMS {
            let program = MailProgram::read(text);
            assert!(!program.title.is_empty() && !program.needs.is_empty(), "{name}");
            for security in [Security::Clear, Security::StartTls, Security::Tls] {
                for provider in ["google", "own"] {
                    let shown = program.render(&account(security, provider), "pa:s/1").unwrap();
                    assert!(shown.contains("127.0.0.1") && !shown.contains("{{"), "{name}: {shown}");
                    assert!(shown.contains("pa:s/1") || shown.contains("pa%3As%2F1"), "{name}: {shown}");
                    assert!(
                        shown.contains("ann+x@example.test") || shown.contains("ann%2Bx%40example.test"),
                        "{name}: {shown}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_program_is_not_told_of_a_listener_that_is_not_there() {
        let mut account = account(Security::Clear, "own");
        account.listeners.retain(|listener| listener.protocol != Protocol::Smtp);
        let msmtp = MailProgram::read(PROGRAMS.iter().find(|(name, _)| *name == "msmtp").unwrap().1);
        assert_eq!(msmtp.render(&account, "x").unwrap_err().exit, Exit::Config);
    }

    #[test]
    fn every_file_of_a_program_is_in_the_table() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/programs");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, PROGRAMS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn a_typing_error_is_answered_with_the_nearest_name() {
        assert!(unknown("thunderbrid").contains("did you mean thunderbird?"));
    }
}
