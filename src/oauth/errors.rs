//! What the errors of token endpoints mean: who has to act, and a sentence for that person.
//!
//! The standard codes are too coarse to act on, so what a provider says beside them goes first: Microsoft's AADSTS numbers,
//! the sub-errors, and Google's words. A text is only looked at where nothing else tells. Then it matters which request the
//! error answers, and how the client showed who it is.

use std::borrow::Cow;
use std::time::Duration;

use ErrorClass::{Administrator, BackOff, Configuration, Flow, Passes, Person};

use crate::config::provider::ClientMethods;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nobody: it passes by itself, and may be asked for again soon.
    Passes,
    /// Nobody, as long as we stop asking for a while; for so long, where it is known.
    BackOff(Option<Duration>),
    /// The person signs in again.
    Person,
    /// An administrator at the provider has to allow or mend something.
    Administrator,
    /// Whoever set postkey up has to mend the client registration or a setting.
    Configuration,
    /// The sign-in that is under way is lost and begins anew.
    Flow,
}

/// What an error means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Who has to act.
    pub class: ErrorClass,
    /// What happened and what to do: a clause without an end.
    pub sentence: Cow<'static, str>,
}

/// Which request an error answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// For consent, by a browser (RFC 6749 section 4.1.1).
    Authorization,
    /// For the tokens of a code (section 4.1.3).
    Code,
    /// For new tokens by a refresh token (section 6).
    Refresh,
    /// For a device's code, or its tokens (RFC 8628).
    Device,
    /// For tokens for the client itself (RFC 6749 section 4.4).
    Client,
    /// For tokens by an assertion about a mailbox (RFC 7523 section 2.1).
    Assertion,
    /// For tokens by the mailbox's password (RFC 6749 section 4.3).
    Password,
    /// For the end of an authorization (RFC 7009).
    Revocation,
}

/// How a client showed who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// It did not: a public client.
    #[default]
    Nothing,
    /// By a secret.
    Secret,
    /// By an assertion that its key signed: the algorithm, and by what the header names the key.
    Key(&'static str, String),
    /// By an assertion that somebody else signed.
    Assertion,
}

/// What an error answers.
#[derive(Clone, Debug)]
pub struct ErrorContext {
    /// Which request.
    pub request: RequestKind,
    /// How the client showed who it is.
    pub shown: Shown,
    /// Whether postkey registered this client itself.
    pub is_self_registered: bool,
    /// What the server's metadata say of clients.
    pub methods: ClientMethods,
}

impl From<RequestKind> for ErrorContext {
    fn from(request: RequestKind) -> Self {
        let (shown, is_self_registered, methods) = Default::default();
        Self { request, shown, is_self_registered, methods }
    }
}

/// What a token endpoint says of an error (RFC 6749 section 5.2 and its extensions).
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// `error`.
    pub code: &'a str,
    /// Microsoft's `error_codes`.
    pub numbers: &'a [u32],
    /// Microsoft's `suberror`, Google's `error_subtype`.
    pub subtype: &'a str,
    /// `error_description`.
    pub description: &'a str,
}

type Row<K> = (K, ErrorClass, &'static str);

/// Microsoft wants a loop to have ended before it is asked again, and counts minutes.
const LOOP: Duration = Duration::from_secs(600);

/// Microsoft's numbers (AADSTS...).
const NUMBERS: &[Row<&[u32]>] = &[
    (
        &[50072, 50074, 50076, 50078, 50079, 50158],
        Person,
        "the provider wants a second factor, or wants it renewed: sign in again and pass it",
    ),
    (&[50132, 50133, 50173], Person, "the password was changed or the authorization revoked: sign in again"),
    (&[70000], Person, "the refresh token or code is not valid any more: sign in again"),
    (&[70008, 700082], Person, "the authorization was not used for too long and has expired: sign in again"),
    (
        &[700084],
        Configuration,
        "the client registration's redirect URI is of type \"single-page application\", whose authorizations end after a day: \
         register it as \"mobile and desktop\", and sign in again",
    ),
    (
        &[70043],
        Person,
        "the organization's sign-in frequency policy has ended the authorization: sign in again, and ask an administrator to \
         exempt mail",
    ),
    (&[54005], Flow, "the code of this sign-in was used already: start the sign-in again"),
    (&[50089, 70019], Flow, "the sign-in took too long and has expired: start it again"),
    (&[65001], Administrator, "nobody has consented to what mail needs: consent, or have an administrator consent"),
    (&[65004], Administrator, "consent was declined: give it, or ask an administrator to"),
    (&[90094, 90095], Administrator, "an administrator has to consent to this client"),
    (&[50105], Administrator, "the user is not assigned to this client: an administrator has to assign them"),
    (&[50034], Administrator, "there is no such user in this tenant: check the address and the tenant"),
    (
        &[50053],
        Administrator,
        "too many wrong sign-ins have closed the user's account for now: wait, or ask an administrator",
    ),
    (&[50055], Person, "the user's password has expired: change it, then sign in again"),
    (&[50057], Administrator, "the user's account is disabled: an administrator has to enable it"),
    (&[50126], Person, "wrong user name or password at the provider: sign in again"),
    (
        &[53000, 53001, 53002, 53003, 53004, 530032, 530034, 530035],
        Administrator,
        "the organization's Conditional Access or security defaults forbid it: an administrator has to allow this client",
    ),
    (
        &[700016, 700005],
        Configuration,
        "the tenant does not know this client: check client_id, and the tenant in the endpoints",
    ),
    (&[700011], Configuration, "the tenant does not know the client's resource: check client_id, scope and the tenant"),
    (&[90002], Configuration, "there is no such tenant: check the tenant in the endpoints"),
    (
        &[50194, 9001023, 9002332],
        Configuration,
        "the client is not for this kind of account: put your tenant, \"organizations\" or \"consumers\" into the endpoints",
    ),
    (&[7000112], Administrator, "the client is disabled: an administrator has to enable it"),
    (
        &[7000215, 70002],
        Configuration,
        "the client secret is wrong: put the secret's value, not its id, where the configuration has it",
    ),
    (
        &[7000222],
        Configuration,
        "the client secret has expired: make a new one at the provider and put it in its place",
    ),
    (
        &[7000218],
        Configuration,
        "the client needs a secret or certificate: configure it, or switch \"allow public client flows\" on at the provider",
    ),
    (&[700025], Configuration, "the client is a public one and must not send a secret: remove client_secret"),
    (
        &[700027],
        Configuration,
        "the provider does not accept the assertion's signature: check the certificate and its key",
    ),
    (&[700024], Configuration, "the assertion is not valid at this time: set this machine's time right"),
    (&[70011, 700022, 700023, 28000], Configuration, "the scope is malformed or names several services: correct scope"),
    (&[901002], Configuration, "this endpoint takes no resource parameter: use scope"),
    (
        &[9002313, 90014, 900144],
        Configuration,
        "the request is malformed or lacks a parameter: check the provider's entries; if they are right, report it",
    ),
    (&[90038, 900439], Configuration, "the tenant is in a national cloud: choose that cloud's provider"),
    (&[90055], BackOff(None), "the provider has had too many requests"),
    (&[70016], Flow, "nobody has signed in yet"),
    (&[70018], Flow, "the device code is not valid: start the sign-in again"),
    (&[50196], BackOff(Some(LOOP)), "the provider sees the same request again and again, and wants a pause of minutes"),
    (&[50033, 50087, 50088, 90006, 90012, 90024, 90033, 90090, 80002], Passes, "the provider has trouble of its own"),
    (&[16000, 50058, 50140], Person, "the provider wants to see the person: sign in again"),
    (
        &[50097, 50129, 50131, 50155],
        Administrator,
        "the organization takes registered devices only: an administrator has to allow this client",
    ),
    (
        &[700020, 70012],
        Person,
        "the provider wants to see the person: sign in again, and ask an administrator if it stays so",
    ),
];

/// Microsoft's `suberror` and Google's `error_subtype`.
const SUBTYPES: &[Row<&str>] = &[
    (
        "invalid_rapt",
        Person,
        "the organization's session control has ended the authorization: sign in again, and ask an administrator to exempt \
         this client",
    ),
    ("bad_token", Person, "the refresh token is not valid any more: sign in again"),
    ("token_expired", Person, "the refresh token has expired: sign in again"),
    ("consent_required", Person, "consent is missing: sign in again and give it"),
    ("basic_action", Person, "the provider asks the person to do something: sign in again"),
    ("additional_action", Person, "the provider asks the person to do something more: sign in again"),
    ("user_password_expired", Person, "the password has expired: change it, then sign in again"),
    ("message_only", Administrator, "the provider refuses, and says why to an administrator only: ask one"),
    ("protection_policy_required", Administrator, "the organization takes managed devices only: ask an administrator"),
    ("client_mismatch", Configuration, "the authorization was given to another client: check client_id"),
];

/// What Google says in words alone, by the code that it comes with.
const WORDS: &[Row<(&str, &str)>] = &[
    (
        ("invalid_grant", "expired or revoked"),
        Person,
        "the authorization was revoked or has expired, as it does after a change of the password, after six months without use, \
         and after 7 days where the project is in \"Testing\": sign in again",
    ),
    (
        ("invalid_client", "OAuth client was not found"),
        Configuration,
        "the provider does not know this client: check client_id",
    ),
    (
        ("invalid_request", "client_secret is missing"),
        Configuration,
        "the client needs its secret: configure client_secret_file",
    ),
];

/// The standard codes: RFC 6749 sections 4.1.2.1 and 5.2, RFC 8628 section 3.5, RFC 8707 section 2, OpenID Connect Core
/// section 3.1.2.6; and what providers have added.
const CODES: &[Row<&str>] = &[
    ("temporarily_unavailable", Passes, "the provider is busy"),
    ("server_error", Passes, "the provider has trouble of its own"),
    ("slow_down", BackOff(None), "the provider wants fewer requests"),
    ("invalid_grant", Person, "the authorization is not valid any more: sign in again"),
    ("interaction_required", Person, "the provider wants to see the person: sign in again"),
    ("consent_required", Person, "consent is missing: sign in again and give it"),
    ("login_required", Person, "the provider wants to see the person: sign in again"),
    ("account_selection_required", Person, "the provider wants to know which account it is: sign in again"),
    ("access_denied", Person, "consent was declined: sign in again and give it"),
    ("authorization_declined", Person, "consent was declined: sign in again and give it"),
    ("invalid_client", Configuration, "the provider does not accept the client: check client_id and its secret"),
    ("deleted_client", Configuration, "the client was deleted at the provider: register another, and sign in again"),
    ("unauthorized_client", Configuration, "the client may not do this: check its registration at the provider"),
    ("unsupported_grant_type", Configuration, "the provider does not know this way to a token: choose another flow"),
    ("unsupported_response_type", Configuration, "the provider does not know this way to a token: choose another flow"),
    (
        "invalid_scope",
        Configuration,
        "the provider does not accept the scope: correct scope, and the client's permissions",
    ),
    ("invalid_request", Configuration, "the provider does not understand the request: check the provider's entries"),
    ("invalid_target", Configuration, "the provider does not know the resource: correct scope or resource"),
    ("invalid_resource", Configuration, "the provider does not know the resource: correct scope or resource"),
    ("admin_policy_enforced", Administrator, "the organization forbids this client: an administrator has to allow it"),
    ("org_internal", Administrator, "the client is for another organization: an administrator has to allow it"),
    ("authorization_pending", Flow, "nobody has signed in yet"),
    ("expired_token", Flow, "the sign-in took too long and has expired: start it again"),
    ("bad_verification_code", Flow, "the device code is not valid: start the sign-in again"),
];

/// What a standard code means as the answer to one kind of request.
const BY_REQUEST: &[Row<(RequestKind, &str)>] = &[
    (
        (RequestKind::Refresh, "invalid_request"),
        Person,
        "the provider does not take the refresh token any more: sign in again; if that does not help, check the provider's \
         entries",
    ),
    (
        (RequestKind::Refresh, "invalid_scope"),
        Person,
        "the authorization does not cover what is asked for: sign in again",
    ),
    (
        (RequestKind::Refresh, "access_denied"),
        Person,
        "the provider denies new tokens: sign in again, and ask an administrator if it stays so",
    ),
    (
        (RequestKind::Refresh, "unauthorized_client"),
        Configuration,
        "the client may not use refresh tokens: allow it the grant type refresh_token at the provider",
    ),
    (
        (RequestKind::Refresh, "unsupported_grant_type"),
        Configuration,
        "the client may not use refresh tokens: allow it the grant type refresh_token at the provider",
    ),
    (
        (RequestKind::Code, "invalid_grant"),
        Flow,
        "the provider does not accept the code of this sign-in, which is good once and for minutes: start the sign-in again",
    ),
    (
        (RequestKind::Authorization, "unauthorized_client"),
        Configuration,
        "the client may not ask a person by a browser: allow it the grant type authorization_code at the provider",
    ),
    (
        (RequestKind::Device, "unauthorized_client"),
        Configuration,
        "the client may not use the device flow: allow it at the provider, or choose another flow",
    ),
    (
        (RequestKind::Client, "invalid_grant"),
        Configuration,
        "the provider gives the client itself no tokens: check its registration and its permissions",
    ),
    (
        (RequestKind::Assertion, "invalid_grant"),
        Configuration,
        "the provider does not accept the assertion: check its issuer, subject, audience and key, and this machine's time",
    ),
    (
        (RequestKind::Password, "invalid_grant"),
        Person,
        "wrong user name or password at the provider: run `postkey authorize` with the right one",
    ),
    (
        (RequestKind::Revocation, "unsupported_token_type"),
        Configuration,
        "the provider does not revoke this kind of token",
    ),
];

/// What an error means.
pub fn meaning(said: &Said<'_>, context: &ErrorContext) -> Meaning {
    // Of several numbers the last is the cause, and the others say where it was met.
    let numbers = said.numbers.iter().copied().chain(numbers_in(said.description));
    let by_number = numbers.filter_map(|number| find(NUMBERS, |known| known.contains(&number))).last();
    by_number
        .or_else(|| find(SUBTYPES, |subtype| *subtype == said.subtype))
        .or_else(|| find(WORDS, |(code, words)| *code == said.code && said.description.contains(words)))
        .or_else(|| of_client(said.code, context))
        .or_else(|| find(BY_REQUEST, |(request, code)| *request == context.request && *code == said.code))
        .or_else(|| find(CODES, |code| *code == said.code))
        .unwrap_or_else(|| unknown(said, context))
}

/// Whether this is a code that means something.
pub fn is_known(code: &str) -> bool {
    CODES.iter().any(|(known, ..)| *known == code)
}

/// What is wrong with the client, by how it showed who it is.
fn of_client(code: &str, context: &ErrorContext) -> Option<Meaning> {
    let is_lost = matches!(code, "invalid_client" | "deleted_client" | "unauthorized_client");
    if context.request == RequestKind::Revocation && context.shown == Shown::Nothing && is_lost {
        let sentence = "the provider revokes authorizations only for clients with a secret, and this client has none";
        return Some(Meaning { class: Configuration, sentence: sentence.into() });
    }
    if context.is_self_registered && is_lost {
        let sentence = "the provider does not know the client any more as which postkey registered itself: sign in again, \
                        which registers it again";
        return Some(Meaning { class: Person, sentence: sentence.into() });
    }
    if code != "invalid_client" {
        return None;
    }
    let sentence = match &context.shown {
        Shown::Secret => return None,
        Shown::Nothing => format!(
            "the provider does not accept the client: check client_id; no secret was sent{}",
            offered(&context.methods.token, ", and its metadata offer", ": configure what the registration has")
        ),
        Shown::Assertion => {
            "the provider does not accept the client: check client_id, and issuer, subject, audience and life of \
                             its client_assertion"
                .to_owned()
        }
        Shown::Key(algorithm, key) => {
            let others: Vec<String> =
                context.methods.algorithms.iter().filter(|one| one != algorithm).cloned().collect();
            let remedy = match context.methods.algorithms.iter().any(|one| one == algorithm) || others.is_empty() {
                true => "check client_id, client_key and the certificate, and try another client_algorithm".to_owned(),
                false => format!("set client_algorithm to one of {}", others.join(", ")),
            };
            format!("the provider does not accept the client, which signed by {algorithm} with {key}: {remedy}")
        }
    };
    Some(Meaning { class: Configuration, sentence: sentence.into() })
}

fn offered(methods: &[String], before: &str, after: &str) -> String {
    if methods.is_empty() { String::new() } else { format!("{before} {}{after}", methods.join(", ")) }
}

/// What a code means that nobody knows. About a refresh token it mostly is that a person signs in again.
fn unknown(said: &Said<'_>, context: &ErrorContext) -> Meaning {
    let words = format!("{} {}", said.code, said.description).to_ascii_lowercase();
    let has = |all: &[&str]| all.iter().any(|word| words.contains(word));
    let is_dead = has(&["token", "grant", "session", "authorization"])
        && has(&["expired", "revoked", "invalid", "not found", "not_found", "unknown", "already used", "reuse"]);
    let (class, sentence) = match context.request == RequestKind::Refresh && is_dead {
        true => (Person, "the provider does not take the refresh token any more: sign in again"),
        false => (Configuration, "the provider refuses in words of its own: check the provider's entries"),
    };
    Meaning { class, sentence: sentence.into() }
}

fn find<K>(rows: &[Row<K>], is_it: impl Fn(&K) -> bool) -> Option<Meaning> {
    let (_, class, sentence) = rows.iter().find(|(key, ..)| is_it(key))?;
    Some(Meaning { class: *class, sentence: (*sentence).into() })
}

/// The numbers that a description names, as in `AADSTS70008: The provided ...`.
fn numbers_in(description: &str) -> impl Iterator<Item = u32> {
    description.split("AADSTS").skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(Some(rest), |end| rest.get(..end))?;
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn meaning(said: &Said<'_>) -> Meaning {
        super::meaning(said, &RequestKind::Authorization.into())
    }

    fn class_of(said: Said<'_>) -> ErrorClass {
        meaning(&said).class
    }

    /// Every number, with who has to act, in the order of the table of what providers document.
    const DOCUMENTED: &[(&[u32], ErrorClass)] = &[
        (&[50076, 50078, 50079, 50072, 50074, 50158], Person),
        (&[50173, 50132, 50133], Person),
        (&[70000], Person),
        (&[70008, 700082], Person),
        (&[700084], Configuration),
        (&[70043], Person),
        (&[54005], Flow),
        (&[50089, 70019], Flow),
        (&[65001], Administrator),
        (&[65004, 90094, 90095], Administrator),
        (&[50105], Administrator),
        (&[50034, 50053, 50057], Administrator),
        (&[50055, 50126], Person),
        (&[53000, 53001, 53002, 53003, 53004, 530032, 530034, 530035], Administrator),
        (&[700016, 700011, 90002, 50194, 700005, 9001023, 9002332], Configuration),
        (&[7000112], Administrator),
        (&[7000215, 70002], Configuration),
        (&[7000222], Configuration),
        (&[7000218], Configuration),
        (&[700025], Configuration),
        (&[700027, 700024], Configuration),
        (&[70011, 700022, 700023, 28000], Configuration),
        (&[901002], Configuration),
        (&[9002313, 90014, 900144], Configuration),
        (&[90038, 900439], Configuration),
        (&[90055], BackOff(None)),
        (&[70016, 70018], Flow),
        (&[50196], BackOff(Some(LOOP))),
        (&[50033, 50087, 50088, 90006, 90012, 90024, 90033, 90090, 80002], Passes),
        (&[16000, 50058, 50140, 700020, 70012], Person),
        (&[50097, 50129, 50131, 50155], Administrator),
    ];

    #[test]
    fn every_number_has_its_class_whether_it_comes_as_a_number_or_in_words() {
        for (numbers, class) in DOCUMENTED {
            for number in *numbers {
                // Whatever standard code it comes with.
                for code in ["invalid_grant", "invalid_client", "interaction_required", "server_error"] {
                    let said = Said { code, numbers: &[*number], ..Said::default() };
                    assert_eq!(class_of(said), *class, "{number} as a number");
                    let description = format!("AADSTS{number}: Some words. Trace ID: 50196");
                    let said = Said { code, description: &description, ..Said::default() };
                    assert_eq!(class_of(said), *class, "{number} in words");
                }
            }
        }
        let documented: BTreeSet<u32> = DOCUMENTED.iter().flat_map(|(numbers, _)| numbers.iter().copied()).collect();
        let known: BTreeSet<u32> = NUMBERS.iter().flat_map(|(numbers, ..)| numbers.iter().copied()).collect();
        assert_eq!(known, documented);
    }

    #[test]
    fn of_several_numbers_the_last_is_the_cause() {
        let said = Said { code: "invalid_grant", numbers: &[70002, 54005], ..Said::default() };
        assert_eq!(class_of(said), Flow);
        let description = "AADSTS70002: Error validating credentials. AADSTS50173: The grant has expired.";
        assert_eq!(class_of(Said { code: "invalid_grant", description, ..Said::default() }), Person);
        let said = Said { code: "invalid_grant", numbers: &[70008, 4_000_000_000], ..Said::default() };
        assert!(meaning(&said).sentence.contains("not used for too long"), "an unknown number says nothing");
    }

    #[test]
    fn standard_codes_have_their_class() {
        for (class, codes) in [
            (Passes, &["temporarily_unavailable", "server_error"][..]),
            (BackOff(None), &["slow_down"]),
            (Person, &["invalid_grant", "interaction_required", "consent_required", "login_required", "access_denied"]),
            (
                Configuration,
                &[
                    "invalid_client",
                    "unauthorized_client",
                    "unsupported_grant_type",
                    "invalid_scope",
                    "invalid_request",
                    "invalid_target",
                    "invalid_resource",
                    "deleted_client",
                    "what_nobody_knows",
                    "",
                ],
            ),
            (Administrator, &["admin_policy_enforced"]),
            (Flow, &["authorization_pending", "expired_token", "bad_verification_code"]),
        ] {
            for code in codes {
                assert_eq!(class_of(Said { code, ..Said::default() }), class, "{code}");
            }
        }
    }

    #[test]
    fn what_stands_beside_the_code_says_more_than_the_code() {
        let said = |code, subtype, description| meaning(&Said { code, subtype, description, numbers: &[] });
        let plain = said("invalid_grant", "", "Bad Request");
        assert_eq!(plain, said("invalid_grant", "unknown_subtype", ""));
        for (subtype, class) in [
            ("invalid_rapt", Person),
            ("bad_token", Person),
            ("token_expired", Person),
            ("consent_required", Person),
            ("basic_action", Person),
            ("additional_action", Person),
            ("message_only", Administrator),
            ("protection_policy_required", Administrator),
            ("client_mismatch", Configuration),
        ] {
            let meaning = said("invalid_grant", subtype, "Bad Request");
            assert_eq!(meaning.class, class, "{subtype}");
            assert_ne!(meaning, plain, "{subtype} has a sentence of its own");
        }
        let revoked = said("invalid_grant", "", "Token has been expired or revoked.");
        assert!(revoked.class == Person && revoked.sentence.contains("Testing"), "{revoked:?}");
        assert!(said("invalid_client", "", "The OAuth client was not found.").sentence.contains("client_id"));
        assert!(said("invalid_request", "", "client_secret is missing.").sentence.contains("client_secret_file"));
    }

    #[test]
    fn what_an_error_means_depends_on_the_request_that_it_answers() {
        let of = |code, request: RequestKind| super::meaning(&Said { code, ..Said::default() }, &request.into());
        for (code, request, class, words) in [
            ("invalid_request", RequestKind::Refresh, Person, "sign in again"),
            ("invalid_request", RequestKind::Authorization, Configuration, "check the provider's entries"),
            ("invalid_scope", RequestKind::Refresh, Person, "sign in again"),
            ("invalid_scope", RequestKind::Authorization, Configuration, "correct scope"),
            ("invalid_scope", RequestKind::Device, Configuration, "correct scope"),
            ("invalid_grant", RequestKind::Refresh, Person, "sign in again"),
            ("invalid_grant", RequestKind::Code, Flow, "start the sign-in again"),
            ("invalid_grant", RequestKind::Assertion, Configuration, "assertion"),
            ("invalid_grant", RequestKind::Password, Person, "wrong user name or password"),
            ("unauthorized_client", RequestKind::Refresh, Configuration, "refresh_token"),
            ("unauthorized_client", RequestKind::Device, Configuration, "device flow"),
            ("unsupported_grant_type", RequestKind::Refresh, Configuration, "refresh_token"),
            ("refresh_token_expired", RequestKind::Refresh, Person, "sign in again"),
            ("refresh_token_expired", RequestKind::Revocation, Configuration, "words of its own"),
            ("token_quota", RequestKind::Refresh, Configuration, "words of its own"),
            ("certificate_expired", RequestKind::Refresh, Configuration, "words of its own"),
        ] {
            let meaning = of(code, request);
            assert_eq!(meaning.class, class, "{code} {request:?}");
            assert!(meaning.sentence.contains(words), "{code} {request:?}: {}", meaning.sentence);
        }
    }

    #[test]
    fn what_is_wrong_with_a_client_depends_on_how_it_showed_who_it_is() {
        let methods = |algorithms: &[&str]| ClientMethods {
            token: vec!["client_secret_basic".to_owned()],
            algorithms: algorithms.iter().map(|one| (*one).to_owned()).collect(),
            ..ClientMethods::default()
        };
        let key = || Shown::Key("PS256", "a key named by x5t#S256 abc".to_owned());
        let of = |code, shown, algorithms: &[&str], is_self_registered| {
            let context =
                ErrorContext { request: RequestKind::Refresh, shown, is_self_registered, methods: methods(algorithms) };
            super::meaning(&Said { code, ..Said::default() }, &context)
        };
        for (shown, algorithms, words) in [
            (Shown::Secret, &[][..], "check client_id and its secret"),
            (Shown::Nothing, &[], "no secret was sent, and its metadata offer client_secret_basic"),
            (Shown::Assertion, &[], "client_assertion"),
            (
                key(),
                &["RS256", "ES256"],
                "signed by PS256 with a key named by x5t#S256 abc: set client_algorithm to one of RS256",
            ),
            (key(), &["RS256", "PS256"], "check client_id, client_key and the certificate"),
            (key(), &[], "try another client_algorithm"),
        ] {
            let meaning = of("invalid_client", shown, algorithms, false);
            assert!(meaning.class == Configuration && meaning.sentence.contains(words), "{}", meaning.sentence);
        }
        for code in ["invalid_client", "deleted_client", "unauthorized_client"] {
            let meaning = of(code, Shown::Nothing, &[], true);
            assert!(meaning.class == Person && meaning.sentence.contains("registers it again"), "{code}");
        }
    }

    /// Such servers offer revocation to other clients alone, so that no setting of this one helps.
    #[test]
    fn a_revocation_refused_to_a_client_without_a_secret_asks_for_no_other_setting() {
        let of = |code, shown, is_self_registered| {
            let methods = ClientMethods::default();
            let context = ErrorContext { request: RequestKind::Revocation, shown, is_self_registered, methods };
            super::meaning(&Said { code, ..Said::default() }, &context).sentence
        };
        for code in ["invalid_client", "unauthorized_client"] {
            for is_self_registered in [false, true] {
                let sentence = of(code, Shown::Nothing, is_self_registered);
                assert!(sentence.contains("only for clients with a secret"), "{code}: {sentence}");
                assert!(!sentence.contains("client_id"), "{code}: {sentence}");
            }
        }
        assert!(of("invalid_client", Shown::Secret, false).contains("check client_id and its secret"));
    }

    /// It stands in the middle of a line that old clients show, some of which take "lock" for a busy mailbox.
    #[test]
    fn every_sentence_fits_into_a_line() {
        let rows = NUMBERS.iter().map(|(_, _, sentence)| *sentence);
        let rows = rows.chain(SUBTYPES.iter().map(|(_, _, sentence)| *sentence));
        let rows = rows.chain(WORDS.iter().map(|(_, _, sentence)| *sentence));
        let rows = rows.chain(BY_REQUEST.iter().map(|(_, _, sentence)| *sentence));
        for sentence in rows.chain(CODES.iter().map(|(_, _, sentence)| *sentence)) {
            assert!(sentence.is_ascii() && sentence.len() <= 220 && !sentence.ends_with('.'), "{sentence}");
            assert!(!sentence.contains("lock"), "{sentence}");
        }
    }
}
