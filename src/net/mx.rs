//! The hosts that accept a domain's mail (RFC 1035 section 3.3.9, RFC 5321 section 5.1), from the system's name
//! servers.
//!
//! The C library has no function for MX records. Only a person at a terminal uses this and can correct the result, so
//! one UDP query is enough: no cache, and no TCP for answers that do not fit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, Question, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::random;

/// How long one server may take. Each is asked twice, because UDP can lose the query or the answer.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 2;

/// The number of servers to ask, as in the C library (`MAXNS`).
const SERVERS: usize = 3;

/// The size of the buffer for an answer. RFC 1035 section 4.2.1 allows 512 bytes over UDP, but some servers send more.
const MOST: usize = 4096;

/// Reserved names, and names of this machine (RFC 6761 section 6), for which no server is asked.
const RESERVED: [&str; 4] = ["test", "invalid", "localhost", "example"];

/// Asks name servers for MX records.
pub struct MailExchangers {
    servers: Vec<SocketAddr>,
}

impl MailExchangers {
    /// Uses the system's name servers; without a configuration, one on this machine (resolv.conf(5)).
    pub fn system() -> Self {
        let text = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        let servers = resolv_conf::Config::parse(text).map(|config| config.nameservers).unwrap_or_default();
        let servers: Vec<IpAddr> = servers.iter().take(SERVERS).map(IpAddr::from).collect();
        let or_local = if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers };
        Self { servers: or_local.into_iter().map(|address| SocketAddr::new(address, 53)).collect() }
    }

    pub fn at(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Returns the mail exchangers of a domain in lower case, the preferred one first; nothing if no server knows any.
    pub async fn of(&self, domain: &str) -> Vec<String> {
        if RESERVED.contains(&domain.rsplit('.').next().unwrap_or_default()) && !self.are_local() {
            return Vec::new();
        }
        for server in (0..TRIES).flat_map(|_| &self.servers) {
            if let Ok(Ok(hosts)) = timeout(PATIENCE, ask(*server, domain)).await {
                return hosts;
            }
        }
        Vec::new()
    }

    fn are_local(&self) -> bool {
        self.servers.iter().all(|server| server.ip().is_loopback())
    }
}

async fn ask(server: SocketAddr, domain: &str) -> io::Result<Vec<String>> {
    let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    // The system chooses a random port, so a forger has to guess that and the random number below.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let number = u16::from_ne_bytes(random::bytes());
    let question = question(number, domain).ok_or(io::ErrorKind::InvalidInput)?;
    socket.send(&question).await?;
    let mut buffer = [0; MOST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(hosts) = buffer.get(..length).and_then(|answer| read(answer, number, domain)) {
            return Ok(hosts);
        }
    }
}

fn question(number: u16, domain: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(number);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(domain).ok()?, TYPE::MX.into(), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// Reads an answer; None if it does not belong to this question.
fn read(answer: &[u8], number: u16, domain: &str) -> Option<Vec<String>> {
    let packet = Packet::parse(answer).ok()?;
    let is_answer = packet.id() == number && packet.has_flags(PacketFlag::RESPONSE);
    let [question] = packet.questions.as_slice() else { return None };
    let is_ours = question.qname.to_string().eq_ignore_ascii_case(domain);
    // A server that fails or refuses knows nothing (RFC 1035 section 4.1.1), and half an answer may lack the deciding
    // host; the next server is asked. Only "there is no such domain" is an answer.
    let is_known = matches!(packet.rcode(), RCODE::NoError | RCODE::NameError);
    if !is_answer || !is_ours || !is_known || packet.has_flags(PacketFlag::TRUNCATION) {
        return None;
    }
    let exchanger = |record: ResourceRecord<'_>| match record.rdata {
        RData::MX(mx) => Some((mx.preference, mx.exchange.to_string().to_lowercase())),
        _ => None,
    };
    let mut found: Vec<_> = packet.answers.into_iter().filter_map(exchanger).collect();
    found.sort();
    // An empty name stands for "takes no mail" (RFC 7505).
    Some(found.into_iter().map(|(_, host)| host).filter(|host| !host.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::MX;

    use super::*;

    #[test]
    fn a_server_that_fails_or_truncates_its_answer_has_not_answered() {
        let question = question(7, "mail.test").unwrap();
        let answer = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut answer = question.clone();
            answer[2] |= 0x80;
            change(&mut answer);
            read(&answer, 7, "mail.test")
        };
        assert_eq!(answer(&|_| ()), Some(Vec::new()), "it knows none");
        assert_eq!(answer(&|bytes| bytes[3] |= 3), Some(Vec::new()), "there is no such domain");
        for refused in [1, 2, 4, 5] {
            assert_eq!(answer(&|bytes| bytes[3] |= refused), None, "code {refused}");
        }
        assert_eq!(answer(&|bytes| bytes[2] |= 0x02), None, "truncated");
        let without_question = |bytes: &mut Vec<u8>| {
            bytes[5] = 0;
            bytes.truncate(12);
        };
        assert_eq!(answer(&without_question), None);
    }

    /// Asks a name server that answers one question with this function, after another that never answers.
    async fn ask_server(answer: impl Fn(Packet<'_>) -> Vec<Vec<u8>> + Send + 'static) -> Vec<String> {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let exchangers = MailExchangers::at(vec![silent.local_addr().unwrap(), server.local_addr().unwrap()]);
        let served = tokio::spawn(async move {
            let mut buffer = [0; MOST];
            let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
            for packet in answer(Packet::parse(&buffer[..length]).unwrap()) {
                server.send_to(&packet, peer).await.unwrap();
            }
        });
        let hosts = exchangers.of("Mail.Test").await;
        served.await.unwrap();
        hosts
    }

    fn reply(question: Packet<'_>, hosts: &[(u16, &'static str)]) -> Packet<'static> {
        let mut reply = Packet::new_reply(question.id());
        reply.questions = question.questions.into_iter().map(Question::into_owned).collect();
        let mx = |(preference, host): &(u16, &'static str)| MX {
            preference: *preference,
            exchange: Name::new_unchecked(host),
        };
        let record = |mx| ResourceRecord::new(Name::new_unchecked("Mail.Test"), CLASS::IN, 60, RData::MX(mx));
        reply.answers = hosts.iter().map(mx).map(record).collect();
        reply
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_skipped_and_the_preferred_exchanger_comes_first() {
        let hosts = ask_server(|question| {
            assert_eq!(question.questions[0].qname.to_string(), "Mail.Test");
            assert_eq!(question.questions[0].qtype, TYPE::MX.into());
            vec![reply(question, &[(20, "b.example.test"), (10, "A.example.test")]).build_bytes_vec().unwrap()]
        });
        assert_eq!(hosts.await, ["a.example.test", "b.example.test"]);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_other_questions_are_ignored() {
        let hosts = ask_server(|question| {
            let forged = |change: fn(&mut Packet<'static>)| {
                let mut packet = reply(question.clone(), &[(1, "evil.test")]);
                change(&mut packet);
                packet.build_bytes_vec().unwrap()
            };
            vec![
                b"junk".to_vec(),
                forged(|packet| packet.set_id(packet.id().wrapping_add(1))),
                forged(|packet| packet.remove_flags(PacketFlag::RESPONSE)),
                forged(|packet| packet.questions[0].qname = Name::new_unchecked("other.test")),
                reply(question.clone(), &[(1, "mx.example.test")]).build_bytes_vec().unwrap(),
            ]
        });
        assert_eq!(hosts.await, ["mx.example.test"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_mail_no_name_and_no_answer_give_no_exchanger() {
        let none = ask_server(|question| vec![reply(question, &[(0, "")]).build_bytes_vec().unwrap()]);
        assert_eq!(none.await, [""; 0]);
        let unknown = ask_server(|question| vec![reply(question, &[]).build_bytes_vec().unwrap()]);
        assert_eq!(unknown.await, [""; 0]);
        assert_eq!(ask_server(|_| Vec::new()).await, [""; 0]);
        let outside = MailExchangers::at(vec!["192.0.2.1:53".parse().unwrap()]);
        assert_eq!(outside.of("example.test").await, [""; 0], "a reserved name is not sent to other machines");
        assert_eq!(outside.of(&"x".repeat(300)).await, [""; 0]);
    }
}
