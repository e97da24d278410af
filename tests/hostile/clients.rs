//! Hostile clients: the answers that they get, and that nobody else notices them.

use std::time::{Duration, Instant};

use postkey::protocol::{Protocol, Security};

use crate::support::house::{ANN, House, Program, SECURITIES, Way, accepted};

/// A house, and other people's sessions, which must not notice anything.
struct Quiet {
    house: House,
    bystanders: Vec<Program>,
    before: (serde_json::Value, Vec<u8>, Vec<usize>),
}

impl Quiet {
    async fn new() -> Self {
        let house = House::open().await;
        let mut bystanders = Vec::new();
        for protocol in Protocol::ALL {
            bystanders.push(house.logged_in(protocol).await);
        }
        let before = traces(&house).await;
        Self { house, bystanders, before }
    }

    /// Nothing was written, no provider was asked, and the others continue.
    async fn is_undisturbed(&mut self, what: &str) {
        assert_eq!(traces(&self.house).await, self.before, "{what}");
        for bystander in &mut self.bystanders {
            bystander.client.ask("a NOOP").await;
        }
    }
}

/// Where an attack could leave traces: the accounts, the vault, the provider's connections and token requests.
async fn traces(house: &House) -> (serde_json::Value, Vec<u8>, Vec<usize>) {
    let connections = Protocol::ALL.iter().map(|protocol| house.provider.connections(*protocol));
    let counts = connections.chain([house.provider.requests().len()]).collect();
    (house.state().await, house.vault_bytes(), counts)
}

/// What a client sends, and how each line of the answer begins. `~` is a line end.
struct Case {
    protocol: Protocol,
    sent: Vec<u8>,
    heard: Vec<&'static str>,
}

fn case(protocol: Protocol, sent: &str, heard: &str) -> Case {
    let heard: &'static str = heard.to_owned().leak();
    Case { protocol, sent: sent.replace('~', "\r\n").into_bytes(), heard: heard.split('|').collect() }
}

/// The last command of each case, so that its end is known.
const BYE: [(&str, &[&str]); 3] = [("z LOGOUT~", &["* BYE", "z OK"]), ("QUIT~", &["+OK"]), ("QUIT~", &["221"])];

/// Sends each case whole and byte by byte to every listener, and to those without TLS in two pieces, split at every
/// position.
async fn every_way(cases: Vec<Case>) {
    let mut quiet = Quiet::new().await;
    for mut case in cases {
        let (bye, last) = BYE[case.protocol as usize];
        case.sent.extend(bye.replace('~', "\r\n").bytes());
        case.heard.extend(last);
        for security in SECURITIES {
            check(&quiet.house, &case, security, &[&case.sent]).await;
            check(&quiet.house, &case, security, &case.sent.chunks(1).collect::<Vec<_>>()).await;
        }
        for position in 1..case.sent.len().min(120) {
            let (one, two) = case.sent.split_at(position);
            check(&quiet.house, &case, Security::Clear, &[one, two]).await;
        }
        quiet.is_undisturbed(&case.sent.escape_ascii().to_string()).await;
    }
}

async fn check(house: &House, case: &Case, security: Security, pieces: &[&[u8]]) {
    let client = house.greeted(case.protocol, security).await;
    let heard = String::from_utf8(client.talk(pieces).await).expect("ASCII");
    let fits =
        heard.lines().count() == case.heard.len() && heard.lines().zip(&case.heard).all(|(a, b)| a.starts_with(b));
    let (sent, pieces) = (case.sent.escape_ascii(), pieces.len());
    assert!(fits, "{security:?}, {pieces} pieces: {sent}\n{heard}\n{:?}", case.heard);
}

use Protocol::{Imap, Pop3, Smtp};

/// B2. postkey does not wait for any of these, and allocates nothing for them.
#[tokio::test]
async fn literals_that_are_too_much_or_nonsense() {
    let parens = "(".repeat(8000);
    every_way(vec![
        case(Imap, "a LOGIN {99999999999}~b NOOP~", "a BAD|b OK"),
        case(Imap, "a LOGIN {18446744073709551616}~", "a BAD"),
        case(Imap, "a LOGIN {1025}~", "a BAD"),
        case(Imap, "a LOGIN {-1}~b NOOP~", "a BAD|b OK"),
        case(Imap, "a LOGIN {0}~ {0}~~", "+ OK|+ OK|a NO [AUTHENTICATIONFAILED]"),
        case(Imap, "a LOGIN {6+}~x{9}~ {6+}~{9+}~~", "a NO [AUTHENTICATIONFAILED]"),
        case(Imap, "a ID ({1}~x {1}~x {1}~x {1}~x {1}~", "+ OK|+ OK|+ OK|+ OK|a BAD"),
        case(Imap, &format!("a LOGIN {parens}~b NOOP~"), "a BAD|b OK"),
        case(Pop3, "USER {99999999999}~PASS {5+}~", "+OK|-ERR [AUTH]"),
        case(Smtp, "AUTH {99999999999}~AUTH PLAIN {5+}~", "504|501"),
    ])
    .await;
}

/// The same, if what follows cannot be told apart from the literal, or is more than a line.
#[tokio::test]
async fn what_cannot_be_told_apart_ends_the_connection() {
    let mut quiet = Quiet::new().await;
    for security in SECURITIES {
        let sent = "a LOGIN {99999999999+}\r\nb NOOP\r\n";
        let heard = quiet.house.greeted(Imap, security).await.talk(&[sent.as_bytes()]).await;
        assert_eq!(heard, b"* BYE Literal too large.\r\n");
        let parens = format!("a LOGIN {}\r\nb LOGOUT\r\n", "(".repeat(10_000));
        let heard = quiet.house.greeted(Imap, security).await.talk(&[parens.as_bytes()]).await;
        assert!(heard.starts_with(b"a BAD Line too long.\r\n* BYE"), "{security:?}: {}", heard.escape_ascii());
    }
    quiet.is_undisturbed("endless literals").await;
}

/// B3 and B5. Impossible names: refused like wrong passwords, and not even looked up.
#[tokio::test]
async fn impossible_names_are_refused_like_wrong_passwords() {
    const NO: &str = "a NO [AUTHENTICATIONFAILED]";
    let odd = ["ann@example.test\u{1}auth=Bearer x", "ann@example.test\u{7f}", "ann@example.test\u{85}"];
    let mut cases = Vec::new();
    for name in odd {
        cases.push(case(Imap, &format!("a LOGIN \"{name}\" x~"), NO));
        cases.push(case(Pop3, &format!("USER {name}~PASS x~"), "+OK|-ERR [AUTH]"));
        let message = base64(&format!("\0{name}\0x"));
        cases.push(case(Smtp, &format!("AUTH PLAIN {message}~"), "535"));
    }
    cases.push(case(Imap, "a LOGIN {18}~ann@example.test~ {1}~x~", &format!("+ OK|+ OK|{NO}")));
    cases.push(case(Imap, "a LOGIN {4}~a\0nn {1}~x~", &format!("+ OK|+ OK|{NO}")));
    cases.push(case(Imap, "a LOGIN \"ann\0\" x~", "a BAD"));
    cases.push(case(Imap, &format!("a LOGIN {} x~", "x".repeat(8000)), NO));
    cases.push(case(Smtp, &format!("AUTH PLAIN {}~", base64(&format!("\0{}\0x", "x".repeat(1000)))), "535"));
    every_way(cases).await;
    for bytes in [&b"\0\xc0\xafnn@example.test\0x"[..], b"\0ann@example.test\xff\0x", b"\0ann\r\n@example.test\0x"] {
        let case = |protocol, sent: &str, heard| case(protocol, &format!("{sent} PLAIN {}~", encode(bytes)), heard);
        every_way(vec![case(Imap, "a AUTHENTICATE", NO), case(Pop3, "AUTH", "-ERR [AUTH]"), case(Smtp, "AUTH", "535")])
            .await;
    }
}

/// B5. Names that look like others, or that some programs would expand: they belong to nobody. A byte order mark before
/// a name is not among them, because it is removed like everything else that copying a name may add.
#[tokio::test]
async fn names_like_another() {
    let mut quiet = Quiet::new().await;
    let names = ["ann@ex%61mple.test", "ann@example.test%s%n", "{5}", "ann+x@example.test", "\u{430}nn@example.test"];
    for protocol in Protocol::ALL {
        for name in names {
            let mut program = quiet.house.program(protocol, Security::Clear).await;
            let reply = program.log_in(Way::Plain, name, &quiet.house.password).await;
            assert!(
                reply.starts_with(["a NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]", "535"][protocol as usize]),
                "{reply}"
            );
        }
    }
    quiet.is_undisturbed("names").await;
}

/// B3. A lone CR does not end a line, a lone LF does.
#[tokio::test]
async fn line_ends() {
    every_way(vec![
        case(Imap, "a NOOP\rb NOOP~c NOOP\nd NOOP~", "a BAD|c OK|d OK"),
        case(Imap, "\0~\u{feff}a NOOP~a NOOP\0~", "* BAD|* BAD|a BAD"),
        case(Pop3, "NOOP\rNOOP~CAPX\n.\n", "-ERR|-ERR|-ERR"),
        case(Smtp, "NOOP\rRCPT~NOOP\n.\n", "500|250|500"),
    ])
    .await;
}

/// B4. Each is answered in the protocol's words, and none counts as a wrong password: there are more of them than
/// attempts.
#[tokio::test]
async fn base64_that_is_none() {
    let too_long = "A".repeat(12_289);
    let not_plain = ["a", "ann\0s3cret", "\0ann\0s3cret\0more"].map(base64);
    let mut cases = Vec::new();
    for (protocol, auth, malformed) in
        [(Imap, "a AUTHENTICATE", "a BAD"), (Pop3, "AUTH", "-ERR"), (Smtp, "AUTH", "501 5.5.2")]
    {
        let prompt = if protocol == Smtp { "334" } else { "+" };
        let answers = not_plain.iter().map(String::as_str).chain(["!", "A", "====", "=", "*", ""]);
        let all: Vec<&str> = answers.collect();
        let sent = all.iter().map(|answer| format!("{auth} PLAIN~{answer}~")).collect::<String>();
        let heard = vec![format!("{prompt}|{malformed}"); all.len()].join("|");
        cases.push(case(protocol, &sent, &heard));
        let too_much = if protocol == Smtp { "500 5.5.6" } else { malformed };
        cases.push(case(protocol, &format!("{auth} PLAIN~{too_long}~"), &format!("{prompt}|{too_much}")));
        cases.push(case(
            protocol,
            &format!("{auth} LOGIN~*~{auth} LOGIN~YQ==~*~"),
            &format!("{prompt}|{malformed}|{prompt}|{prompt}|{malformed}"),
        ));
    }
    every_way(cases).await;
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        let auth = ["a AUTHENTICATE", "AUTH", "AUTH"][protocol as usize];
        for _ in 0..9 {
            program.client.ask(&format!("{auth} PLAIN !")).await;
        }
        let reply = program.log_in(Way::Plain, ANN, &house.password).await;
        assert!(accepted(protocol, &reply), "{reply}");
    }
}

/// B7. What follows a failed login is a command of a client that has not logged in.
#[tokio::test]
async fn behind_a_login_that_failed() {
    let plain = base64("\0ann@example.test\0wrong");
    every_way(vec![
        case(Imap, "a LOGIN ann@example.test wrong~b SELECT INBOX~c NOOP~", "a NO|b BAD Log in first.|c OK"),
        case(Pop3, "USER ann@example.test~PASS wrong~STAT~DELE 1~", "+OK|-ERR [AUTH]|-ERR|-ERR"),
        case(Smtp, &format!("AUTH PLAIN {plain}~MAIL FROM:<>~RCPT TO:<a@b>~DATA~"), "535|530|530|530"),
    ])
    .await;
}

/// B8. The first bytes of another protocol: no answer, and the connection ends at once.
#[tokio::test]
async fn other_protocols() {
    let mut quiet = Quiet::new().await;
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 300]].concat();
    let firsts: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 99\r\n\r\na LOGIN ann@example.test x\r\n",
        b"CONNECT mail.test:25 HTTP/1.1\r\n\r\nEHLO x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &hello,
    ];
    for protocol in Protocol::ALL {
        for security in SECURITIES {
            for first in firsts {
                ends_at_once(&quiet.house, protocol, security, first).await;
            }
        }
        for first in firsts {
            for position in 1..first.len().min(60) {
                let (one, two) = first.split_at(position);
                let client = quiet.house.greeted(protocol, Security::Clear).await;
                assert_eq!(client.talk(&[one, two]).await, b"", "{}", first.escape_ascii());
            }
        }
    }
    quiet.is_undisturbed("other protocols").await;
}

/// Within 10 ms in one of five attempts, because a busy machine takes longer.
async fn ends_at_once(house: &House, protocol: Protocol, security: Security, first: &[u8]) {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let client = house.greeted(protocol, security).await;
        let begun = Instant::now();
        assert_eq!(client.talk(&[first]).await, b"", "{protocol} {security:?}: {}", first.escape_ascii());
        quickest = quickest.min(begun.elapsed());
        if quickest <= Duration::from_millis(10) {
            return;
        }
    }
    panic!("{protocol} {security:?}: {} is borne for {quickest:?}", first.escape_ascii());
}

/// B8. Ten bad commands end the connection.
#[tokio::test]
async fn a_client_with_only_unknown_commands_is_disconnected() {
    let mut quiet = Quiet::new().await;
    for protocol in Protocol::ALL {
        for security in SECURITIES {
            let client = quiet.house.greeted(protocol, security).await;
            let heard = String::from_utf8(client.talk(&[&b"x WHATEVER\r\n".repeat(11)]).await).unwrap();
            let lines: Vec<&str> = heard.lines().collect();
            let (bad, bye) = [("x BAD", "* BYE"), ("-ERR", "-ERR"), ("500", "421")][protocol as usize];
            assert_eq!(lines.len(), 10, "{heard}");
            assert!(lines[..9].iter().all(|line| line.starts_with(bad)) && lines[9].starts_with(bye), "{heard}");
        }
    }
    quiet.is_undisturbed("unknown commands").await;
}

fn base64(text: &str) -> String {
    encode(text.as_bytes())
}

fn encode(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes)
}
