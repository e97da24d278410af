//! How a client authenticates, and where its secrets come from.

use super::{bad, good};
use crate::config::Config;

#[test]
fn a_secret_comes_from_one_source() {
    let read = |value: &str| good(&format!("[provider.google]\nclient_id = \"x\"\nclient_secret = {value}"));
    let place = |value: &str| format!("{:?}", read(value).providers["google"].client.as_ref().unwrap().authentication);
    for (value, expected) in [
        ("\"hush\"", "the configuration"),
        ("{ file = \"/s\" }", "/s"),
        ("{ command = [\"/usr/bin/pass\", \"show\", \"x\"] }", "`/usr/bin/pass show x`"),
        ("{ credential = \"google\" }", "the credential google"),
        ("{ environment = \"SECRET\" }", "$SECRET"),
    ] {
        assert_eq!(place(value), format!("Secret(SecretSource({expected}))"));
    }
    let mistakes = |value: &str| bad(&format!("[provider.google]\nclient_id = \"x\"\nclient_secret = {value}"));
    for (value, expected) in [
        ("{}", "names 0 sources; a secret comes from one of \"file\", \"command\", \"credential\" or \"environment\""),
        ("{ file = \"/s\", environment = \"S\" }", "names 2 sources"),
        ("{ credential = \"../x\" }", "must be the name of a credential, not a path"),
        ("{ command = [] }", "is empty"),
        ("{ command = [\"pass\", \"show\"] }", "must begin with the whole path of a program"),
        ("{ command = \"/usr/bin/pass show x\" }", "write [\"/usr/bin/program\", \"argument\"]"),
        ("[\"a\"]", "must be a text in quotes"),
    ] {
        assert!(mistakes(value)[0].contains(expected), "{value}: {:?}", mistakes(value));
    }
}

#[test]
fn a_secret_in_a_world_readable_configuration_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkey.toml");
    std::fs::write(&file, "state_dir = \"s\"\n[provider.google]\nclient_id = \"x\"\nclient_secret = \"hush\"\n")
        .unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        Config::load(Some(&file)).unwrap().warnings
    };
    assert_eq!(warnings(0o640), []);
    let warning = warnings(0o644)[0].to_string();
    assert!(
        warning.contains(":4:17: provider.google.client_secret: is a secret in a world-readable file"),
        "{warning}"
    );
    assert!(!warning.contains("hush"));
}

#[test]
fn an_account_and_a_provider_name_their_grant() {
    let config = good("[provider.google]\nflow = \"jwt-bearer\"\n[account.\"a@b\"]\nflow = \"device-code\"");
    assert_eq!(config.providers["google"].flow.name(), "jwt-bearer");
    assert_eq!(config.providers["microsoft"].flow.name(), "authorization-code");
    assert_eq!(config.account("a@b").flow.unwrap().name(), "device-code");
    let mistake = &bad("[provider.google]\nflow = \"implicit\"")[0];
    assert!(mistake.starts_with("2:8: provider.google.flow: must be \"authorization-code\", "), "{mistake}");
}

#[test]
fn a_client_authenticates_in_one_way() {
    let with = |lines: &str| format!("[provider.google]\nclient_id = \"x\"\n{lines}");
    for (lines, expected) in [
        ("client_secret = \"a\"\nclient_key = \"b\"", "client_key: is one of several ways to authenticate the client"),
        ("client_certificate = \"c\"", "client_certificate: has no effect without client_key"),
        ("client_key_password = \"c\"", "client_key_password: has no effect without client_key"),
        (
            "assertion = { issuer = \"i\", key = \"k\", claims = { sub = \"x\" } }",
            "claims: has sub, which postkey sets itself",
        ),
        (
            "assertion = { issuer = \"i\", key = \"k\", claims = { at = 2027-01-01 } }",
            "claims: has a value that JSON does not have",
        ),
        ("client_key = \"b\"\nclient_algorithm = \"HS256\"", "must be \"PS256\" or \"RS256\", and is \"HS256\""),
        (
            "service_account = \"a\"\nassertion = { issuer = \"i\", key = \"k\" }",
            "has the same purpose as service_account",
        ),
        ("assertion = { issuer = \"i\" }", "provider.google.assertion: key is missing"),
        ("assertion = { issuer = \"i\", key = \"k\", lifetime = \"2h\" }", "must be a time from \"1m\" to \"1h\""),
        ("flow = \"password\"", "if there is no other way, add legacy = true"),
    ] {
        let mistakes = bad(&with(lines));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{lines}: {mistakes:?}");
    }
    let config = good(&with("client_key = \"b\"\nclient_certificate = \"c\"\nlegacy = true\nflow = \"password\""));
    assert!(config.warnings[0].message.starts_with("lets postkey store a mailbox's own password"));
}
