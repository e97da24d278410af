//! The fuzz targets as tests: random valid dialogues, with both sides' bytes in random pieces. Each has to end in
//! the relay, with every byte after the logins, and keep all properties of `tests/fuzz/src` on the way there.

#[path = "fuzz/src/lib.rs"]
mod targets;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Base64 of PLAIN for ann@example.test and s3cret, and of each alone.
const PLAIN: &str = "AGFubkBleGFtcGxlLnRlc3QAczNjcmV0";
const USER: &str = "YW5uQGV4YW1wbGUudGVzdA==";
const PASSWORD: &str = "czNjcmV0";

/// In the order of `Protocol::ALL`: what a client may send before it logs in, and its ways to do so. `~` is a line end.
const EARLY: [&[&str]; 3] = [
    &[
        "a CAPABILITY~",
        "a NOOP~",
        "a ID NIL~",
        "a ID (\"name\" {3+}~x~y)~",
        "a LOGIN {3}~bob {3+}~a~b~",
        "a LOGIN bob no~",
    ],
    &["CAPA~", "USER bob~PASS no~", "AUTH~", "NOOP~", "AUTH PLAIN~*~"],
    &["EHLO pc.test~", "HELO pc~", "NOOP~", "RSET~", "AUTH LOGIN~*~", "AUTH PLAIN AGJvYgBubw==~"],
];
const LOGINS: [&[&str]; 3] = [
    &[
        "a LOGIN ann@example.test s3cret~",
        "a login \"ann@example.test\" \"s3cret\"~",
        "a LOGIN {16}~ann@example.test {6}~s3cret~",
        "a LOGIN {16+}~ann@example.test \"s3cret\"~",
        "a AUTHENTICATE PLAIN [PLAIN]~",
        "a AUTHENTICATE PLAIN~[PLAIN]~",
        "a AUTHENTICATE LOGIN~[USER]~[PASSWORD]~",
    ],
    &[
        "USER ann@example.test~PASS s3cret~",
        "AUTH PLAIN [PLAIN]~",
        "AUTH PLAIN~[PLAIN]~",
        "AUTH LOGIN~[USER]~[PASSWORD]~",
    ],
    &["EHLO pc~AUTH PLAIN [PLAIN]~", "AUTH PLAIN~[PLAIN]~", "AUTH LOGIN [USER]~[PASSWORD]~"],
];
const STARTTLS: [&str; 3] = ["t STARTTLS~", "STLS~", "EHLO pc~STARTTLS~"];

/// What a server sends up to its STARTTLS, and from there up to its acceptance.
const CLEAR: [&[&str]; 3] = [
    &["* OK hi~P1 OK go~", "* OK [CAPABILITY STARTTLS] hi~* X~P1 OK go~"],
    &["+OK hi~+OK go~"],
    &["220 hi~250-hi~250 STARTTLS~220 go~", "220-hi~220 ho~250-hi~250-SIZE 1~250 STARTTLS~220 go~"],
];
const UNDER_TLS: [&[&str]; 3] = [
    &[
        "* CAPABILITY AUTH=XOAUTH2~P2 OK~+ ~* CAPABILITY X~P3 OK in~",
        "* CAPABILITY SASL-IR AUTH=OAUTHBEARER~P2 OK~P3 OK [CAPABILITY Y] in~",
    ],
    &["+OK~SASL PLAIN XOAUTH2~.~+ ~+OK in~", "-ERR what~+~+OK in~"],
    &["250-hi~250 AUTH XOAUTH2~235 in~", "250-hi~250-AUTH=OAUTHBEARER~250 SIZE 5~235-in~235 in~"],
];
/// The same for a server with TLS from the first byte on.
const IMPLICIT: [&[&str]; 3] = [
    &[
        "* OK [CAPABILITY AUTH=XOAUTH2] hi~* NO x~+ ~P1 OK in~",
        "* OK hi~* CAPABILITY AUTH=XOAUTH2 SASL-IR~P1 OK~P2 OK in~",
    ],
    &["+OK hi~+OK~SASL XOAUTH2~.~+ ~+OK in~"],
    &["220 hi~250-hi~250 AUTH XOAUTH2 OAUTHBEARER~235 in~"],
];

fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("[PLAIN]", PLAIN).replace("[USER]", USER).replace("[PASSWORD]", PASSWORD);
    text.replace('~', "\r\n").into_bytes()
}

/// One of these conversations.
fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    select(texts).prop_map(bytes)
}

/// Bytes of a relay: anything except what separates the streams of an input.
fn rest() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'\r'), Just(b'\n'), 0..=254_u8], 0..40)
}

/// The protocol, whether both sides use STARTTLS, and all streams in their order.
fn dialogue() -> impl Strategy<Value = (u8, u8, Vec<Vec<u8>>, Vec<u8>, Vec<u8>)> {
    (0..3_usize, any::<bool>()).prop_flat_map(|(protocol, starttls)| {
        let early = subsequence(EARLY[protocol], 0..=4).prop_map(|texts| bytes(&texts.concat()));
        let server = if starttls { UNDER_TLS } else { IMPLICIT };
        let parts =
            (early, one_of(LOGINS[protocol]), rest(), one_of(CLEAR[protocol]), one_of(server[protocol]), rest());
        parts.prop_map(move |(early, login, sent, clear, server, came)| {
            let (client, server) = ([early, login, sent.clone()].concat(), [server, came.clone()].concat());
            let streams = match starttls {
                true => vec![bytes(STARTTLS[protocol]), client, clear, server],
                false => vec![client, vec![], server],
            };
            (protocol as u8, u8::from(starttls), streams, sent, came)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn valid_dialogues_end_in_the_relay_however_their_bytes_arrive(
        (protocol, choice, streams, sent, came) in dialogue(),
        sizes in vec(0..60_u8, 3),
    ) {
        let input = [&[protocol, choice], sizes.as_slice(), &streams.join(&0xff)].concat();
        prop_assert_eq!(targets::relayed(&input), Some((sent, came)), "{}", input.escape_ascii());
    }
}

/// The fuzzers begin here, so every seed has to pass.
#[test]
fn seeds_pass() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, target) in [
        ("tests/fuzz/seeds/sasl", targets::sasl as fn(&[u8])),
        ("tests/fuzz/seeds/proxy_header", targets::proxy_header),
        ("tests/fuzz/seeds/redirect", targets::redirect),
        ("tests/fuzz/seeds/session", targets::session),
        ("config/examples", targets::config),
    ] {
        let files: Vec<_> = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "{folder}");
        files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
    }
}

proptest! {
    /// Bytes that are no dialogue at all, for toolchains without a fuzzer.
    #[test]
    fn whatever_comes_is_borne(input in vec(any::<u8>(), 0..300)) {
        for target in [
            targets::imap_command, targets::pop3_command, targets::smtp_command,
            targets::imap_reply, targets::pop3_reply, targets::smtp_reply, targets::proxy_header,
        ] {
            target(&input);
        }
    }
}
