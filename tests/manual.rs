//! The man pages describe what exists, no less and no more: every command, option, exit code, key and provider.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Arg, Command};
use postkey::config::Config;
use postkey::config::environment::Environment;

const PROGRAM: &str = include_str!("../docs/man/postkey.1");
const CONFIGURATION: &str = include_str!("../docs/man/postkey.toml.5");

/// The sections of postkey.toml(5), and the beginnings of the tables whose keys they describe.
const TABLES: [(&str, &str); 9] = [
    ("TOP LEVEL", ""),
    ("WEB", "[web]\n"),
    ("VAULT", "[vault]\n"),
    ("LISTENERS", "[[listener]]\n"),
    ("PROVIDERS", "[provider.x]\n"),
    ("ASSERTIONS", "[provider.x.assertion]\n"),
    ("MAIL SERVERS", "[provider.x.smtp]\n"),
    ("ACCOUNTS", "[account.\"a@b\"]\n"),
    ("SECRETS", "[provider.x.client_secret]\n"),
];

/// The text of every list item of a page (mdoc(7)), by what it belongs to and by its head. An option belongs to its
/// command, everything else to its section.
fn items(page: &str) -> BTreeMap<(String, String), String> {
    let mut items = BTreeMap::<_, String>::new();
    let (mut section, mut command, mut place) = (String::new(), String::new(), None);
    for line in page.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            (".Sh", title) => (section, command, place) = (title.to_owned(), String::new(), None),
            (".It", head) => {
                let is_option = head.starts_with("Fl ");
                if head.starts_with("Cm ") {
                    command = head.to_owned();
                }
                let under = if is_option && !command.is_empty() { &command } else { &section };
                place = Some((under.clone(), head.to_owned()));
            }
            _ => {}
        }
        if let Some(place) = &place {
            items.entry(place.clone()).or_default().extend([line, "\n"]);
        }
    }
    items
}

fn under(page: &str, section: &str) -> BTreeSet<String> {
    items(page).into_keys().filter(|(place, _)| place == section).map(|(_, head)| head).collect()
}

/// The form of an argument in the head of an item.
fn placeholder(argument: &Arg) -> String {
    argument.get_value_names().unwrap_or_default().join(" ")
}

/// The form of an option in the head of its item.
fn option_head(option: &Arg) -> String {
    let name = format!("Fl -{}", option.get_long().unwrap());
    if option.get_action().takes_values() { format!("{name} Ar {}", placeholder(option)) } else { name }
}

/// The form of a command in the head of its item.
fn command_head(path: &str, command: &Command) -> String {
    let arguments: Vec<String> = command.get_positionals().map(placeholder).collect();
    let optional = if command.get_positionals().any(Arg::is_required_set) { "" } else { " Op" };
    let arguments = if arguments.is_empty() { String::new() } else { format!("{optional} Ar {}", arguments.join(" ")) };
    format!("Cm {path}{arguments}")
}

/// All commands that can be run, each with its path.
fn commands(parent: &Command, path: &str) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for command in parent.get_subcommands() {
        let path = format!("{path} {}", command.get_name()).trim_start().to_owned();
        match command.has_subcommands() {
            true => found.extend(commands(command, &path)),
            false => found.push((path, command.clone())),
        }
    }
    found
}

/// Every command and option: what it belongs to in postkey(1), its head, and the argument itself.
fn expected() -> Vec<(String, String, Vec<Arg>)> {
    let program = postkey::cli::command();
    let mut expected = Vec::new();
    // The options of `authorize` are also allowed with `--authorize`, and are described once.
    let authorize: Vec<&str> =
        program.find_subcommand("authorize").unwrap().get_opts().filter_map(Arg::get_long).collect();
    let is_new = |option: &&Arg| option.get_long().is_some_and(|long| !authorize.contains(&long));
    for option in program.get_arguments().filter(is_new) {
        expected.push(("OPTIONS".to_owned(), option_head(option), vec![option.clone()]));
    }
    for (path, command) in commands(&program, "") {
        let head = command_head(&path, &command);
        expected.push(("COMMANDS".to_owned(), head.clone(), command.get_positionals().cloned().collect()));
        for option in command.get_arguments().filter(|argument| !argument.is_positional()) {
            expected.push((head.clone(), option_head(option), vec![option.clone()]));
        }
    }
    expected
}

#[test]
fn every_command_and_option_is_in_the_manual_and_no_other() {
    let items = items(PROGRAM);
    let built_in = ["Fl h , Fl -help", "Fl V , Fl -version"].map(|head| ("OPTIONS".to_owned(), head.to_owned()));
    let expected: BTreeSet<_> = expected().into_iter().map(|(place, head, _)| (place, head)).chain(built_in).collect();
    let is_about_arguments =
        |(place, _): &&(String, String)| place == "OPTIONS" || place == "COMMANDS" || place.starts_with("Cm ");
    let shown: BTreeSet<_> = items.keys().filter(is_about_arguments).cloned().collect();
    assert!(expected.len() > 15, "only {expected:?}");
    assert_eq!(shown, expected);
}

#[test]
fn defaults_and_choices_are_in_the_manual() {
    let items = items(PROGRAM);
    let mut count = 0;
    for (place, head, arguments) in expected() {
        for argument in arguments.iter().filter(|argument| argument.get_action().takes_values()) {
            let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
            let choices = argument.get_possible_values();
            for word in defaults.chain(choices.iter().map(|choice| choice.get_name().to_owned())) {
                let text = &items[&(place.clone(), head.clone())];
                assert!(text.split_whitespace().any(|part| part == word), "{head}: {word} is missing in {text}");
                count += 1;
            }
        }
    }
    assert!(count >= 5, "only {count}");
}

#[test]
fn every_exit_code_is_in_the_manual() {
    let help = postkey::cli::command().get_after_help().unwrap().to_string();
    let codes = help.split(|c: char| !c.is_ascii_digit()).filter(|code| !code.is_empty()).map(str::to_owned);
    let codes: BTreeSet<String> = codes.collect();
    assert!(codes.len() > 8, "only {codes:?}");
    assert_eq!(under(PROGRAM, "EXIT STATUS"), codes);
}

fn read(text: &str) -> Result<Config, Vec<String>> {
    let environment = Environment { home: Some("/".into()), ..Environment::default() };
    let mistakes = |mistakes: Vec<_>| mistakes.iter().map(ToString::to_string).collect();
    Config::parse(text, Path::new("postkey.toml"), &environment).map_err(mistakes)
}

/// The keys of a table, as the message about an unknown key lists them.
fn known_keys(table: &str) -> BTreeSet<String> {
    let mistakes = read(&format!("{table}zzzzzzzzzz = 1\n")).unwrap_err();
    let listing = mistakes.iter().find_map(|mistake| mistake.split_once("unknown key; known are ")).unwrap().1;
    listing.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_in_the_manual_and_no_other() {
    for (section, table) in TABLES {
        let has_section = |key: &String| TABLES[1..].iter().any(|(_, table)| table.contains(&format!("[{key}")));
        let mut known = known_keys(table);
        if table.is_empty() {
            known.retain(|key| !has_section(key));
        }
        let heads = under(CONFIGURATION, section);
        let shown = heads.iter().flat_map(|head| head.trim_start_matches("Ic ").split(" , "));
        assert_eq!(shown.map(str::to_owned).collect::<BTreeSet<_>>(), known, "{section}");
    }
}

#[test]
fn every_provider_is_in_the_manual() {
    for name in read("").unwrap().providers.keys() {
        let line = format!(".Li {name}");
        let is_shown = CONFIGURATION.lines().any(|shown| shown.trim_end_matches([' ', ',', '.']) == line);
        assert!(is_shown, "{name} is not in postkey.toml(5)");
    }
}

/// The literal displays of a page.
fn displays(page: &str) -> Vec<&str> {
    let parts = page.split(".Bd -literal -offset indent\n").skip(1);
    parts.filter_map(|part| part.split(".Ed").next()).collect()
}

#[test]
fn the_examples_are_right() {
    let examples = displays(CONFIGURATION);
    assert_eq!(examples.len(), 3);
    for example in examples {
        assert_eq!(read(example).map(drop), Ok(()), "{example}");
    }
    let single = PROGRAM.lines().filter_map(|line| line.strip_prefix(".Dl "));
    let commands: Vec<&str> = displays(PROGRAM).iter().flat_map(|display| display.lines()).chain(single).collect();
    assert_eq!(commands.len(), 5);
    for command in commands {
        assert!(postkey::cli::understands(command.split_whitespace().map(Into::into)), "{command}");
    }
}
