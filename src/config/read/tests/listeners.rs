//! Listeners, and who may connect to them.

use super::{bad, good};
use crate::config::host_name::HostName;
use crate::config::{Certificate, PasswordSource};

/// A listener with further lines.
fn listener(lines: &str) -> String {
    format!("[[listener]]\nprotocol = \"imap\"\n{lines}\n")
}

#[test]
fn a_listener_is_judged_for_what_it_exposes() {
    for (lines, expected) in [
        ("", "1:1: listener: address is missing; add it here"),
        (
            "address = 1143",
            "3:11: listener.address: must be a text in quotes, or a list of them, and is of type integer",
        ),
        ("address = \"127.0.0.1\"", "3:11: listener.address: the port is missing; write \"127.0.0.1:1143\""),
        (
            "address = [\"[::1]:1\", \"localhost:2\"]",
            "3:23: listener.address: must be an IP address and a port; write [\"127.0.0.1:2\", \"[::1]:2\"]",
        ),
        (
            "address = \"192.0.2.1:1\"",
            "3:11: listener.address: other machines can reach 192.0.2.1; if you want that, set security = \"tls\" or \
             \"starttls\", and allow_remote = true; if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"[::]:1\"\nallow_remote = true",
            "3:11: listener.address: other machines can reach ::; if you want that, set security = \"tls\" or \
             \"starttls\", because passwords would cross the network unencrypted; if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"0.0.0.0:1\"\nsecurity = \"tls\"\ncertificate = \"c\"\nkey = \"k\"",
            "3:11: listener.address: other machines can reach 0.0.0.0; if you want that, set allow_remote = true; \
             if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"c\"",
            "1:1: listener: key is missing; add it here",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"",
            "1:1: listener: certificate is missing; add certificate = \"own\" and postkey issues it, or certificate and key with \
             files",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"onw\"\nnames = \"a.example\"",
            "5:15: listener.certificate: did you mean \"own\"? The certificate of a file also needs key",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"own\"\nkey = \"k\"",
            "6:7: listener.key: is not used with certificate = \"own\"; remove it, or write \"./own\" for a file of that name",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"c\"\nkey = \"k\"\nnames = \"a.example\"",
            "7:9: listener.names: is for certificate = \"own\"; a certificate file already has its names, so remove this",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"own\"\nnames = [\"a.example\", \"dev\"]",
            "6:23: listener.names: could be a top-level domain, and the authority could then sign for all of it; write \
             \"dev.local\" or another name with a dot",
        ),
        (
            "address = \"127.0.0.1:1\"\ncertificate = \"own\"",
            "4:15: listener.certificate: is not used while security is \"none\"; set security to \"tls\" or \"starttls\", or \
             remove this",
        ),
        (
            "address = \"127.0.0.1:1\"\nkey = \"k\"",
            "4:7: listener.key: is not used while security is \"none\"; set security to \"tls\" or \"starttls\", or remove this",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"ssl\"",
            "4:12: listener.security: must be \"none\", \"starttls\" or \"tls\", and is \"ssl\"",
        ),
        (
            "address = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "3:27: listener.address: 127.0.0.1:1 is taken by 127.0.0.1:1 in line 3; choose another port",
        ),
        (
            "address = \"127.0.0.1:1\"\naccount = \"ann@example.test\"",
            "4:11: listener.account: the provider of ann@example.test is unknown; \
             add [account.\"ann@example.test\"] with provider",
        ),
        (
            "address = \"127.0.0.1:1\"\nprovider = \"outlook\"\naccount = \"ann@gmail.com\"",
            "5:11: listener.account: ann@gmail.com is at \"google\", not at \"outlook\"; correct one, or remove provider",
        ),
    ] {
        assert_eq!(bad(&listener(lines)), [expected], "{lines}");
    }
    assert_eq!(
        bad("[[listener]]\nprotocol = \"imaps\"\naddress = \"127.0.0.1:1\""),
        ["2:12: listener.protocol: must be \"imap\", \"pop3\" or \"smtp\", and is \"imaps\""]
    );
}

#[test]
fn ports_may_repeat_if_they_are_zero_or_the_addresses_differ() {
    let two = |first: &str, second: &str| {
        listener(&format!("address = \"{first}\"")) + &listener(&format!("address = \"{second}\""))
    };
    assert_eq!(good(&two("127.0.0.1:0", "127.0.0.1:0")).listeners.len(), 2);
    assert_eq!(good(&two("127.0.0.1:1", "[::1]:1")).listeners.len(), 2);
    assert_eq!(good(&two("127.0.0.1:1", "127.0.0.2:1")).listeners.len(), 2);
    let every = &bad(&two("0.0.0.0:1", "127.0.0.1:1"))[1];
    assert_eq!(every, "6:11: listener.address: 127.0.0.1:1 is taken by 0.0.0.0:1 in line 3; choose another port");
    assert_eq!(
        bad(&two("127.0.0.1:1", "127.0.0.1:1")),
        ["6:11: listener.address: 127.0.0.1:1 is taken by 127.0.0.1:1 in line 3; choose another port"]
    );
}

/// A listener without a login, line by line; line 5 has the password.
fn without_login(lines: &str) -> String {
    format!("[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n{lines}\n")
}

const PRINTER: &str = "password = { file = \"printer.password\" }";

const ANN: &str = "account = \"ann@gmail.com\"";

const ADDRESSES: &str = "allow_addresses = [\"192.0.2.7\", \"2001:db8::/64\"]";

#[test]
fn clients_without_a_login_are_named_and_send_as_one_account() {
    let lan = "address = \"192.0.2.1:25\"\nallow_remote = true";
    let text = without_login(&[PRINTER, ANN, ADDRESSES].join("\n"));
    let config = good(&text.replace("address = \"127.0.0.1:25\"", lan));
    let listener = &config.listeners[0];
    assert!(matches!(&listener.password, Some(PasswordSource::File(path)) if path.ends_with("printer.password")));
    let allowed = listener.allow_addresses.as_ref().unwrap();
    assert_eq!(allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.7/32", "2001:db8::/64"]);
    let credential = text.replace("file = \"printer.password\"", "credential = \"printer\"");
    assert!(
        matches!(&good(&credential).listeners[0].password, Some(PasswordSource::Credential(name)) if name == "printer")
    );
    // With a login, a password would cross the network.
    let text = without_login(ADDRESSES).replace("address = \"127.0.0.1:25\"", lan);
    assert!(bad(&text)[0].contains("passwords would cross the network"));
}

#[test]
fn clients_without_a_login_are_refused_otherwise() {
    for (lines, mistake) in [
        (
            [PRINTER, ANN, ""],
            "clients without a login are identified by their addresses or users; add allow_addresses or allow_uids",
        ),
        ([PRINTER, ADDRESSES, ""], "clients without a login need an account as which they send; add account"),
        (
            ["password = \"secret\"", ANN, ADDRESSES],
            "must be in a file or a systemd credential; write { file = \"printer.password\" }",
        ),
    ] {
        assert_eq!(bad(&without_login(&lines.join("\n"))), [format!("4:12: listener.password: {mistake}")]);
    }
    let imap = without_login(&[PRINTER, ANN, ADDRESSES].join("\n")).replace("smtp", "imap");
    assert!(bad(&imap)[0].contains("lets clients in without a login, which is only possible to send mail"));
    let climbing = "password = { credential = \"../printer\" }";
    assert!(
        bad(&without_login(&[climbing, ANN, ADDRESSES].join("\n")))[0]
            .contains("must be the name of a credential, not a path")
    );
}

#[test]
fn clients_without_a_login_may_be_named_by_their_users() {
    let text = without_login(&[PRINTER, ANN, "allow_uids = [1000]"].join("\n"));
    assert!(good(&text).listeners[0].password.is_some());
    assert!(good(&text.replace("127.0.0.1:25", "/run/postkey/smtp")).listeners[0].users.allow(Some(1000)));
    let lan = "address = \"192.0.2.1:25\"\nallow_remote = true";
    assert_eq!(
        bad(&text.replace("address = \"127.0.0.1:25\"", lan)),
        [
            "3:11: listener.address: users of other machines cannot be identified; add allow_addresses, or listen on 127.0.0.1"
        ]
    );
    let text = without_login(&[PRINTER, ANN, ADDRESSES].join("\n"));
    assert_eq!(
        bad(&text.replace("\"127.0.0.1:25\"", "[\"127.0.0.1:25\", \"/run/postkey/smtp\"]")),
        ["3:28: listener.address: clients of a Unix socket have no addresses; add allow_uids"]
    );
}

#[test]
fn a_listener_may_have_unix_sockets() {
    let both = "address = [\"/run/postkey/imap\", \"127.0.0.1:1\"]";
    let config = good(&listener(both));
    let addresses = config.listeners[0].addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((addresses.join(" "), config.listeners[0].mode), ("/run/postkey/imap 127.0.0.1:1".to_owned(), 0o600));
    assert_eq!(good(&listener(&format!("{both}\nmode = \"0660\""))).listeners[0].mode, 0o660);
    good(&listener(&format!("{both}\nallow_addresses = [\"127.0.0.1\"]")));
}

#[test]
fn an_impossible_unix_socket_is_a_mistake() {
    let long = "/".to_owned() + &"x".repeat(107);
    for (lines, mistake) in [
        ("address = \"run/imap\"", "3:11: listener.address: must be an IP address and a port, or the whole path"),
        (
            "address = \"/home/ann/.local/state/postkey/control\"",
            "3:11: listener.address: is the control socket; choose another path",
        ),
        (&*format!("address = {long:?}"), "3:11: listener.address: is longer than 107 bytes"),
        ("address = [\"/a\", \"/a\"]", "3:18: listener.address: /a is taken by /a in line 3; choose another path"),
        (
            "address = \"/a\"\nmode = \"0644\"",
            "4:8: listener.mode: must be \"0600\", \"0660\" or \"0666\", and is \"0644\"",
        ),
        (
            "address = \"127.0.0.1:1\"\nmode = \"0600\"",
            "4:8: listener.mode: is for Unix sockets, and this listener has none",
        ),
        (
            "address = \"/a\"\nallow_addresses = [\"127.0.0.1\"]",
            "4:19: listener.allow_addresses: clients of Unix sockets have no addresses",
        ),
        (
            "address = \"/a\"\nsecurity = \"tls\"\ncertificate = \"c\"\nkey = \"k\"",
            "3:11: listener.address: Unix sockets have no TLS",
        ),
    ] {
        let mistakes = bad(&listener(lines));
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(mistake), "{mistakes:?}\n{mistake}");
    }
}

#[test]
fn clients_are_named_by_addresses_and_networks() {
    for (address, mistake) in [
        ("0.0.0.0/0", "includes everybody; name the clients, or remove allow_addresses if all may connect"),
        ("192.0.2.7/24", "is one address in a network; write \"192.0.2.0/24\" for the whole network"),
        ("printer", "must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\""),
        ("192.0.2.7:25", "must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\""),
    ] {
        let text = listener(&format!("address = \"127.0.0.1:1\"\nallow_addresses = [{address:?}]"));
        assert_eq!(bad(&text), [format!("4:20: listener.allow_addresses: {mistake}")]);
    }
    let nobody = listener("address = \"127.0.0.1:1\"\nallow_addresses = []");
    assert!(bad(&nobody)[0].contains("is empty"));
}

#[test]
fn load_balancers_are_named_by_addresses_and_networks() {
    let behind = |lines: &str| listener(&format!("address = \"127.0.0.1:1\"\nproxy_protocol = {lines}"));
    let config = good(&behind("[\"192.0.2.10\", \"2001:db8::/64\"]"));
    let balancers = config.listeners[0].balancers.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(balancers, ["192.0.2.10/32", "2001:db8::/64"]);
    assert!(good(&listener("address = \"127.0.0.1:1\"")).listeners[0].balancers.is_empty());
    good(&behind("[\"127.0.0.1\"]\nallow_uids = [1000]"));
    let here = "includes this machine, so all its users and containers could claim any address; add allow_uids with the \
                load balancer's user";
    for (lines, position, mistake) in [
        ("[\"::/0\"]", "4:19", "includes everybody, who could then claim any address; name the load balancers"),
        ("[\"192.0.2.7/24\"]", "4:19", "is one address in a network; write \"192.0.2.0/24\" for the whole network"),
        (
            "[\"haproxy\"]",
            "4:19",
            "must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\"",
        ),
        ("[\"192.0.2.10\", \"127.0.0.1\"]", "4:18", here),
        ("[\"::1\"]", "4:18", here),
        ("[\"126.0.0.0/7\"]", "4:18", here),
    ] {
        assert_eq!(bad(&behind(lines)), [format!("{position}: listener.proxy_protocol: {mistake}")]);
    }
    assert!(bad(&behind("[]"))[0].contains("is empty"));
    assert!(bad(&behind("true"))[0].contains("must be a text in quotes, or a list"));
    let unix = bad(&listener("address = [\"127.0.0.1:1\", \"/a\"]\nproxy_protocol = [\"192.0.2.10\"]"));
    let separate = "connections to Unix sockets have no addresses; put them in a separate [[listener]]";
    assert_eq!(unix, [format!("4:18: listener.proxy_protocol: {separate}")]);
    let unknown = bad(&listener("address = \"127.0.0.1:1\"\nproxy_protokol = [\"192.0.2.10\"]"));
    assert!(unknown[0].contains("proxy_protocol"), "{unknown:?}");
}

#[test]
fn behind_a_load_balancer_only_addresses_identify_clients_without_a_login() {
    let named = |lines: &str| without_login(&[PRINTER, ANN, "proxy_protocol = [\"192.0.2.10\"]", lines].join("\n"));
    good(&named(ADDRESSES));
    assert_eq!(
        bad(&named("allow_uids = [1000]")),
        [
            "4:12: listener.password: clients behind a load balancer are identified by their addresses; add allow_addresses"
        ]
    );
}

#[test]
fn users_are_named_by_number_or_name() {
    let users = |value: &str| {
        let config = good(&format!("{}allow_uids = {value}\n", listener("address = \"127.0.0.1:1\"")));
        config.listeners[0].users.clone()
    };
    let both = users("[1000, \"root\"]");
    assert!(both.allow(Some(1000)) && both.allow(Some(0)) && !both.allow(Some(1)) && !both.allow(None));
    assert!(users("7").allow(Some(7)) && users("\"root\"").allow(Some(0)));
    let nobody_said = good(&listener("address = \"127.0.0.1:1\"")).listeners[0].users.clone();
    assert!(nobody_said.allow(None) && nobody_said.allow(Some(1)));
    let account = good("[account.\"ann@gmail.com\"]\nallow_uids = [1000]\n");
    assert!(!account.account("ann@gmail.com").users.allow(Some(0)));
}

#[test]
fn impossible_users_are_mistakes() {
    for (value, words) in [
        ("[]", "is empty"),
        ("[-1]", "must be a user's number"),
        ("[4294967296]", "must be a user's number"),
        ("[65534]", "users that the kernel cannot identify"),
        ("[\"no such user\"]", "there is no user \"no such user\""),
        ("true", "must be a text in quotes, or a list"),
    ] {
        let errors = bad(&format!("[account.\"ann@gmail.com\"]\nallow_uids = {value}\n"));
        assert!(errors.len() == 1 && errors[0].contains(words), "{value}: {errors:?}");
    }
}

#[test]
fn a_listener_is_pinned_to_an_account_by_any_of_its_names() {
    let pinned = |name: &str| {
        let text = format!(
            "[account.\"ann.b@gmail.com\"]\naliases = [\"Scanner\", \"ann@corp.test\"]\n\
             [[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:1\"\naccount = \"{name}\"\n"
        );
        good(&text).listeners[0].account.clone().unwrap()
    };
    for name in ["scanner", "Ann@corp.test", "annb@googlemail.com", "ANN.B@gmail.com"] {
        assert_eq!(pinned(name), "ann.b@gmail.com", "{name}");
    }
    for name in ["printer", "ann@nowhere.test"] {
        let text = format!("[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:1\"\naccount = \"{name}\"\n");
        assert_eq!(bad(&text).len(), 1, "the provider of {name} is unknown");
    }
}

#[test]
fn this_machines_addresses_alone_do_not_identify_a_client_without_a_login() {
    let listener = |more: &str| {
        format!(
            "[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:1\"\naccount = \"ann@gmail.com\"\n\
             password = {{ credential = \"p\" }}\n{more}"
        )
    };
    for networks in
        ["[\"127.0.0.1\"]", "[\"192.0.2.7\", \"::1\"]", "[\"127.0.0.0/8\"]", "[\"127.0.0.5\"]", "[\"126.0.0.0/7\"]"]
    {
        let mistakes = bad(&listener(&format!("allow_addresses = {networks}")));
        let [mistake] = mistakes.as_slice() else { panic!("{networks}: {mistakes:?}") };
        assert!(mistake.contains("all its users and containers"), "{mistake}");
        good(&listener(&format!("allow_addresses = {networks}\nallow_uids = [1000]")));
    }
    good(&listener("allow_addresses = [\"192.0.2.7\"]"));
}

#[test]
fn a_secret_in_a_world_readable_file_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("secret"), "s3cret").unwrap();
    let text = "state_dir = \"state\"\n[provider.google]\nclient_id = \"x\"\nclient_secret = { file = \"secret\" }\n";
    std::fs::write(path("postkey.toml"), text).unwrap();
    for (mode, count) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
        std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(mode)).unwrap();
        let config = crate::config::Config::load(Some(&path("postkey.toml"))).unwrap();
        assert_eq!(config.warnings.len(), count, "{mode:o}: {:?}", config.warnings);
        assert!(config.warnings.iter().all(|warning| warning.message.contains("run `chmod o-r ")));
    }
}

#[test]
fn the_certificate_of_a_listener_is_postkeys_own_or_in_files() {
    let certificate = |lines: &str| {
        let config = good(&listener(&format!("address = \"127.0.0.1:1\"\nsecurity = \"tls\"\n{lines}")));
        (config.has_own_certificate(), config.listeners[0].certificate.clone().unwrap())
    };
    let own =
        |names: &[&str]| Certificate::Own { names: names.iter().map(|name| HostName::read(name).unwrap()).collect() };
    assert_eq!(certificate("certificate = \"own\""), (true, own(&[])));
    let names = "certificate = \"own\"\nnames = [\"Mail.Home.Example\", \"203.0.113.7\"]";
    assert_eq!(certificate(names), (true, own(&["mail.home.example", "203.0.113.7"])));
    for (file, name) in [("./own", "own"), ("c.pem", "c.pem")] {
        let (is_own, files) = certificate(&format!("certificate = \"{file}\"\nkey = \"k\""));
        let Certificate::Files { chain, key } = files else { panic!("{file}") };
        assert!(!is_own && chain.ends_with(name) && key.ends_with("k"), "{chain:?}");
    }
}
