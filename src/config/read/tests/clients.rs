//! How a client shows who it is, and where its secrets come from.

use super::{bad, good};
use crate::config::Config;

#[test]
fn a_secret_comes_from_one_place() {
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
        ("{}", "names 0 places; a secret comes from one of \"file\", \"command\", \"credential\" or \"environment\""),
        ("{ file = \"/s\", environment = \"S\" }", "names 2 places"),
        ("{ credential = \"../x\" }", "is the name of a credential, and no path"),
        ("{ command = [] }", "is empty"),
        ("{ command = [\"pass\", \"show\"] }", "must begin with the whole path of a program"),
        ("{ command = \"/usr/bin/pass show x\" }", "write [\"/usr/bin/program\", \"argument\"]"),
        ("[\"a\"]", "must be a text in quotes"),
    ] {
        assert!(mistakes(value)[0].contains(expected), "{value}: {:?}", mistakes(value));
    }
}

#[test]
fn a_secret_in_a_file_for_everybody_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkey.toml");
    std::fs::write(&file, "state_dir = \"s\"\n[provider.google]\nclient_id = \"x\"\nclient_secret = \"hush\"\n")
        .unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        Config::load(Some(&file)).unwrap().warnings
    };
    assert_eq!(warnings(0o640), []);
    let told = warnings(0o644)[0].to_string();
    assert!(told.contains(":4:17: provider.google.client_secret: stands in a file that everybody can read"), "{told}");
    assert!(!told.contains("hush"));
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
fn a_client_shows_who_it_is_in_one_way() {
    let with = |lines: &str| format!("[provider.google]\nclient_id = \"x\"\n{lines}");
    for (lines, expected) in [
        ("client_secret = \"a\"\nclient_key = \"b\"", "client_key: is one of several ways to authenticate the client"),
        ("client_certificate = \"c\"", "client_certificate: belongs to a client_key, and there is none"),
        ("client_key_password = \"c\"", "client_key_password: belongs to a client_key, and there is none"),
        (
            "assertion = { issuer = \"i\", key = \"k\", claims = { sub = \"x\" } }",
            "claims: has sub, which postkey sets by itself",
        ),
        (
            "assertion = { issuer = \"i\", key = \"k\", claims = { at = 2027-01-01 } }",
            "claims: has a value that JSON does not know",
        ),
        ("client_key = \"b\"\nclient_algorithm = \"HS256\"", "must be \"PS256\" or \"RS256\", and is \"HS256\""),
        ("service_account = \"a\"\nassertion = { issuer = \"i\", key = \"k\" }", "says what service_account says"),
        ("assertion = { issuer = \"i\" }", "provider.google.assertion: key is missing"),
        ("assertion = { issuer = \"i\", key = \"k\", lifetime = \"2h\" }", "must be a time from \"1m\" to \"1h\""),
        ("flow = \"password\"", "if there is no other way, add legacy = true"),
    ] {
        let mistakes = bad(&with(lines));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{lines}: {mistakes:?}");
    }
    let config = good(&with("client_key = \"b\"\nclient_certificate = \"c\"\nlegacy = true\nflow = \"password\""));
    assert!(config.warnings[0].message.starts_with("lets postkey keep a mailbox's own password"));
}
