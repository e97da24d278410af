//! SASL messages: PLAIN and LOGIN as clients send them, XOAUTH2 and OAUTHBEARER as providers want them.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::{Bearer, Credentials};
use crate::protocol::Mechanism;

/// Longest base64 line of a SASL exchange (RFC 4954 section 4).
pub const LINE_LIMIT: usize = 12_288;

/// The prompt `Username:` of the LOGIN mechanism, which some clients compare to the letter.
pub const USERNAME_PROMPT: &str = "VXNlcm5hbWU6";

/// The prompt `Password:` of the LOGIN mechanism.
pub const PASSWORD_PROMPT: &str = "UGFzc3dvcmQ6";

/// Standard alphabet; padding is written, and not asked for: some scanners leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a SASL message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslError {
    /// It is no base64.
    Base64,
    /// It has not the form of its mechanism.
    Form,
    /// The client asks to act as somebody else than who logs in.
    Authorization,
    /// No account and no password can look like this.
    Credentials,
}

/// Decodes one base64 line of a client. An initial response of `=` is an empty message (RFC 4959 section 3).
pub fn decode(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    let line = if line == b"=" { b"" } else { line };
    BASE64.decode(line).map(Zeroizing::new).map_err(|_| SaslError::Base64)
}

/// Reads a PLAIN message: `[authzid] NUL authcid NUL password` (RFC 4616).
///
/// An authorization identity is accepted where it names the one who logs in; several clients send that.
pub fn plain(message: &[u8]) -> Result<Credentials, SaslError> {
    let mut fields = message.split(|&byte| byte == 0);
    let (Some(authzid), Some(authcid), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SaslError::Form);
    };
    if !authzid.is_empty() && authzid != authcid {
        return Err(SaslError::Authorization);
    }
    Credentials::parse(authcid, password).ok_or(SaslError::Credentials)
}

/// The whole message of a mechanism in base64, ready for the line.
pub fn bearer_message(mechanism: Mechanism, bearer: &Bearer) -> Zeroizing<String> {
    let token = bearer.token.expose();
    let message = Zeroizing::new(match mechanism {
        Mechanism::XOAuth2 => format!("user={}\x01auth=Bearer {token}\x01\x01", bearer.user),
        Mechanism::OAuthBearer => format!("n,a={},\x01auth=Bearer {token}\x01\x01", saslname(&bearer.user)),
    });
    Zeroizing::new(BASE64.encode(message.as_bytes()))
}

/// What the client must say to the provider's error challenge before the provider says no (RFC 7628 section 3.2.3).
pub const fn error_answer(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::XOAuth2 => "",
        Mechanism::OAuthBearer => "AQ==",
    }
}

/// The escapes of RFC 5801 section 4. `=` first, or it would be escaped twice.
fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Token;

    fn bearer(user: &str, token: &str) -> Bearer {
        Bearer { user: user.into(), token: Token::parse(token).unwrap(), mechanisms: vec![] }
    }

    #[test]
    fn bearer_messages_match_the_vectors() {
        let message = |mechanism, user, token| bearer_message(mechanism, &bearer(user, token)).to_string();
        assert_eq!(
            message(Mechanism::XOAuth2, "ann@example.test", "tok-123"),
            "dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHRvay0xMjMBAQ=="
        );
        assert_eq!(
            message(Mechanism::OAuthBearer, "ann@example.test", "tok-123"),
            "bixhPWFubkBleGFtcGxlLnRlc3QsAWF1dGg9QmVhcmVyIHRvay0xMjMBAQ=="
        );
        assert_eq!(
            message(Mechanism::OAuthBearer, "we,ird=name", "x"),
            "bixhPXdlPTJDaXJkPTNEbmFtZSwBYXV0aD1CZWFyZXIgeAEB"
        );
    }

    #[test]
    fn plain_takes_the_forms_that_clients_send() {
        for line in ["AGFubkBleGFtcGxlLnRlc3QAczNjcmV0", "YW5uQGV4YW1wbGUudGVzdABhbm5AZXhhbXBsZS50ZXN0AHMzY3JldA"] {
            let read = plain(&decode(line.as_bytes()).unwrap());
            assert!(matches!(read, Ok(it) if it.user == "ann@example.test" && it.password.expose() == b"s3cret"));
        }
    }

    #[test]
    fn plain_refuses_the_rest() {
        let error = |message: &[u8]| plain(message).err();
        assert_eq!(error(b""), Some(SaslError::Form));
        assert_eq!(error(b"ann\0secret"), Some(SaslError::Form));
        assert_eq!(error(b"\0ann\0secret\0more"), Some(SaslError::Form));
        assert_eq!(error(b"bob\0ann\0secret"), Some(SaslError::Authorization));
        assert_eq!(error(b"\0ann\0"), Some(SaslError::Credentials));
        assert_eq!(error(b"\0ann\x01auth=Bearer x\0secret"), Some(SaslError::Credentials));
        assert_eq!(decode(b"not base64!").err(), Some(SaslError::Base64));
        assert_eq!(decode(b"=").unwrap().len(), 0);
    }

    #[test]
    fn prompts_say_what_they_should() {
        assert_eq!(decode(USERNAME_PROMPT.as_bytes()).unwrap().as_slice(), b"Username:");
        assert_eq!(decode(PASSWORD_PROMPT.as_bytes()).unwrap().as_slice(), b"Password:");
    }
}
