//! What is no part of the crate's interface: it is let out for the fuzzers alone, by `cfg(fuzzing)`.

use postkey::clock::Moment;
use postkey::control::Request;
use postkey::oauth::id_token::{self, Expected};
use postkey::oauth::response::{ErrorBody, TokenBody};
use postkey::vault;

/// What a token endpoint answers, be it tokens or an error: whatever comes out fits in a header, a SASL message and a line.
pub fn token_response(input: &[u8]) {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if let Ok(body) = serde_json::from_slice::<TokenBody>(input) {
        if let Ok(set) = body.into_token_set(Moment(1_800_000_000), None) {
            assert!(visible(set.access.expose()) && set.refresh.is_none_or(|refresh| visible(refresh.expose())));
            assert!(printable(&set.scope) && set.life.expires.since(set.life.issued) <= 366 * 24 * 3600);
        }
    }
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(input) {
        assert!(printable(&body.words()) && body.words().len() <= 300);
    }
    let expected = Expected {
        client_id: "client",
        issuer: Some("https://a.test"),
        nonce: Some("once"),
        now: Moment(1_800_000_000),
    };
    if let Err(why) = id_token::check(&String::from_utf8_lossy(input), None, &expected) {
        assert!(printable(&why.to_string()) && why.to_string().len() < 1000, "{why}");
    }
}

/// A record of the vault, as it lies on the disk and with a first line that vouches for it.
pub fn vault_record(input: &[u8]) {
    const ADDRESS: &str = "ann@example.test";
    /// Opens the account of tests/vault/format-1, which is a seed.
    const PASSWORD: &[u8] = b"abcde-fghjk-mnpqr-stvwx-yz2345";
    let read = |address, bytes: &[u8]| vault::fuzzing::read(address, bytes, PASSWORD);
    for bytes in [input, &vault::fuzzing::vouch(ADDRESS, input)] {
        let Some(content) = read(ADDRESS, bytes) else { continue };
        let written = vault::fuzzing::vouch(ADDRESS, &content);
        assert_eq!(read(ADDRESS, &written), Some(content), "what is written is not what is read");
        assert!(read("ben@example.test", bytes).is_none(), "a record of somebody else");
    }
}

/// A command on the control socket: what is understood is understood again when it is passed on.
pub fn control_request(input: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(input) else { return };
    let written = serde_json::to_vec(&request).expect("what was read can be written");
    let again: Request = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("it can be written once more"), written);
    if let Request::Authorize(authorized) = request {
        let _is_usable = authorized.is_usable();
    }
}
