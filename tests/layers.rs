//! The layers of `src`, the imports between its files, and the words that only few files may contain.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// From the bottom up. A module may use modules in the lines above its own, never those in its own line or below.
const LAYERS: &[&[&str]] = &[
    &["mutex"],
    &[
        "address",
        "clock",
        "exit",
        "guard",
        "name",
        "pasted",
        "process_group",
        "protocol",
        "random",
        "resolver",
        "shutdown",
    ],
    &["secret", "x509"],
    &["config", "token", "wire"],
    &["programs", "proxy"],
    &["confine", "downstream", "log", "net", "notify", "oauth", "upstream", "vault"],
    &["carried", "certificates", "visit"],
    &["broker", "relay"],
    &["login"],
    &["examination"],
    &["control", "session"],
    &["authorization"],
    &["web"],
    &["daemon"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// A word, and the files and folders that may contain it. An empty list is for a word that no file may contain.
const WORDS: &[(&str, &[&str])] = &[
    ("sled::", &["vault/store.rs"]),
    ("tokio_postgres", &["vault/postgresql"]),
    ("deadpool::", &["vault/postgresql/table.rs"]),
    ("rustls_pemfile", &["net/tls.rs"]),
    ("rustls_native_certs", &["net/tls.rs"]),
    ("reqwest", &["oauth/http.rs"]),
    ("hpke::", &["vault/seal.rs"]),
    ("argon2::", &["vault/stretch.rs"]),
    ("axum::", &["web"]),
    ("askama::", &["web"]),
    ("clap::", &["cli"]),
    ("cbc::", &["cli/import/lock.rs"]),
    ("oauth2::", &["oauth", "authorization/consent.rs", "cli/authorize/browser.rs"]),
    ("qrcode::", &["cli/authorize/device.rs", "web/setup/qr.rs"]),
    ("ring::signature", &["oauth/jwt.rs", "oauth/keys.rs"]),
    ("webbrowser::", &["cli/browser.rs"]),
    ("rpassword::", &["cli/terminal.rs"]),
    ("sd_notify", &["net/systemd.rs"]),
    ("listenfd", &["net/systemd.rs"]),
    ("simple_dns", &["net/mx.rs"]),
    ("resolv_conf", &["net/mx.rs"]),
    ("tracing_journald", &["log.rs"]),
    ("prometheus_client", &["broker/metrics.rs"]),
    ("landlock::", &["confine.rs"]),
    ("nix::unistd", &["certificates/machine.rs", "config/listener.rs", "guard.rs"]),
    ("rcgen::", &["certificates/authority.rs"]),
    ("SystemTime::now", &["clock.rs"]),
    ("PoisonError", &["mutex.rs", "broker/context.rs"]),
    // The one word with which a secret leaves its type. Each of these files has a reason to see one.
    (
        ".expose()",
        &[
            // compares fingerprints of passwords, and reads passwords to unlock with
            "broker/first_login.rs",
            "broker/passwords.rs",
            // reads what was typed, and shows a password to the one who has it
            "cli/authorize/browser.rs",
            "cli/authorize/many.rs",
            "cli/authorize/unattended.rs",
            "cli/authorize/provider.rs",
            "cli/import",
            "cli/password.rs",
            "cli/settings.rs",
            "cli/terminal.rs",
            // reads the password that was typed on a page
            "web/first_login.rs",
            "web/setup/form.rs",
            // show a new app password, once
            "web/setup/account_forms.rs",
            "web/setup/step.rs",
            // sends them over a socket that only its owner can use
            "control.rs",
            "carried.rs",
            // reads what an access token says of itself
            "oauth/access_token.rs",
            // logs in to a proxy
            "net/proxy.rs",
            // sends them to the authorization server or to a proxy, and reads the keys that sign assertions
            "oauth/authorization_code.rs",
            "oauth/client_secret.rs",
            "oauth/grant.rs",
            "oauth/http.rs",
            "oauth/id_token.rs",
            "oauth/jwt_bearer.rs",
            "oauth/private_key.rs",
            "oauth/source.rs",
            "oauth/refresh.rs",
            "oauth/revocation.rs",
            "oauth/self_registration.rs",
            "oauth/registration.rs",
            // seals and opens
            "vault",
            // writes the SASL message
            "upstream/exchange.rs",
        ],
    ),
    ("unsafe ", &[]),
    ("dbg!", &[]),
    ("todo!", &[]),
    ("println!", &[]),
    ("process::exit", &[]),
];

/// The pure folders, and the words that would show that they no longer are.
const PURE: [&str; 3] = ["wire", "downstream", "upstream"];
const IMPURE: [&str; 8] = ["tokio", "Tcp", "Udp", "std::time", "std::fs", "std::io", "std::thread", "tracing"];

/// Types that contain secrets derive none of these.
const TELLTALE: [&str; 4] = ["Debug", "Display", "Serialize", "Deserialize"];
const SECRET_TYPES: &[(&str, &[&str])] = &[
    ("secret.rs", &["Secret", "Token"]),
    ("token.rs", &["TokenSet"]),
    ("wire/mod.rs", &["Credentials", "Bearer"]),
    ("wire/redactor.rs", &["Redactor"]),
    ("vault/password.rs", &["Password"]),
    ("certificates/authority.rs", &["Authority", "Signed"]),
    ("vault/seal.rs", &["AccountKey", "Derived"]),
    ("vault/account.rs", &["Authorization", "Opener", "Secrets", "Unlocked"]),
    ("vault/slot.rs", &["Prepared", "Search"]),
    ("proxy.rs", &["Proxy"]),
    ("broker/account.rs", &["OpenAccount", "TokenAttempt"]),
    ("broker/tokens.rs", &["CurrentTokens"]),
    ("config/secret_source.rs", &["SecretSource"]),
    ("oauth/grant.rs", &["GrantRequest"]),
    ("oauth/lasting.rs", &["LastingRequest"]),
    ("oauth/jwt.rs", &["SigningKey"]),
    ("oauth/jwt_bearer.rs", &["AssertionTemplate"]),
    ("oauth/registration.rs", &["Registration", "Proof"]),
    ("cli/import/account.rs", &["ImportedAccount", "ImportedTokens", "Lock", "OpenedTokens"]),
    ("cli/import/block.rs", &["Block"]),
    ("cli/import/ini.rs", &["Ini"]),
    ("cli/import/passwords.rs", &["OldPasswords", "OpenedAccount"]),
    ("cli/authorize/many.rs", &["BulkAccount", "BulkLine"]),
    ("cli/authorize/taken_over.rs", &["TokenSource"]),
    ("downstream/exchange.rs", &["Exchange"]),
    ("authorization/chosen.rs", &["ChosenOptions"]),
    ("web/setup/form.rs", &["SentForm"]),
    ("web/setup/setups.rs", &["AccountSetup"]),
    ("web/setup/sign_in.rs", &["SetupRun"]),
    ("web/setup/account_forms.rs", &["NewPassword"]),
    ("web/setup/settings.rs", &["ProgramSettings"]),
    ("web/setup/step.rs", &["DoneView"]),
];

/// Every source file with its path in `src`, without comments and tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, code(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let modules = sources["lib.rs"].lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules {
        let places = [format!("{module}.rs"), format!("{module}/mod.rs")];
        assert!(places.iter().any(|place| sources.contains_key(place)), "{module} has not been found");
    }
    sources
}

/// A file's code, without comments and without the tests at its end.
fn code(text: &str) -> String {
    let tests = ["", "pub "].map(|visible| text.find(&format!("#[cfg(test)]\n{visible}mod tests {{")));
    let code = &text[..tests.into_iter().flatten().next().unwrap_or(text.len())];
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The top module to which a file belongs.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules after `crate::`, also in a list with braces.
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

/// The module of a file, by its path from the crate's root: `crate::config::read`.
fn path_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    if path == "lib" { "crate".to_owned() } else { format!("crate::{path}") }
}

/// The paths of a `use`, with its braces spread out: `a::{b, c::{self, d}}` is `a::b`, `a::c::self` and `a::c::d`.
fn spread(tree: &str) -> Vec<String> {
    let Some((prefix, list)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let list = list.trim_end().strip_suffix('}').expect("a brace that ends");
    let mut depth = 0;
    let members = list.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let members = members.filter(|member| !member.trim().is_empty()).flat_map(spread);
    members.map(|member| format!("{}{member}", prefix.trim_start())).collect()
}

/// The paths that a file imports, each with whether it re-exports it (`pub use`), and its code without these lines.
fn imported(code: &str) -> (Vec<(bool, String)>, String) {
    let (mut paths, mut rest, mut open) = (Vec::new(), String::new(), String::new());
    for line in code.lines().map(str::trim) {
        let is_use = line.starts_with("use ") || line.starts_with("pub") && line.contains(" use ");
        if open.is_empty() && !is_use {
            rest += &format!("{line}\n");
            continue;
        }
        open += line;
        if let Some((visible, tree)) = open.strip_suffix(';').and_then(|all| all.split_once("use ")) {
            paths.extend(spread(tree).into_iter().map(|path| (!visible.is_empty(), path)));
            open.clear();
        }
    }
    (paths, rest)
}

/// The modules of the crate, and what each imports under another name.
struct Modules<'a> {
    /// The file of each module.
    files: BTreeMap<String, &'a str>,
    /// For each module the paths that its imported names stand for.
    names: BTreeMap<String, BTreeMap<String, String>>,
}

impl<'a> Modules<'a> {
    fn new(sources: &'a BTreeMap<String, String>) -> Self {
        let files = sources.keys().map(|file| (path_of(file), file.as_str())).collect();
        let mut modules = Self { files, names: BTreeMap::new() };
        for (file, code) in sources {
            let module = path_of(file);
            let named = imported(code).0.into_iter().filter_map(|(_, path)| {
                let (path, name) = path.split_once(" as ").unwrap_or((&path, path.rsplit("::").next()?));
                Some((name.to_owned(), modules.absolute(&module, path)?))
            });
            let named = named.collect();
            modules.names.insert(module, named);
        }
        modules
    }

    /// A path as a module writes it, from the crate's root; None if it leads to another crate or begins with an
    /// imported name.
    fn absolute(&self, module: &str, path: &str) -> Option<String> {
        let path = path.trim_end_matches("::self").trim_end_matches("::*");
        if path == "crate" || path.starts_with("crate::") {
            return Some(path.to_owned());
        }
        if let Some(rest) = path.strip_prefix("self::") {
            return Some(format!("{module}::{rest}"));
        }
        if let Some(rest) = path.strip_prefix("super") {
            let parent = module.rsplit_once("::")?.0;
            let rest = rest.trim_start_matches("::");
            return if rest.starts_with("super") {
                self.absolute(parent, rest)
            } else {
                Some(format!("{parent}::{rest}"))
            };
        }
        let child = format!("{module}::{}", path.split("::").next()?);
        self.files.contains_key(&child).then(|| format!("{module}::{path}"))
    }

    /// The file with the item to which a path leads, through all modules that only re-export it.
    fn home(&self, path: &str) -> Option<&'a str> {
        let is_module = |end: &usize| self.files.contains_key(&path[..*end]);
        let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        let end = ends.filter(is_module).max()?;
        let (module, rest) = path.split_at(end);
        let name = rest.split("::").nth(1).unwrap_or_default();
        match self.names[module].get(name) {
            Some(other) => self.home(other),
            None => Some(self.files[module]),
        }
    }
}

/// For each file the others that it uses. Declaring a child, or re-exporting from it, does not count.
fn uses(sources: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules = Modules::new(sources);
    let of_file = |(file, code): (&'_ String, &String)| {
        let (imports, rest) = imported(code);
        let words: Vec<&str> = rest.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).collect();
        let has = |name: &str| words.iter().any(|word| word.split("::").next() == Some(name));
        let imports = imports.iter().filter(|(is_public, path)| !is_public || has(path.rsplit("::").next().unwrap()));
        let paths = imports.map(|(_, path)| path.split(" as ").next().unwrap());
        let inline = words.iter().filter(|word| word.contains("::")).copied();
        let paths = paths.chain(inline).filter_map(|path| modules.absolute(&path_of(file), path));
        paths.filter_map(|path| modules.home(&path)).filter(|other| other != file).collect()
    };
    sources.iter().map(|one| (one.0.as_str(), of_file(one))).collect()
}

/// The shortest way from a file back to itself, beginning with the first of its files.
fn circle(start: &str, uses: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(mut way) = ways.pop_front() {
        let next = &uses[way.last()?];
        if next.contains(start) {
            let first = (0..way.len()).min_by_key(|at| way[*at])?;
            way.rotate_left(first);
            return Some(way.join(" -> "));
        }
        ways.extend(next.iter().filter(|file| seen.insert(**file)).map(|file| [way.as_slice(), &[*file]].concat()));
    }
    None
}

fn circles(sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    let uses = uses(sources);
    uses.keys().filter_map(|file| circle(file, &uses)).collect()
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
fn no_file_imports_in_a_circle() {
    assert_eq!(circles(&sources()), BTreeSet::new());
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
        for name in
            SECRET_TYPES.iter().flat_map(|(_, types)| *types).filter(|name| !["Carried", "SecretSource"].contains(name))
        {
            for telling in ["Debug", "Display", "Serialize"] {
                assert!(!code.contains(&format!("{telling} for {name} ")), "{file}: {telling} for {name}");
            }
        }
    }
}

/// The traits that a type derives.
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
    for tests in ["mod", "pub mod"] {
        assert_eq!(code(&format!("a\n#[cfg(test)]\n{tests} tests {{\n b")), "a");
    }
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(file, code)| ((*file).to_owned(), (*code).to_owned())).collect();
        circles(&files).into_iter().collect::<Vec<_>>()
    };
    let parent = ("a/mod.rs", "mod b;\nmod c;\npub use b::{Bee,\n  Bees as Many};\n");
    for (of_b, of_c, found) in [
        ("use super::c;", "use super::b::Bee;", vec!["a/b.rs -> a/c.rs"]),
        ("use super::{\n    c::{self, See},\n};", "use crate::a::Many;", vec!["a/b.rs -> a/c.rs"]),
        ("fn b() { super::c::see() }", "use std::io;\ntype C = crate::a::Bee;", vec!["a/b.rs -> a/c.rs"]),
        ("use super::c::See;", "use super::super::d::Dee;", vec![]),
        ("use super::c::See;", "use super::Own;", vec![]),
    ] {
        assert_eq!(circles(&[parent, ("a/b.rs", of_b), ("a/c.rs", of_c), ("d.rs", "")]), found, "{of_b} {of_c}");
    }
    let child = ("a/b.rs", "use super::Own;");
    for (of_parent, is_circle) in [
        ("mod b;\npub use b::Bee;\nstruct Own;", false),
        ("mod b;\npub use b::Bee;\nstruct Own(Bee);", true),
        ("mod b;\nuse b::Bee;", true),
        ("mod b;\nfn own() { b::bee() }", true),
        ("mod b;\nfn own() { self::b::bee() }", true),
        ("mod b;\nfn own() { c::bee() }", false),
    ] {
        assert_eq!(circles(&[("a/mod.rs", of_parent), child]).len(), usize::from(is_circle), "{of_parent}");
    }
}
