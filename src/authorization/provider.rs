//! Finds the provider of an address: by its domain, or by its MX records.

use crate::config::Config;
use crate::name::Name;
use crate::net::mx::MailExchangers;

/// Finds the provider of an address. Returns its name and how it was found.
pub async fn by_address(config: &Config, address: &str, exchangers: &MailExchangers) -> Option<(String, String)> {
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
}
