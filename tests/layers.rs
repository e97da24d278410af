//! What may know what: the layers of `src`, and the words that belong into few files only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// From the bottom up. A module may use what stands in a line above its own, never what stands in its own line or below.
const LAYERS: &[&[&str]] = &[
    &["address", "clock", "exit", "guard", "process_group", "protocol", "resolver", "secret", "stop"],
    &["config", "metrics", "token", "wire"],
    &["proxy"],
    &["confine", "downstream", "log", "net", "notify", "oauth", "upstream", "vault"],
    &["broker", "relay"],
    &["login"],
    &["examination"],
    &["control", "session", "web"],
    &["daemon"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// A word, and the files and folders that may hold it. An empty list is for a word that no file may hold.
const WORDS: &[(&str, &[&str])] = &[
    ("sled::", &["vault/store.rs"]),
    ("rustls_pemfile", &["net/tls.rs"]),
    ("rustls_native_certs", &["net/tls.rs"]),
    ("reqwest", &["oauth/http.rs"]),
    ("hpke::", &["vault/seal.rs"]),
    ("argon2::", &["vault/seal.rs"]),
    ("axum::", &["web"]),
    ("clap::", &["cli"]),
    ("oauth2::", &["oauth", "cli/authorize/browser.rs"]),
    ("qrcode::", &["cli/authorize/device.rs"]),
    ("ring::signature", &["oauth/jwt.rs", "oauth/keys.rs"]),
    ("webbrowser::", &["cli/authorize/browser.rs"]),
    ("rpassword::", &["cli/terminal.rs"]),
    ("sd_notify", &["net/systemd.rs"]),
    ("listenfd", &["net/systemd.rs"]),
    ("simple_dns", &["net/mx.rs"]),
    ("resolv_conf", &["net/mx.rs"]),
    ("ring::signature", &["oauth"]),
    ("tracing_journald", &["log.rs"]),
    ("prometheus_client", &["metrics.rs"]),
    ("landlock::", &["confine.rs"]),
    ("nix::unistd", &["config/users.rs"]),
    ("SystemTime::now", &["clock.rs"]),
    // The one word by which a secret leaves its type. Whoever is here has a reason to see one.
    (
        ".expose()",
        &[
            // compares fingerprints of passwords, and reads passwords to unlock with
            "broker/first_login.rs",
            "broker/unlock.rs",
            // takes what was typed, and shows a new password once
            "cli/authorize/browser.rs",
            "cli/authorize/unattended.rs",
            "cli/authorize/provider.rs",
            "cli/password.rs",
            "cli/terminal.rs",
            // takes the password that was typed on a page
            "web/first_login.rs",
            // carries them over a socket that is for its owner alone
            "control.rs",
            "control/message.rs",
            // reads what an access token says of itself
            "oauth/access_token.rs",
            // logs in to a proxy
            "net/proxy.rs",
            // sends them to the authorization server or to a proxy, and reads the keys that sign assertions
            "oauth/http.rs",
            "oauth/jwt.rs",
            "oauth/jwt_bearer.rs",
            "oauth/password.rs",
            "oauth/refresh.rs",
            "oauth/revocation.rs",
            "oauth/registration.rs",
            // seals and opens
            "vault",
            // writes the SASL message
            "wire/sasl.rs",
        ],
    ),
    ("unsafe ", &[]),
    ("dbg!", &[]),
    ("todo!", &[]),
    ("println!", &[]),
    ("process::exit", &[]),
];

/// The folders that are pure, and what would tell that they are not any more.
const PURE: [&str; 3] = ["wire", "downstream", "upstream"];
const IMPURE: [&str; 8] = ["tokio", "Tcp", "Udp", "std::time", "std::fs", "std::io", "std::thread", "tracing"];

/// Types that hold secrets derive none of these.
const TELLTALE: [&str; 4] = ["Debug", "Display", "Serialize", "Deserialize"];
const SECRET_TYPES: &[(&str, &[&str])] = &[
    ("secret.rs", &["Secret", "Token"]),
    ("token.rs", &["TokenSet"]),
    ("wire/mod.rs", &["Credentials", "Bearer"]),
    ("vault/password.rs", &["Password"]),
    ("vault/seal.rs", &["AccountKey", "Derived"]),
    ("vault/account.rs", &["Unlocked"]),
    ("vault/mod.rs", &["Authorization", "Secrets"]),
    ("proxy.rs", &["Proxy"]),
    ("broker/account.rs", &["Held", "Account"]),
    ("config/secret_source.rs", &["SecretSource"]),
    ("oauth/grant.rs", &["Ask"]),
    ("oauth/jwt.rs", &["SigningKey"]),
    ("oauth/registration.rs", &["Registration", "Proof"]),
    ("control/message.rs", &["Carried"]),
    ("downstream/exchange.rs", &["Exchange"]),
];

/// Every source file by its path in `src`, without comments and without its tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, code(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 40, "the sources are not where they were");
    sources
}

/// A file's code: neither comments nor tests, which stand at its end.
fn code(text: &str) -> String {
    let (code, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The module at the top to which a file belongs.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules that come after `crate::`, in a list with braces as well.
fn used(code: &str) -> BTreeSet<&str> {
    let word = |text: &'static str| move |c: char| !text.contains(c) && !c.is_ascii_alphanumeric();
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(
                list.split('}').next().unwrap().split(',').map(|one| one.trim().split(word("_")).next().unwrap()),
            ),
            None => drop(modules.insert(rest.split(word("_")).next().unwrap())),
        }
    }
    modules.remove("");
    modules
}

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("{module} has no layer; give it one"))
}

/// Whether a file is one of these, or in one of these folders.
fn is_in(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[test]
fn nothing_knows_what_is_above_or_beside_it() {
    let mut breaches = Vec::new();
    for (file, code) in sources() {
        let own = module(&file);
        for other in used(&code).into_iter().filter(|other| *other != own) {
            if layer(other) >= layer(own) {
                breaches.push(format!("{file} uses {other}"));
            }
        }
    }
    assert_eq!(breaches, [""; 0]);
}

#[test]
fn every_layer_names_modules_that_exist() {
    let sources = sources();
    let known: BTreeSet<&str> = sources.keys().map(|file| module(file)).collect();
    let listed: BTreeSet<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    assert_eq!(known, listed);
}

#[test]
fn what_is_pure_stays_pure() {
    let mut breaches = Vec::new();
    for (file, code) in sources().iter().filter(|(file, _)| is_in(file, &PURE)) {
        breaches.extend(IMPURE.iter().filter(|word| code.contains(**word)).map(|word| format!("{file}: {word}")));
    }
    assert_eq!(breaches, [""; 0]);
}

#[test]
fn a_word_stays_where_it_belongs() {
    let sources = sources();
    for (word, places) in WORDS {
        let holders: Vec<_> = sources.iter().filter(|(_, code)| code.contains(word)).map(|(file, _)| file).collect();
        let strays: Vec<_> = holders.iter().filter(|file| !is_in(file, places)).collect();
        assert!(strays.is_empty(), "{word} is in {strays:?}");
        for place in *places {
            assert!(
                holders.iter().any(|file| is_in(file, &[place])),
                "{word} is not in {place} any more; take it off the list"
            );
        }
    }
}

#[test]
fn secrets_cannot_be_printed_or_written_down() {
    let sources = sources();
    for (file, types) in SECRET_TYPES {
        for name in *types {
            let telling = derived(&sources[*file], name);
            let telling: Vec<_> = telling.iter().filter(|one| TELLTALE.contains(&one.as_str())).collect();
            assert!(telling.is_empty(), "{file}: {name} derives {telling:?}");
        }
    }
    for (file, code) in &sources {
        for name in SECRET_TYPES
            .iter()
            .flat_map(|(_, types)| *types)
            .filter(|name| !["Account", "Carried", "SecretSource"].contains(name))
        {
            for telling in ["Debug", "Display", "Serialize"] {
                assert!(!code.contains(&format!("{telling} for {name} ")), "{file}: {telling} for {name}");
            }
        }
    }
}

/// What a type derives.
fn derived(code: &str, name: &str) -> Vec<String> {
    let is_it = |line: &str| {
        ["struct", "enum"].iter().any(|kind| {
            let begin = line.split_once(&format!("{kind} {name}")).map(|(_, rest)| rest);
            begin.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    let lines: Vec<&str> = code.lines().collect();
    let place = lines.iter().position(|line| is_it(line)).unwrap_or_else(|| panic!("there is no {name} here any more"));
    let attributes = lines[..place].iter().rev().take_while(|line| line.trim_start().starts_with("#["));
    let names = attributes.filter_map(|line| line.trim().strip_prefix("#[derive(")?.strip_suffix(")]"));
    names.flat_map(|list| list.split(',')).map(|one| one.trim().rsplit("::").next().unwrap().to_owned()).collect()
}

#[test]
fn the_rules_themselves_can_be_broken() {
    let text = "use crate::{broker, web::redirect};\nlet x = crate::vault::seal(); // crate::cli\n//! crate::daemon\n";
    assert_eq!(used(&code(text)), BTreeSet::from(["broker", "vault", "web"]));
    assert_eq!(
        derived("#[derive(Clone, serde::Serialize)]\npub struct Token(u8);\nstruct Tokens;", "Token"),
        ["Clone", "Serialize"]
    );
    assert!(is_in("vault/mod.rs", &["vault"]) && !is_in("vaults.rs", &["vault"]));
    assert!(code("a\n#[cfg(test)]\nmod tests {\n b").ends_with('a'));
}
