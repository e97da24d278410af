use super::*;
use crate::config::assertion::Algorithm;
use crate::config::provider::ClientMethods;
use crate::oauth::TemporaryCause;
use crate::oauth::jwt::SigningKey;
use crate::secret::{Secret, Token};

fn error(code: &str, description: &str, numbers: &[u32]) -> ErrorResponse {
    let (code, description) = (code.to_owned(), description.to_owned());
    ErrorResponse { code, description, numbers: numbers.to_vec(), ..ErrorResponse::default() }
}

fn authorization(error: &ErrorResponse) -> Failure {
    error.failure(RequestKind::Authorization, None)
}

#[test]
fn a_number_decides_whatever_the_code_whether_it_is_a_member_or_in_words() {
    for (numbers, class, sentence) in NUMBERS {
        for number in *numbers {
            for code in ["invalid_grant", "invalid_client", "interaction_required", "server_error"] {
                let description = format!("AADSTS{number}: Some words. Trace ID: 50196");
                for error in [error(code, "", &[*number]), error(code, &description, &[])] {
                    let expected = class(format!("{sentence}; the authorization server says {}", error.words()));
                    assert_eq!(authorization(&error), expected, "{number} with {code}");
                }
            }
        }
    }
}

#[test]
fn the_last_of_several_numbers_is_the_cause() {
    let used = authorization(&error("invalid_grant", "", &[70002, 54005])).to_string();
    assert!(used.contains("already used"), "{used}");
    let description = "AADSTS70002: Error validating credentials. AADSTS50173: The grant has expired.";
    assert!(matches!(authorization(&error("invalid_grant", description, &[])), Failure::Ended(_)));
    let old = authorization(&error("invalid_grant", "", &[70008, 4_000_000_000])).to_string();
    assert!(old.contains("not used for too long"), "an unknown number says nothing");
}

#[test]
fn each_class_of_codes_has_its_failure() {
    let of = |code| authorization(&error(code, "", &[]));
    assert!(matches!(of("server_error"), Failure::Temporary(TemporaryCause::Faulty, _)));
    assert!(matches!(of("slow_down"), Failure::Temporary(TemporaryCause::Lasting(None), _)));
    assert!(matches!(of("invalid_grant"), Failure::Ended(_)));
    assert!(matches!(of("admin_policy_enforced"), Failure::Forbidden(_)));
    for code in ["invalid_scope", "unknown_to_everybody", ""] {
        assert!(matches!(of(code), Failure::Misconfigured(_)), "{code}");
    }
}

#[test]
fn what_is_beside_the_code_decides_first() {
    let plain = authorization(&error("invalid_grant", "Bad Request", &[]));
    for (subtype, class, sentence) in SUBTYPES {
        let error = ErrorResponse { subtype: (*subtype).to_owned(), ..error("invalid_grant", "Bad Request", &[]) };
        let expected = class(format!("{sentence}; the authorization server says {}", error.words()));
        assert_eq!(authorization(&error), expected);
        assert_ne!(expected, plain);
    }
    for (code, description, words) in [
        ("invalid_grant", "Token has been expired or revoked.", "Testing"),
        ("invalid_client", "The OAuth client was not found.", "check client_id; the"),
        ("invalid_request", "client_secret is missing.", "client_secret_file"),
    ] {
        assert!(authorization(&error(code, description, &[])).to_string().contains(words), "{description}");
    }
}

#[test]
fn what_an_error_means_depends_on_the_request() {
    use RequestKind::{Assertion, Authorization, Code, Device, Password, Refresh, Revocation};
    let (ended, misconfigured): (ErrorClass, ErrorClass) = (Failure::Ended, Failure::Misconfigured);
    for (code, request, class, words) in [
        ("invalid_request", Refresh, ended, "sign in again"),
        ("invalid_request", Authorization, misconfigured, "check the provider's entries"),
        ("invalid_scope", Refresh, ended, "sign in again"),
        ("invalid_scope", Authorization, misconfigured, "correct scope"),
        ("invalid_scope", Device, misconfigured, "correct scope"),
        ("invalid_grant", Refresh, ended, "sign in again"),
        ("invalid_grant", Code, ended, "start the sign-in again"),
        ("invalid_grant", Assertion, misconfigured, "assertion"),
        ("invalid_grant", Password, ended, "wrong user name or password"),
        ("unauthorized_client", Refresh, misconfigured, "refresh_token"),
        ("unauthorized_client", Device, misconfigured, "device flow"),
        ("unsupported_grant_type", Refresh, misconfigured, "refresh_token"),
        ("refresh_token_expired", Refresh, ended, "sign in again"),
        ("refresh_token_expired", Revocation, misconfigured, "unknown error"),
        ("token_quota", Refresh, misconfigured, "unknown error"),
        ("certificate_expired", Refresh, misconfigured, "unknown error"),
    ] {
        let failure = error(code, "", &[]).failure(request, None);
        assert_eq!(failure, class(failure.to_string()), "{code} {request:?}");
        assert!(failure.to_string().contains(words), "{code} {request:?}: {failure}");
    }
}

fn client(proof: Proof, algorithms: &[&str]) -> Registration {
    let algorithms = algorithms.iter().map(|one| (*one).to_owned()).collect();
    Registration {
        client_id: "client".to_owned(),
        proof,
        token_endpoint: "https://login.example.test/token".parse().unwrap(),
        is_self_registered: false,
        methods: ClientMethods {
            token: vec!["client_secret_basic".to_owned()],
            algorithms,
            ..ClientMethods::default()
        },
    }
}

#[test]
fn an_error_about_the_client_depends_on_how_it_authenticated() {
    let pem = Secret::new(include_bytes!("../../../tests/support/signing-key.pem").to_vec());
    let key = SigningKey::read(&pem, None, Algorithm::Ps256).unwrap().with_id(Some("abc"));
    for (proof, algorithms, words) in [
        (Proof::Secret(Secret::new(b"hush".to_vec())), &[][..], "check client_id and its secret"),
        (Proof::None, &[], "no secret was sent, and its metadata offer client_secret_basic: configure"),
        (Proof::Assertion(Token::parse("a.b.c").unwrap()), &[], "client_assertion"),
        (
            Proof::Key(key.clone()),
            &["RS256", "ES256"],
            "signed by PS256 with a key named by kid abc: set client_algorithm to one of RS256",
        ),
        (Proof::Key(key.clone()), &["RS256", "PS256"], "check client_id, client_key and the certificate"),
        (Proof::Key(key), &[], "try another client_algorithm"),
    ] {
        let failure = error("invalid_client", "", &[]).failure(RequestKind::Refresh, Some(&client(proof, algorithms)));
        assert!(matches!(&failure, Failure::Misconfigured(text) if text.contains(words)), "{failure}");
    }
    let own = Registration { is_self_registered: true, ..client(Proof::None, &[]) };
    for code in ["invalid_client", "deleted_client", "unauthorized_client"] {
        let failure = error(code, "", &[]).failure(RequestKind::Refresh, Some(&own));
        assert!(matches!(&failure, Failure::Ended(text) if text.contains("registers it again")), "{code}: {failure}");
    }
}

/// Such servers offer revocation only to other clients, so no setting of this one helps.
#[test]
fn a_revocation_refused_to_a_client_without_a_secret_asks_for_no_other_setting() {
    let of = |code, proof, is_self_registered| {
        let client = Registration { is_self_registered, ..client(proof, &[]) };
        error(code, "", &[]).failure(RequestKind::Revocation, Some(&client)).to_string()
    };
    for code in ["invalid_client", "unauthorized_client"] {
        for is_self_registered in [false, true] {
            let text = of(code, Proof::None, is_self_registered);
            assert!(text.contains("only for clients with a secret") && !text.contains("client_id"), "{code}: {text}");
        }
    }
    let secret = Proof::Secret(Secret::new(b"hush".to_vec()));
    assert!(of("invalid_client", secret, false).contains("check client_id and its secret"));
}
