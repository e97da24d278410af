//! What the unit files say is true for the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postkey::config::Config;
use postkey::config::environment::Environment;

/// All unit files.
fn units() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut units = Vec::new();
    for folder in [folder.clone(), folder.join("user")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = std::fs::read_to_string(&path).unwrap();
                units.push((path, text));
            }
        }
    }
    assert_eq!(units.len(), 9, "{units:?}");
    units
}

/// The values of a key.
fn values<'a>(unit: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn the_units_run_commands_that_exist() {
    let mut count = 0;
    for (path, unit) in units() {
        for command in values(&unit, "ExecStart").chain(values(&unit, "ExecReload")) {
            let words = command.split_whitespace().map(Into::into);
            assert!(postkey::cli::understands(words), "{}: {command}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_sockets_are_those_of_the_default_configuration() {
    let environment = Environment { home: Some("/".into()), ..Default::default() };
    let config = Config::parse("", Path::new("none"), &environment).unwrap();
    let ports = |listener: &postkey::config::ListenerConfig| {
        let protocol = listener.protocol.name();
        listener.addresses.iter().map(|address| (protocol.to_owned(), address.to_string())).collect::<Vec<_>>()
    };
    let wanted: BTreeSet<_> = config.listeners.iter().flat_map(ports).collect();
    for user in [false, true] {
        let mut found = BTreeSet::new();
        for (path, unit) in units() {
            if path.extension().is_some_and(|kind| kind == "socket") && path.parent().unwrap().ends_with("user") == user
            {
                let name = values(&unit, "FileDescriptorName").next().unwrap();
                found.extend(values(&unit, "ListenStream").map(|address| (name.to_owned(), address.to_owned())));
            }
        }
        assert_eq!(found, wanted);
    }
}

#[test]
fn what_a_restart_does_not_help_is_not_restarted() {
    use postkey::exit::Exit;
    let codes = format!("{} {}", Exit::Usage as u8, Exit::Config as u8);
    for (path, unit) in units().into_iter().filter(|(path, _)| path.extension().is_some_and(|kind| kind == "service")) {
        assert_eq!(values(&unit, "RestartPreventExitStatus").collect::<Vec<_>>(), [&*codes], "{}", path.display());
        assert_eq!(values(&unit, "Type").collect::<Vec<_>>(), ["notify"]);
    }
}
