//! What the documentation tells people to type is what the program takes. The settings of mail programs in
//! docs/guide/mail-programs.md are run with these programs by tests/real.

use std::path::{Path, PathBuf};

use postkey::config::Config;
use postkey::config::environment::Environment;

/// Every Markdown file of the project.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The code blocks of this language in all documents, each with where it is.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        let fence = format!("```{language}\n");
        for block in text.split(fence.as_str()).skip(1) {
            let block = block.split("```").next().unwrap_or_default().to_owned();
            blocks.push((path.display().to_string(), block));
        }
    }
    blocks
}

#[test]
fn every_command_in_a_document_is_one() {
    let mut count = 0;
    for (path, block) in blocks("sh") {
        for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(is_command(line), "{path}: {line}");
            count += 1;
        }
    }
    assert!(count >= 15, "the README alone has as many");
}

/// A program that `cargo build --example` makes.
fn is_example(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    include_str!("../Cargo.toml").contains(&format!("[[example]]\nname = {name:?}"))
}

/// Whether postkey's part of a line is right. Another program's is as far as it names what is in the project.
fn is_command(line: &str) -> bool {
    // What a shell runs inside of another command, or before a pipe.
    let inner = line.split_once("$(").and_then(|(_, rest)| rest.split_once(')')).map_or(line, |(inner, _)| inner);
    let words: Vec<&str> = inner.split_whitespace().take_while(|word| *word != "|").collect();
    match words.as_slice() {
        ["podman", "exec", "--interactive", "--tty", "postkey", command @ ..] => is_command(&command.join(" ")),
        ["postkey" | "target/release/postkey", ..] => postkey::cli::understands(words.iter().map(Into::into)),
        ["cargo", "run", "--example", name, ..] => Path::new("examples").join(name).with_extension("rs").exists(),
        ["cargo", "build" | "test" | "deb", ..] | ["cargo", "install", "--locked", "cargo-deb"] => true,
        ["rustup", "target", "add", _] => true,
        ["apt", "install", package] => {
            *package == concat!("./target/debian/postkey_", env!("CARGO_PKG_VERSION"), "-1_amd64.deb")
        }
        ["podman", "build", .., folder] => Path::new(folder).join("Containerfile").exists(),
        ["podman", "run", options @ .., "postkey"] => {
            let volume = std::fs::read_to_string("Containerfile").unwrap();
            let volume = volume.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap().to_owned();
            options.contains(&format!("postkey:{volume}").as_str())
        }
        ["systemctl", rest @ ..] => names_units(rest),
        ["systemd-sysusers"] => true,
        ["journalctl", fields @ ..] => fields.iter().all(|field| is_logged(field)),
        ["install", "-D", "--mode=644", files @ ..] => installs_files(files),
        ["curl", url] => is_monitoring(url),
        [built, ..] if built.starts_with("target/release/examples/") => is_example(built),
        [script, ..] => Path::new(script).is_file(),
        [] => true,
    }
}

/// What the port for monitoring serves.
fn is_monitoring(url: &str) -> bool {
    let source = source("web/monitoring.rs");
    let path = url.strip_prefix("http://127.0.0.1:9143").unwrap_or_default();
    !path.is_empty() && source.contains(&format!("route(\"{path}\""))
}

/// A field of the journal that the program writes, or a filter by unit.
fn is_logged(field: &str) -> bool {
    match field.split_once('=') {
        Some(("--unit", unit)) => unit == "postkey",
        Some(("MESSAGE_ID", id)) => source("broker/refresh.rs").contains(&format!("PERSON_NEEDED: &str = \"{id}\"")),
        Some((name, _)) => source("session.rs").contains(&format!("{} =", name.to_lowercase())),
        None => false,
    }
}

fn source(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap()
}

/// What is installed is in the project; the last word may be the target.
fn installs_files(words: &[&str]) -> bool {
    let files: Vec<_> = words.iter().filter(|word| !word.starts_with('-') && !word.starts_with('/')).collect();
    !files.is_empty() && files.iter().all(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file())
}

/// Units that the project has.
fn names_units(words: &[&str]) -> bool {
    let folder = if words.contains(&"--user") { "systemd/user" } else { "systemd" };
    let units = words.iter().filter(|word| word.contains('.'));
    units.clone().all(|unit| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(unit).is_file())
        && (units.count() > 0 || words == ["daemon-reload"])
}

#[test]
fn every_configuration_in_a_document_is_right() {
    for (path, block) in blocks("toml") {
        let environment = Environment { home: Some("/".into()), ..Default::default() };
        let mistakes = Config::parse(&block, Path::new(&path), &environment).err().unwrap_or_default();
        assert!(mistakes.is_empty(), "{}", mistakes.iter().map(|it| format!("{it}\n")).collect::<String>());
    }
}

#[test]
fn every_link_to_a_file_leads_to_one() {
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in
            text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
        {
            let target = path.parent().unwrap().join(link.split('#').next().unwrap_or_default());
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}

/// Whether a test, a file or a transcript that a page names is there; None for what names none of them.
fn is_there(named: &str) -> Option<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some((module, test)) = named.split_once("::") {
        let source = std::fs::read_to_string(root.join(format!("tests/end_to_end/{module}.rs"))).ok()?;
        return Some(source.contains(&format!("fn {}", test.trim_end_matches('.'))));
    }
    if named.contains('*') {
        return None;
    }
    if named.ends_with(".txt") {
        return Some(
            ["imap", "pop3", "smtp"].iter().any(|it| root.join("tests/transcripts").join(it).join(named).exists()),
        );
    }
    let is_path = ["tests/", "src/"].iter().any(|start| named.starts_with(start));
    is_path.then(|| root.join(named).exists())
}

/// A threat without its test is a promise.
#[test]
fn the_tests_that_stand_against_threats_and_bugs_are_there() {
    for page in [include_str!("../docs/design/threat-model.md"), include_str!("../docs/design/past-bugs.md")] {
        let named: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
        let judged: Vec<(&str, bool)> = named.iter().filter_map(|name| Some((*name, is_there(name)?))).collect();
        assert!(judged.len() > 20, "{judged:?}");
        assert!(judged.iter().all(|(_, is_there)| *is_there), "{judged:?}");
    }
}
