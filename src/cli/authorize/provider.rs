//! Finds the provider of an address: by its domain, by its MX records, or by asking.

use std::io::IsTerminal as _;

use super::super::terminal::{Input, complain, say};
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::net::mx::MailExchangers;

/// Returns the name of an address's provider, and shows how it was found. `named` comes from the command line.
pub async fn find(config: &Config, address: &str, named: Option<&str>, input: &mut Input) -> Result<String, Failed> {
    if let Some(name) = named {
        return match config.providers.contains_key(name) {
            true => Ok(name.to_owned()),
            false => Err(unknown(&format!("there is no provider {name}"), config)),
        };
    }
    match by_address(config, address, &MailExchangers::system()).await {
        Some((name, how)) => {
            say(format_args!("The provider of {address} is {name}: {how}.\n"));
            Ok(name)
        }
        None if std::io::stdin().is_terminal() => choose(config, address, input).await,
        None => Err(unknown(&format!("neither the domain nor its MX records show the provider of {address}"), config)),
    }
}

fn unknown(why: &str, config: &Config) -> Failed {
    let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
    let known = known.join(", ");
    let advice = "describe it in the configuration, or choose one with `--provider`";
    Failed::new(Exit::Usage, format!("{why}; {advice}: {known}"))
}

/// The provider to which the address itself leads, and how it was found.
async fn by_address(config: &Config, address: &str, exchangers: &MailExchangers) -> Option<(String, String)> {
    let name = Name::typed(address);
    let (_, domain) = name.parts()?;
    if let Some(provider) = config.provider_for(address) {
        let is_configured = config.account(address).provider.is_some();
        let how =
            if is_configured { "the configuration says so".to_owned() } else { format!("{domain} belongs to it") };
        return Some((provider.name.clone(), how));
    }
    let hosts = exchangers.of(&domain).await;
    hosts.iter().find_map(|host| {
        let provider = config.providers.values().find(|provider| provider.has_exchanger(host))?;
        Some((provider.name.clone(), format!("the mail server of {domain} is {host}")))
    })
}

/// Lets a person choose from a list.
async fn choose(config: &Config, address: &str, input: &mut Input) -> Result<String, Failed> {
    say(format_args!("The provider of {address} is unknown. Which one is it?\n"));
    for (number, name) in (1..).zip(config.providers.keys()) {
        say(format_args!("  {number:2}  {name}"));
    }
    say("\nIf it is not in the list, describe it in the configuration. Number or name:");
    while let Some(line) = input.line().await {
        match chosen(config, &String::from_utf8_lossy(line.expose())) {
            Some(name) => return Ok(name),
            None => complain(format_args!("enter a number from 1 to {}, or a name", config.providers.len())),
        }
    }
    Err(unknown("no provider was chosen", config))
}

fn chosen(config: &Config, answer: &str) -> Option<String> {
    let answer = answer.trim();
    let mut names = config.providers.keys();
    match answer.parse::<usize>() {
        Ok(number) => names.nth(number.checked_sub(1)?).cloned(),
        Err(_) => names.find(|name| name.eq_ignore_ascii_case(answer)).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use simple_dns::rdata::{MX, RData};
    use simple_dns::{CLASS, Name, Packet, Question, ResourceRecord};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::config::environment::Environment;

    fn config(text: &str) -> Config {
        let environment = Environment { home: Some("/".into()), ..Environment::default() };
        Config::parse(text, Path::new("postkey.toml"), &environment).unwrap()
    }

    /// The result for an address whose domain has `host` as its mail exchanger, according to a name server on loopback.
    async fn found(config: &Config, address: &str, host: &'static str) -> Option<(String, String)> {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let exchangers = MailExchangers::at(vec![server.local_addr().unwrap()]);
        let serve = async move {
            let mut buffer = [0; 512];
            loop {
                let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
                let question = Packet::parse(&buffer[..length]).unwrap();
                let mut reply = Packet::new_reply(question.id());
                let mx = RData::MX(MX { preference: 1, exchange: Name::new_unchecked(host) });
                let name = question.questions[0].qname.clone();
                reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, mx).into_owned());
                reply.questions = question.questions.into_iter().map(Question::into_owned).collect();
                server.send_to(&reply.build_bytes_vec().unwrap(), peer).await.unwrap();
            }
        };
        tokio::select! {
            found = by_address(config, address, &exchangers) => found,
            () = serve => None,
        }
    }

    #[tokio::test]
    async fn the_domain_decides_first_and_then_its_mail_exchanger() {
        let config = config("[account.\"ann@own.test\"]\nprovider = \"microsoft\"\n");
        for (address, host, expected) in [
            ("ann@gmail.com", "mx.yandex.net", Some(("google", "gmail.com belongs to it"))),
            ("ann@own.test", "mx.yandex.net", Some(("microsoft", "the configuration says so"))),
            ("ann@a.test", "SMTP.google.com", Some(("google", "the mail server of a.test is smtp.google.com"))),
        ] {
            let expected = expected.map(|(name, how)| (name.to_owned(), how.to_owned()));
            assert_eq!(found(&config, address, host).await, expected, "{address} {host}");
        }
        for (domain, host, expected) in [
            ("a.test", "alt4.aspmx.l.google.com", Some("google")),
            ("a.test", "a-test.mail.protection.outlook.com", Some("microsoft")),
            ("a.test", "a-test.a-v1.mx.microsoft", Some("microsoft")),
            ("a.test", "a-test.olc.protection.outlook.com", Some("outlook")),
            ("a.test", "in1-smtp.messagingengine.com", Some("fastmail")),
            ("comcast.net", "mx-aol.mail.gm0.yahoodns.net", Some("aol")),
            ("comcast.net", "mx1.mxge.comcast.net", Some("comcast")),
            ("a.test", "mx.a.test", None),
            ("a.test", "evilsmtp.google.com", None),
            ("a.test", "smtp.google.com.evil.test", None),
        ] {
            let found = found(&config, &format!("ann@{domain}"), host).await;
            let how = format!("the mail server of {domain} is {host}");
            assert_eq!(found, expected.map(|name| (name.to_owned(), how)), "{domain} {host}");
        }
    }

    #[test]
    fn a_person_chooses_by_number_or_name() {
        let config = config("");
        let first = config.providers.keys().next().unwrap();
        assert_eq!(chosen(&config, " 1 ").as_ref(), Some(first));
        assert_eq!(chosen(&config, "Google"), Some("google".to_owned()));
        let last = config.providers.len();
        assert_eq!(chosen(&config, &last.to_string()).as_ref(), config.providers.keys().last());
        for nothing in ["0", "", "-1", "x", &(last + 1).to_string()] {
            assert_eq!(chosen(&config, nothing), None, "{nothing:?}");
        }
    }
}
