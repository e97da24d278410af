//! The SASL messages of clients, for PLAIN and LOGIN.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::name::Name;
use crate::wire::Credentials;

/// The longest base64 line of a SASL exchange: twice as long as the longest user names and password need (RFC 4954
/// section 4).
pub const LINE_LIMIT: usize = 4096;

/// The prompt `Username:` of the LOGIN mechanism, which some clients compare exactly.
pub const USERNAME_PROMPT: &str = "VXNlcm5hbWU6";

/// The prompt `Password:` of the LOGIN mechanism.
pub const PASSWORD_PROMPT: &str = "UGFzc3dvcmQ6";

/// The standard alphabet. Padding is not required, because some scanners leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a SASL exchange with a client ends without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslFailure {
    /// The client has sent `*`.
    Cancelled,
    /// The message is not base64, or does not have the form of its mechanism.
    Malformed,
    /// The line is longer than [`LINE_LIMIT`].
    TooLong,
    /// The mechanism is not supported.
    Mechanism,
    /// No account and no password can have this form.
    Credentials,
}

/// Decodes one base64 line of a client. An initial response of `=` is an empty message (RFC 4959 section 3).
pub fn decode(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, SaslFailure> {
    let line = if line == b"=" { b"" } else { line };
    BASE64.decode(line).map(Zeroizing::new).map_err(|_| SaslFailure::Malformed)
}

/// Reads a PLAIN message: `[authzid] NUL authcid NUL password` (RFC 4616).
///
/// Several clients also send an authorization identity. If it differs from the name that logs in, it may still be
/// another name of the same account, which the session checks.
pub fn plain(message: &[u8]) -> Result<Credentials, SaslFailure> {
    let mut fields = message.split(|&byte| byte == 0);
    let (Some(authzid), Some(authcid), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SaslFailure::Malformed);
    };
    let credentials = Credentials::parse(authcid, password).ok_or(SaslFailure::Credentials)?;
    if authzid.is_empty() || authzid == authcid {
        return Ok(credentials);
    }
    let acts_as = Credentials::name(authzid).ok_or(SaslFailure::Credentials)?;
    let is_other = !Name::typed(&acts_as).same_as(&Name::typed(&credentials.user));
    Ok(Credentials { acts_as: is_other.then_some(acts_as), ..credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_accepts_the_forms_that_clients_send() {
        for line in ["AGFubkBleGFtcGxlLnRlc3QAczNjcmV0", "YW5uQGV4YW1wbGUudGVzdABhbm5AZXhhbXBsZS50ZXN0AHMzY3JldA"] {
            let read = plain(&decode(line.as_bytes()).unwrap());
            assert!(matches!(read, Ok(it) if it.user == "ann@example.test" && it.password.expose() == b"s3cret"));
        }
    }

    #[test]
    fn an_authorization_identity_is_kept_if_it_is_another_name() {
        let acts_as = |message: &[u8]| plain(message).ok().unwrap().acts_as;
        for same in [
            "\0ann@x\0p",
            "ann@x\0ann@x\0p",
            "ANN@X\0ann@x\0p",
            "<ann@x>\0ann@x\0p",
            "a.nn@gmail.com\0ann@gmail.com\0p",
        ] {
            assert_eq!(acts_as(same.as_bytes()), None, "{same:?}");
        }
        assert_eq!(acts_as(b"bob\0ann@x\0p").as_deref(), Some("bob"));
    }

    #[test]
    fn plain_rejects_malformed_messages() {
        let error = |message: &[u8]| plain(message).err();
        assert_eq!(error(b""), Some(SaslFailure::Malformed));
        assert_eq!(error(b"ann\0secret"), Some(SaslFailure::Malformed));
        assert_eq!(error(b"\0ann\0secret\0more"), Some(SaslFailure::Malformed));
        assert_eq!(error(b"bob\xff\0ann\0secret"), Some(SaslFailure::Credentials));
        assert_eq!(error(b"\0ann\0"), Some(SaslFailure::Credentials));
        assert_eq!(error(b"\0ann\x01auth=Bearer x\0secret"), Some(SaslFailure::Credentials));
        assert_eq!(decode(b"not base64!").err(), Some(SaslFailure::Malformed));
        assert_eq!(decode(b"=").unwrap().len(), 0);
    }

    #[test]
    fn prompts_decode_to_their_words() {
        assert_eq!(decode(USERNAME_PROMPT.as_bytes()).unwrap().as_slice(), b"Username:");
        assert_eq!(decode(PASSWORD_PROMPT.as_bytes()).unwrap().as_slice(), b"Password:");
    }
}
