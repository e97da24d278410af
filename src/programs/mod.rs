//! The settings of mail programs, from the templates in `config/programs`.
//!
//! The first line of a template is the program's name, then after a bar the protocols that it needs, `elsewhere` if it is on
//! another machine, `no-starttls` if it does not know that command, and `file:NAME` if it reads a file that consists of the
//! settings alone. The rest is for minijinja.

mod quoting;
mod served;

use std::error::Error as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value, context};
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Failed};
use crate::protocol::{Protocol, Security};
use quoting::Unquotable;
pub use served::Served;

/// The programs by the name that `--for` takes.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("aerc", include_str!("../../config/programs/aerc")),
    ("alpine", include_str!("../../config/programs/alpine")),
    ("apple-mail", include_str!("../../config/programs/apple-mail")),
    ("apple-profile", include_str!("../../config/programs/apple-profile")),
    ("autoconfig", include_str!("../../config/programs/autoconfig")),
    ("autodiscover", include_str!("../../config/programs/autodiscover")),
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

/// One file of `config/programs`.
pub struct MailProgram {
    /// The name that `--for` takes.
    pub name: &'static str,
    pub title: &'static str,
    needs: Vec<&'static str>,
    template: &'static str,
}

impl MailProgram {
    pub fn all() -> impl Iterator<Item = Self> {
        PROGRAMS.iter().map(|(name, text)| Self::read(name, text))
    }

    /// Finds a program by the name that `--for` takes.
    ///
    /// # Errors
    ///
    /// Fails with the nearest name if there is none with this one.
    pub fn find(name: &str) -> Result<Self, Failed> {
        let found = PROGRAMS.iter().find(|(known, _)| *known == name);
        found.map(|(name, text)| Self::read(name, text)).ok_or_else(|| Failed::new(Exit::Usage, unknown(name)))
    }

    fn read(name: &'static str, text: &'static str) -> Self {
        let (head, template) = text.split_once('\n').unwrap_or((text, ""));
        let (title, needs) = head.split_once('|').unwrap_or((head, ""));
        Self { name, title: title.trim(), needs: needs.split_whitespace().collect(), template }
    }

    /// The name to suggest for a file with the settings, if the program reads one.
    pub fn file(&self) -> Option<&'static str> {
        self.needs.iter().find_map(|need| need.strip_prefix("file:"))
    }

    /// Whether it is on another machine, as phones and scanners are.
    fn is_elsewhere(&self) -> bool {
        self.needs.contains(&"elsewhere")
    }

    /// Whether it cannot use a listener with STARTTLS.
    fn has_no_starttls(&self) -> bool {
        self.needs.contains(&"no-starttls")
    }

    /// Returns the settings, ready to be pasted. Without a password they have a placeholder.
    ///
    /// # Errors
    ///
    /// Fails if no listener serves a protocol that the program needs, or if the program has no way to read this user
    /// name or password.
    pub fn render(&self, account: &Served, password: Option<&str>) -> Result<String, Failed> {
        let usable = |security| !(self.has_no_starttls() && security == Security::StartTls);
        let account = &account.only(usable);
        for protocol in Protocol::ALL.iter().filter(|protocol| self.needs.contains(&protocol.name())) {
            if account.endpoint(*protocol, self.is_elsewhere()).is_none() {
                let how = if self.has_no_starttls() { " without STARTTLS, which it does not have" } else { "" };
                let why = format!(
                    "{} needs {protocol}, and no {protocol} listener of this postkey serves {} over TCP{how}; add a [[listener]] \
                     to the configuration",
                    self.title, account.address
                );
                return Err(Failed::new(Exit::Config, why));
            }
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        quoting::add_filters(&mut environment);
        let address = account.address.clone();
        environment.add_function("uuid", move |part: &str| uuid(&address, part));
        let rendered = environment.render_str(self.template, variables(account, password, self.is_elsewhere()));
        rendered.map_err(|error| self.refusal(&error, account))
    }

    /// Says why a template could not be filled in.
    fn refusal(&self, error: &Error, account: &Served) -> Failed {
        let Some(unquotable) = error.source().and_then(|source| source.downcast_ref::<Unquotable>()) else {
            return Failed::new(Exit::Software, format!("the settings for {} are wrong: {error}", self.title));
        };
        let Served { address, .. } = account;
        let (what, advice) = match unquotable.text.trim_matches(['<', '>']) == address {
            true => {
                ("user name", format!("add another login name as an alias to [account.{address:?}] and enter that one"))
            }
            false => {
                let command = format!("postkey password add {address} {}", self.name);
                ("app password", format!("`{command}` generates one without such characters"))
            }
        };
        Failed::new(Exit::Data, format!("{} cannot use this {what} with {unquotable}; {advice}", self.name))
    }
}

fn variables(account: &Served, password: Option<&str>, elsewhere: bool) -> Value {
    let (local, domain) = account.address.rsplit_once('@').unwrap_or((&account.address, ""));
    context! {
        user => &account.address,
        password => password.unwrap_or(NO_PASSWORD),
        authority => account.authority.as_ref().map(|der| BASE64_STANDARD.encode(der)),
        has_password => password.is_some(),
        domain => domain,
        account => local.replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
        provider => account.provider.as_deref().unwrap_or("the provider"),
        keeps_sent => account.provider.as_deref().is_some_and(|name| KEEPS_SENT.contains(&name)),
        imap => endpoint(account, Protocol::Imap, elsewhere),
        pop3 => endpoint(account, Protocol::Pop3, elsewhere),
        smtp => endpoint(account, Protocol::Smtp, elsewhere),
    }
}

/// A listener as templates see it.
fn endpoint(account: &Served, protocol: Protocol, elsewhere: bool) -> Option<Value> {
    let (host, port, security) = account.endpoint(protocol, elsewhere)?;
    let scheme = format!("{}{}", protocol.name(), if security == Security::Tls { "s" } else { "" });
    Some(
        context! { protocol => protocol.name(), host => host, port => port, security => security.name(), scheme => scheme },
    )
}

/// A UUID for a part of an account's settings, always the same one, so that a device replaces what it has (RFC 9562
/// section 5.8).
fn uuid(address: &str, part: &str) -> String {
    let digest = Sha256::new().chain_update(format!("postkey settings\0{address}\0{part}")).finalize();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, from)| *byte = from);
    let number = u128::from_be_bytes(bytes) & !(0xf << 76 | 0x3 << 62) | (0x8 << 76 | 0x2 << 62);
    let hex = format!("{number:032X}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    parts.join("-")
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

#[cfg(test)]
mod tests;
