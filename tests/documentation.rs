//! The program accepts what the documentation tells people to type. tests/real runs real mail programs with the settings that
//! `postkey settings` shows.

use std::path::{Path, PathBuf};

use postkey::config::Config;
use postkey::config::environment::Environment;

/// Every Markdown file of the project.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
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

/// The code blocks of this language in all documents, each with its place.
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

/// Whether postkey's part of a line is right. For other programs, whether what they name of the project exists.
fn is_command(line: &str) -> bool {
    // A command that the shell runs inside another command, or before a pipe.
    let inner = line.split_once("$(").and_then(|(_, rest)| rest.split_once(')')).map_or(line, |(inner, _)| inner);
    // What is in quotes is one word.
    let parts = inner.split('\'').enumerate();
    let words =
        parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect::<Vec<_>>() });
    let words: Vec<&str> = words.take_while(|word| !["|", ">"].contains(word)).collect();
    match words.as_slice() {
        ["podman", "exec", "--interactive", "--tty", "postkey", command @ ..]
        | ["podman", "exec", "cluster_one_1", command @ ..] => is_command(&command.join(" ")),
        ["postkey" | "target/release/postkey", ..] => postkey::cli::understands(words.iter().map(Into::into)),
        ["cargo", "run", "--example", name, ..] => Path::new("examples").join(name).with_extension("rs").exists(),
        ["cargo", "build" | "clippy" | "fmt" | "test", ..] | ["cargo", "install", "--locked", "--path", "."] => true,
        ["apk", "add", ..] | ["addgroup" | "adduser", .., "postkey"] => true,
        ["rc-update", "add", "postkey"] | ["rc-service", "postkey", "start"] => true,
        ["rustup", "target", "add", _] => true,
        ["apt", "install", package] => {
            *package == concat!("./target/debian/postkey_", env!("CARGO_PKG_VERSION"), "-1_amd64.deb")
        }
        ["dnf", "install", package] => {
            *package == concat!("./target/generate-rpm/postkey-", env!("CARGO_PKG_VERSION"), "-1.x86_64.rpm")
        }
        ["podman", "build", .., folder] => Path::new(folder).join("Containerfile").exists(),
        ["podman", "run", options @ .., "postkey"] => {
            let volume = std::fs::read_to_string("Containerfile").unwrap();
            let volume = volume.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap().to_owned();
            options.contains(&format!("postkey:{volume}").as_str())
        }
        ["haproxy", "-c", "-f", file] => Path::new(file).is_file(),
        ["podman", "healthcheck", "run", "postkey"] | ["kubectl", "create", "namespace" | "secret", ..] => true,
        ["podman-compose", "--file", file, ..] | ["kubectl", "apply", "--filename", file] => Path::new(file).is_file(),
        ["kubectl", "exec", options @ ..] => {
            let (_, command) = inner.split_once(" -- ").unwrap_or_default();
            options.contains(&"postkey-0") && is_command(command)
        }
        ["systemctl", rest @ ..] => names_units(rest),
        ["systemd-sysusers"] | ["systemd-creds", "encrypt", ..] => true,
        ["journalctl", fields @ ..] => fields.iter().all(|field| is_logged(field)),
        ["install", "-D", "--mode=644", files @ ..] => installs_files(files),
        ["install", "-D", "-m", "644", file, _] | ["install", "-m", "755", file, _] => Path::new(file).is_file(),
        ["install", "target/release/postkey", target] => units_run(target),
        ["curl", url] => is_monitoring(url),
        [built, ..] if built.starts_with("target/release/examples/") => is_example(built),
        [script, ..] => Path::new(script).is_file(),
        [] => true,
    }
}

/// The paths that the port for monitoring serves.
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

/// The installed files are in the project; the last word may be the target.
fn installs_files(words: &[&str]) -> bool {
    let files: Vec<_> = words.iter().filter(|word| !word.starts_with('-') && !word.starts_with('/')).collect();
    !files.is_empty() && files.iter().all(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file())
}

/// Both units run the program at this path.
fn units_run(path: &str) -> bool {
    let runs = |unit: &str| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(unit)).unwrap();
        text.lines().any(|line| line.split(' ').next() == Some(&*format!("ExecStart={path}")))
    };
    runs("systemd/postkey.service") && runs("systemd/user/postkey.service")
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

/// Whether a test, a file or a transcript that a page names exists; None for words that name none of them.
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

/// A threat without a test is a promise.
#[test]
fn the_tests_that_stand_against_threats_and_bugs_are_there() {
    for page in [include_str!("../docs/design/threat-model.md"), include_str!("../docs/design/past-bugs.md")] {
        let named: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
        let judged: Vec<(&str, bool)> = named.iter().filter_map(|name| Some((*name, is_there(name)?))).collect();
        assert!(judged.len() > 20, "{judged:?}");
        assert!(judged.iter().all(|(_, is_there)| *is_there), "{judged:?}");
    }
}

/// The documents that claim something about security, and name the test for each claim.
const CLAIMS: [&str; 3] = ["docs/SECURITY.md", "docs/design/threat-model.md", "docs/design/past-bugs.md"];

/// All files below a folder, by their paths in the project.
fn files(folder: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true if path.ends_with("node_modules") || path.ends_with("environments") => {}
                true => folders.push(path),
                false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found
}

/// Every test as `path/of/its/module::name`, without `.rs`.
fn tests() -> Vec<String> {
    let sources = files("tests").into_iter().chain(files("src")).filter(|path| path.ends_with(".rs"));
    sources
        .flat_map(|path| {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
            let place = path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
            let behind = text.split("test").skip(1).filter_map(|after| after.split_once("fn "));
            let names =
                behind.filter(|(between, _)| between.len() < 200).filter_map(|(_, name)| name.split('(').next());
            names.map(|name| format!("{place}::{name}")).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether `module::begin_..`, a path or a pattern such as `upstream-*` names something that exists.
fn exists(named: &str, tests: &[String], files: &[String]) -> bool {
    let pieces: Vec<&str> = named.trim_end_matches("..").trim_end_matches('_').split('*').collect();
    let fits = |text: &str| {
        let mut rest = Some(text);
        for piece in &pieces {
            rest = rest.and_then(|rest| Some(&rest[rest.find(piece)? + piece.len()..]));
        }
        rest.is_some()
    };
    match named.contains("::") {
        true => tests.iter().any(|test| fits(test)),
        false => files.iter().any(|file| fits(file)),
    }
}

/// Checks what is in backquotes in a table's column for tests, or in a line of a list that begins with "Test:".
#[test]
fn every_test_that_holds_a_claim_exists() {
    let (tests, files) = (tests(), files("tests").into_iter().chain(files("src")).collect::<Vec<_>>());
    let mut count = 0;
    for document in CLAIMS {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        let rows = text.lines().filter(|line| line.starts_with('|'));
        for named in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            let is_test = named.contains("::") || named.ends_with(".rs") || named.ends_with(".txt");
            if is_test && !named.contains(['(', '!', ' ']) {
                assert!(exists(named, &tests, &files), "{document} names a test that does not exist: {named}");
                count += 1;
            }
        }
    }
    assert!(count > 80, "only {count} claims were found");
}

/// A line of the log: its level, its sentence with `{}` for each value, and its fields.
type Line = (String, String, Vec<String>);

/// A sentence with `{}` for each of its values.
fn template(sentence: &str) -> String {
    let mut pieces = sentence.split('{');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + "{}" + piece.split_once('}').expect("a value ends").1)
}

/// The arguments of a macro, up to the parenthesis that closes it.
fn arguments(code: &str) -> Vec<String> {
    let (mut arguments, mut depth, mut is_text, mut is_escaped) = (vec![String::new()], 0, false, false);
    for letter in code.chars() {
        match letter {
            '"' if !is_escaped => is_text = !is_text,
            ',' if !is_text && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            ')' if !is_text && depth == 0 => break,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' | ']' | '}' if !is_text => depth -= 1,
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
        arguments.last_mut().unwrap().push(letter);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).collect()
}

/// What the sources log at the levels that are on by default.
fn logged() -> Vec<Line> {
    let mut lines = Vec::new();
    for path in files("src").into_iter().filter(|path| path.ends_with(".rs")) {
        let source = source(path.strip_prefix("src/").unwrap());
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for level in ["error", "warn", "info"] {
            for call in code.split(&format!("{level}!(")).skip(1) {
                let arguments = arguments(call);
                let at = arguments.iter().position(|argument| argument.starts_with('"')).expect("a sentence");
                let field =
                    |argument: &String| argument.split(" = ").next().unwrap().trim_start_matches(['%', '?']).to_owned();
                let sentence = template(arguments[at].trim_matches('"'));
                let mut fields: Vec<_> = arguments[..at].iter().map(field).collect();
                fields.sort();
                lines.push((level.to_owned(), sentence, fields));
            }
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

/// The same, from the guide's tables.
fn documented() -> Vec<Line> {
    let (_, tables) = include_str!("../docs/guide/monitoring.md").split_once("## All lines of the log").unwrap();
    let rows = tables.lines().filter(|line| line.starts_with("| `"));
    let mut lines: Vec<_> = rows
        .map(|row| {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, sentence, level, fields, _] = columns[..] else { panic!("{row}") };
            let mut fields: Vec<_> = fields.split(", ").filter(|field| !field.is_empty()).map(str::to_owned).collect();
            fields.sort();
            let quotes = if sentence.starts_with("``") { 2 } else { 1 };
            (level.to_owned(), template(&sentence[quotes..sentence.len() - quotes]), fields)
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn every_line_of_the_log_is_in_the_guide_with_its_level_and_fields() {
    let (logged, documented) = (logged(), documented());
    assert!(logged.len() > 50, "{logged:#?}");
    let of_one = |one: &[Line], other: &[Line]| one.iter().filter(|line| !other.contains(line)).cloned().collect();
    let (missing, surplus): (Vec<Line>, Vec<Line>) = (of_one(&logged, &documented), of_one(&documented, &logged));
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "not in the guide: {missing:#?}\nnot in the sources: {surplus:#?}"
    );
}

/// The words in backquotes in a table's column, of all rows below its head.
fn column(table: &str, number: usize) -> Vec<&str> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(number).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// tests/README.md names every module of src and everything in tests, and nothing else.
#[test]
fn the_map_of_the_tests_is_whole_and_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let (modules, places) = text.split_once("## What is here").unwrap();
    let mods =
        include_str!("../src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut mapped = column(modules, 1);
    mapped.sort_unstable();
    assert_eq!(mapped, mods.collect::<Vec<_>>());
    let places = column(places, 1);
    for named in column(modules, 2).iter().chain(&places) {
        assert!(folder.join(named).exists(), "there is no tests/{named}");
    }
    for name in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(places.contains(&&*name) || name == "README.md", "tests/README.md does not name {name}");
    }
}

/// What is in backquotes outside of code blocks.
fn quoted(text: &str) -> Vec<&str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// Whether `cargo test` with these arguments runs tests: the binaries exist, and so does the module or the test.
fn names_tests(arguments: &str, tests: &[String]) -> bool {
    let mut words = arguments.split_whitespace();
    let mut place = "";
    while let Some(word) = words.next() {
        let is_right = match word {
            "--lib" => {
                place = "src/";
                true
            }
            "--test" => {
                place = "tests/";
                words.next().is_some_and(|name| tests.iter().any(|test| test.starts_with(&format!("tests/{name}"))))
            }
            filter => tests.iter().any(|test| test.starts_with(place) && test.contains(filter.trim_end_matches("::"))),
        };
        if !is_right {
            return false;
        }
    }
    true
}

/// Whether a file, or one in a folder, has this word.
fn has(path: &str, word: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = if root.join(path).is_dir() { files(path) } else { vec![path.to_owned()] };
    paths.iter().any(|path| std::fs::read_to_string(root.join(path)).is_ok_and(|text| text.contains(word)))
}

const CONTRIBUTING: &str = include_str!("../CONTRIBUTING.md");

#[test]
fn the_files_and_tests_in_contributing_exist() {
    let (mut count, tests) = (0, tests());
    for named in quoted(CONTRIBUTING) {
        if let Some(arguments) = named.strip_prefix("cargo test") {
            assert!(names_tests(arguments, &tests), "{named} runs no test");
        } else if named.contains('/') {
            let path = named.split(' ').next().unwrap();
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "there is no {path}");
        } else {
            continue;
        }
        count += 1;
    }
    assert!(count > 20, "only {count} were found");
}

#[test]
fn the_recipe_for_a_key_names_all_places_of_the_key_that_it_follows() {
    let (_, recipe) = CONTRIBUTING.split_once("## Recipe: add a configuration key").unwrap();
    let (recipe, _) = recipe.split_once("\n5. ").unwrap();
    let words = quoted(recipe);
    let (key, places) = words.split_first().unwrap();
    assert!(places.len() >= 4, "{places:?}");
    for place in places {
        assert!(has(place, key), "{place} does not have {key}");
    }
}

/// Each word of the glossary has a type, and the type is where the glossary says.
#[test]
fn every_word_of_the_glossary_has_its_type() {
    let mut count = 0;
    for named in
        quoted(include_str!("../docs/design/glossary.md")).into_iter().filter_map(|named| named.split_once(": "))
    {
        let (file, name) = named;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_it =
            |kind| text.contains(&format!("pub {kind} {name}")) || text.contains(&format!("pub(super) {kind} {name}"));
        assert!(["struct", "enum", "trait"].into_iter().any(is_it), "{name} is not in {file}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}
