//! What does not belong to the crate's interface, and is public for the fuzzers alone, by `cfg(fuzzing)`.

use postkey::clock::Moment;
use postkey::control::ControlRequest;
use postkey::oauth::id_token::{self, Expected};
use postkey::oauth::outcome::of_refresh;
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault;

/// A token endpoint's answer, with tokens or an error: whatever is read from it fits in a header, a SASL message and a
/// line.
pub fn token_response(input: &[u8]) {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let now = Moment(1_800_000_000);
    let token = || Token::parse("before").expect("a token");
    let life = Life { issued: Moment(0), expires: Moment(1) };
    let before = TokenSet { access: token(), refresh: Some(token()), life, scope: String::new() };
    for status in [200, 400, 503] {
        match of_refresh(status, input, &before, now) {
            Ok(set) => {
                assert!(visible(set.access.expose()) && set.refresh.is_some_and(|refresh| visible(refresh.expose())));
                assert!(printable(&set.scope) && set.life.expires.since(set.life.issued) <= 366 * 24 * 3600);
            }
            Err(failure) => assert!(printable(&failure.to_string()) && failure.to_string().len() <= 1000, "{failure}"),
        }
    }
    let expected = Expected {
        client_id: "client",
        secret: None,
        issuer: Some("https://a.test"),
        token_endpoint: None,
        nonce: Some("once"),
        now,
    };
    if let Err(why) = id_token::check(&String::from_utf8_lossy(input), None, &expected) {
        assert!(printable(&why.to_string()) && why.to_string().len() < 1000, "{why}");
    }
}

/// A record of the vault, as it is on the disk, and with a first line that vouches for it.
pub fn vault_record(input: &[u8]) {
    const ADDRESS: &str = "ann@example.test";
    /// Opens the accounts of tests/vault/format-1 and format-2, which are seeds.
    const PASSWORD: &[u8] = b"abcde-fghjk-mnpqr-stvwx-yz2345";
    let read = |address, bytes: &[u8]| vault::fuzzing::read(address, bytes, PASSWORD);
    let vouch = |format, content: &[u8]| vault::fuzzing::vouch(format, ADDRESS, content);
    for bytes in [input, &vouch(1, input), &vouch(2, input)] {
        let Some(content) = read(ADDRESS, bytes) else { continue };
        let written = vouch(2, &content);
        assert_eq!(read(ADDRESS, &written), Some(content), "what is written is not what is read");
        assert!(read("ben@example.test", bytes).is_none(), "a record of somebody else");
    }
}

/// A command on the control socket: what is accepted is accepted again when it is passed on.
pub fn control_request(input: &[u8]) {
    let Ok(request) = serde_json::from_slice::<ControlRequest>(input) else { return };
    let written = serde_json::to_vec(&request).expect("what was read can be written");
    let again: ControlRequest = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("it can be written once more"), written);
}
