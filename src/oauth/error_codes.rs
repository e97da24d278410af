//! What the error codes of token endpoints mean. A row has what identifies the error, who has to act, and a sentence for them.
//!
//! A sentence has no full stop, because the server's own words follow it.

use std::time::Duration;

use super::failure::Failure::{self, Ended, Forbidden, Misconfigured, Temporary};
use super::failure::TemporaryCause;

/// Which request an error answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A browser's request for consent (RFC 6749 section 4.1.1).
    Authorization,
    /// The exchange of an authorization code (section 4.1.3).
    Code,
    /// Section 6.
    Refresh,
    /// For a device code, or its tokens (RFC 8628).
    Device,
    /// The client credentials grant (RFC 6749 section 4.4).
    Client,
    /// The JWT bearer grant (RFC 7523 section 2.1).
    Assertion,
    /// The password grant (RFC 6749 section 4.3).
    Password,
    /// RFC 7009.
    Revocation,
}

use RequestKind::{Assertion, Authorization, Client, Code, Device, Password, Refresh, Revocation};

/// Creates the failure from its text. Its variant says who has to act.
pub type ErrorClass = fn(String) -> Failure;

pub type Row<K> = (K, ErrorClass, &'static str);

/// A problem of the server that passes by itself.
fn passes(text: String) -> Failure {
    Temporary(TemporaryCause::Faulty, text)
}

/// The server wants fewer requests.
fn back_off(text: String) -> Failure {
    Temporary(TemporaryCause::Lasting(None), text)
}

/// Microsoft blocks identical requests, and counts the pause in minutes.
fn repeated(text: String) -> Failure {
    Temporary(TemporaryCause::Lasting(Some(Duration::from_secs(600))), text)
}

/// Microsoft's numbers (AADSTS...).
pub const NUMBERS: &[Row<&[u32]>] = &[
    (
        &[50072, 50074, 50076, 50078, 50079, 50158],
        Ended,
        "the provider requires a second factor, or a new one: sign in again and pass it",
    ),
    (&[50132, 50133, 50173], Ended, "the password was changed or the authorization revoked: sign in again"),
    (&[70000], Ended, "the refresh token or code is no longer valid: sign in again"),
    (&[70008, 700082], Ended, "the authorization was not used for too long and has expired: sign in again"),
    (
        &[700084],
        Misconfigured,
        "the client registration's redirect URI is of type \"single-page application\", whose authorizations end after a day: \
         register it as \"mobile and desktop\", and sign in again",
    ),
    (
        &[70043],
        Ended,
        "the organization's sign-in frequency policy has ended the authorization: sign in again, and ask an administrator to \
         exempt mail",
    ),
    (&[54005], Ended, "the code of this sign-in was already used: start the sign-in again"),
    (&[50089, 70019], Ended, "the sign-in took too long and has expired: start it again"),
    (&[65001], Forbidden, "nobody has consented to what mail needs: consent, or have an administrator consent"),
    (&[65004], Forbidden, "consent was declined: consent, or ask an administrator to"),
    (&[90094, 90095], Forbidden, "an administrator has to consent to this client"),
    (&[50105], Forbidden, "the user is not assigned to this client: an administrator has to assign them"),
    (&[50034], Forbidden, "there is no such user in this tenant: check the address and the tenant"),
    (&[50053], Forbidden, "the account is suspended after too many wrong sign-ins: wait, or ask an administrator"),
    (&[50055], Ended, "the user's password has expired: change it, then sign in again"),
    (&[50057], Forbidden, "the user's account is disabled: an administrator has to enable it"),
    (&[50126], Ended, "wrong user name or password at the provider: sign in again"),
    (
        &[53000, 53001, 53002, 53003, 53004, 530032, 530034, 530035],
        Forbidden,
        "the organization's Conditional Access or security defaults forbid it: an administrator has to allow this client",
    ),
    (
        &[700016, 700005],
        Misconfigured,
        "the tenant does not know this client: check client_id, and the tenant in the endpoints",
    ),
    (&[700011], Misconfigured, "the tenant does not know the client's resource: check client_id, scope and the tenant"),
    (&[90002], Misconfigured, "there is no such tenant: check the tenant in the endpoints"),
    (
        &[50194, 9001023, 9002332],
        Misconfigured,
        "the client is not for this kind of account: put your tenant, \"organizations\" or \"consumers\" into the endpoints",
    ),
    (&[7000112], Forbidden, "the client is disabled: an administrator has to enable it"),
    (&[7000215, 70002], Misconfigured, "the client secret is wrong: configure the secret's value, not its id"),
    (&[7000222], Misconfigured, "the client secret has expired: create a new one at the provider, and configure it"),
    (
        &[7000218],
        Misconfigured,
        "the client needs a secret or certificate: configure it, or enable \"allow public client flows\" at the provider",
    ),
    (&[700025], Misconfigured, "the client is public and must not send a secret: remove client_secret"),
    (
        &[700027],
        Misconfigured,
        "the provider does not accept the assertion's signature: check the certificate and its key",
    ),
    (&[700024], Misconfigured, "the assertion is not valid at this time: correct this machine's time"),
    (&[70011, 700022, 700023, 28000], Misconfigured, "the scope is malformed or names several services: correct scope"),
    (&[901002], Misconfigured, "this endpoint accepts no resource parameter: use scope"),
    (
        &[9002313, 90014, 900144],
        Misconfigured,
        "the request is malformed or lacks a parameter: check the provider's entries; if they are right, report it",
    ),
    (&[90038, 900439], Misconfigured, "the tenant is in a national cloud: choose that cloud's provider"),
    (&[90055], back_off, "the provider received too many requests"),
    (&[70016], Ended, "nobody has signed in yet"),
    (&[70018], Ended, "the device code is not valid: start the sign-in again"),
    (&[50196], repeated, "the provider received the same request repeatedly, and requires a pause of some minutes"),
    (&[50033, 50087, 50088, 90006, 90012, 90024, 90033, 90090, 80002], passes, "the provider has a temporary problem"),
    (&[16000, 50058, 50140], Ended, "the provider requires the person: sign in again"),
    (
        &[50097, 50129, 50131, 50155],
        Forbidden,
        "the organization accepts registered devices only: an administrator has to allow this client",
    ),
    (
        &[700020, 70012],
        Ended,
        "the provider requires the person: sign in again, and ask an administrator if that does not help",
    ),
];

/// Microsoft's `suberror` and Google's `error_subtype`.
pub const SUBTYPES: &[Row<&str>] = &[
    (
        "invalid_rapt",
        Ended,
        "the organization's session control has ended the authorization: sign in again, and ask an administrator to exempt \
         this client",
    ),
    ("bad_token", Ended, "the refresh token is no longer valid: sign in again"),
    ("token_expired", Ended, "the refresh token has expired: sign in again"),
    ("consent_required", Ended, "consent is missing: sign in again and consent"),
    ("basic_action", Ended, "the provider requires an action of the person: sign in again"),
    ("additional_action", Ended, "the provider requires a further action of the person: sign in again"),
    ("user_password_expired", Ended, "the password has expired: change it, then sign in again"),
    ("message_only", Forbidden, "the provider refuses, and shows the reason only to an administrator: ask one"),
    ("protection_policy_required", Forbidden, "the organization accepts managed devices only: ask an administrator"),
    ("client_mismatch", Misconfigured, "the authorization was given to another client: check client_id"),
];

/// Errors that Google explains only in words, with the code beside them.
pub const WORDS: &[Row<(&str, &str)>] = &[
    (
        ("invalid_grant", "expired or revoked"),
        Ended,
        "the authorization was revoked or has expired, as it does after a change of the password, after six months without use, \
         and after 7 days if the project is in \"Testing\": sign in again",
    ),
    (
        ("invalid_client", "OAuth client was not found"),
        Misconfigured,
        "the provider does not know this client: check client_id",
    ),
    (
        ("invalid_request", "client_secret is missing"),
        Misconfigured,
        "the client needs its secret: configure client_secret_file",
    ),
];

/// The standard codes (RFC 6749 sections 4.1.2.1 and 5.2, RFC 8628 section 3.5, RFC 8707 section 2, OpenID Connect Core
/// section 3.1.2.6), and what providers have added.
pub const CODES: &[Row<&str>] = &[
    ("temporarily_unavailable", passes, "the provider is busy"),
    ("server_error", passes, "the provider has a temporary problem"),
    ("slow_down", back_off, "the provider wants fewer requests"),
    ("invalid_grant", Ended, "the authorization is no longer valid: sign in again"),
    ("interaction_required", Ended, "the provider requires the person: sign in again"),
    ("consent_required", Ended, "consent is missing: sign in again and consent"),
    ("login_required", Ended, "the provider requires the person: sign in again"),
    ("account_selection_required", Ended, "the provider asks which account to use: sign in again"),
    ("access_denied", Ended, "consent was declined: sign in again and consent"),
    ("authorization_declined", Ended, "consent was declined: sign in again and consent"),
    ("invalid_client", Misconfigured, "the provider does not accept the client: check client_id and its secret"),
    ("deleted_client", Misconfigured, "the client was deleted at the provider: register another, and sign in again"),
    ("unauthorized_client", Misconfigured, "the client may not do this: check its registration at the provider"),
    ("unsupported_grant_type", Misconfigured, "the provider does not support this grant: choose another flow"),
    ("unsupported_response_type", Misconfigured, "the provider does not support this grant: choose another flow"),
    (
        "invalid_scope",
        Misconfigured,
        "the provider does not accept the scope: correct scope, and the client's permissions",
    ),
    ("invalid_request", Misconfigured, "the provider does not understand the request: check the provider's entries"),
    ("invalid_target", Misconfigured, "the provider does not know the resource: correct scope or resource"),
    ("invalid_resource", Misconfigured, "the provider does not know the resource: correct scope or resource"),
    ("admin_policy_enforced", Forbidden, "the organization forbids this client: an administrator has to allow it"),
    ("org_internal", Forbidden, "the client is for another organization: an administrator has to allow it"),
    ("authorization_pending", Ended, "nobody has signed in yet"),
    ("expired_token", Ended, "the sign-in took too long and has expired: start it again"),
    ("bad_verification_code", Ended, "the device code is not valid: start the sign-in again"),
];

/// The meaning of a standard code as the answer to one kind of request.
pub const BY_REQUEST: &[Row<(RequestKind, &str)>] = &[
    (
        (Refresh, "invalid_request"),
        Ended,
        "the provider no longer accepts the refresh token: sign in again; if that does not help, check the provider's entries",
    ),
    ((Refresh, "invalid_scope"), Ended, "the authorization does not cover the requested scope: sign in again"),
    (
        (Refresh, "access_denied"),
        Ended,
        "the provider denies new tokens: sign in again, and ask an administrator if that does not help",
    ),
    (
        (Refresh, "unauthorized_client"),
        Misconfigured,
        "the client may not use refresh tokens: allow it the grant type refresh_token at the provider",
    ),
    (
        (Refresh, "unsupported_grant_type"),
        Misconfigured,
        "the client may not use refresh tokens: allow it the grant type refresh_token at the provider",
    ),
    (
        (Code, "invalid_grant"),
        Ended,
        "the provider does not accept the code of this sign-in, which works once and for some minutes: start the sign-in again",
    ),
    (
        (Authorization, "unauthorized_client"),
        Misconfigured,
        "the client may not use a browser: allow it the grant type authorization_code at the provider",
    ),
    (
        (Device, "unauthorized_client"),
        Misconfigured,
        "the client may not use the device flow: allow it at the provider, or choose another flow",
    ),
    (
        (Client, "invalid_grant"),
        Misconfigured,
        "the provider gives the client itself no tokens: check its registration and its permissions",
    ),
    (
        (Assertion, "invalid_grant"),
        Misconfigured,
        "the provider does not accept the assertion: check its issuer, subject, audience and key, and this machine's time",
    ),
    (
        (Password, "invalid_grant"),
        Ended,
        "wrong user name or password at the provider: run `postkey authorize` with the right one",
    ),
    (
        (Revocation, "unsupported_token_type"),
        Misconfigured,
        "the provider does not revoke this kind of token: revoke the authorization in its account settings",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every row of all tables.
    fn rows() -> impl Iterator<Item = (ErrorClass, &'static str)> {
        let rows = NUMBERS.iter().map(|(_, class, sentence)| (*class, *sentence));
        let rows = rows.chain(SUBTYPES.iter().map(|(_, class, sentence)| (*class, *sentence)));
        let rows = rows.chain(WORDS.iter().map(|(_, class, sentence)| (*class, *sentence)));
        let rows = rows.chain(BY_REQUEST.iter().map(|(_, class, sentence)| (*class, *sentence)));
        rows.chain(CODES.iter().map(|(_, class, sentence)| (*class, *sentence)))
    }

    /// The sentence and the class are written separately, so a wrong class contradicts its sentence.
    #[test]
    fn the_one_whom_the_sentence_asks_to_act_is_the_one_of_the_class() {
        const SIGN_IN: [&str; 5] =
            ["sign in again", "start it again", "start the sign-in again", "signed in yet", "right one"];
        const ADMINISTRATOR: [&str; 2] = ["administrator", "check the address"];
        for (class, sentence) in rows() {
            let asks = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
            match class(String::new()) {
                Ended(_) => assert!(asks(&SIGN_IN), "{sentence}"),
                Forbidden(_) => assert!(asks(&ADMINISTRATOR) && !asks(&SIGN_IN), "{sentence}"),
                Temporary(..) => assert!(!sentence.contains(": "), "nobody has to act: {sentence}"),
                Misconfigured(_) => {
                    let registers = ["register it", "register another"].iter().any(|word| sentence.contains(word));
                    assert!(
                        registers || sentence.contains(": ") && !asks(&SIGN_IN) && !asks(&["administrator"]),
                        "{sentence}"
                    );
                }
            }
        }
    }

    /// It is in the middle of a line that old clients show, some of which take "lock" for a busy mailbox.
    #[test]
    fn every_sentence_fits_into_a_line() {
        for (_, sentence) in rows() {
            assert!(sentence.is_ascii() && sentence.len() <= 220 && !sentence.ends_with('.'), "{sentence}");
            assert!(!sentence.contains("lock"), "{sentence}");
        }
    }

    #[test]
    fn no_key_is_in_two_rows() {
        let numbers: Vec<u32> = NUMBERS.iter().flat_map(|(numbers, ..)| numbers.iter().copied()).collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        for codes in [CODES, SUBTYPES] {
            assert_eq!(codes.iter().map(|(code, ..)| code).collect::<BTreeSet<_>>().len(), codes.len());
        }
    }
}
