//! The provider of an address: found by itself, named on the command line, or chosen by a person.

use std::io::IsTerminal as _;

use super::super::terminal::{Input, complain, say};
use crate::authorization::by_address;
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::net::mx::MailExchangers;

/// Returns the name of an address's provider, and shows how it was found. `named` comes from the command line.
pub async fn find(config: &Config, address: &str, named: Option<&str>, input: &mut Input) -> Result<String, Failed> {
    if let Some(name) = named {
        return match config.providers.contains_key(name) {
            true => Ok(name.to_owned()),
            false => Err(unknown(&format!("there is no provider {name}"), config)),
        };
    }
    match by_address(config, address, &MailExchangers::system()).await {
        Some((name, how)) => {
            say(format_args!("The provider of {address} is {name}: {how}.\n"));
            Ok(name)
        }
        None if std::io::stdin().is_terminal() => choose(config, address, input).await,
        None => Err(unknown(&format!("neither the domain nor its MX records show the provider of {address}"), config)),
    }
}

fn unknown(why: &str, config: &Config) -> Failed {
    let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
    let known = known.join(", ");
    let advice = "describe it in the configuration, or choose one with `--provider`";
    Failed::new(Exit::Usage, format!("{why}; {advice}: {known}"))
}

/// Lets a person choose from a list.
async fn choose(config: &Config, address: &str, input: &mut Input) -> Result<String, Failed> {
    say(format_args!("The provider of {address} is unknown. Which one is it?\n"));
    for (number, name) in (1..).zip(config.providers.keys()) {
        say(format_args!("  {number:2}  {name}"));
    }
    say("\nIf it is not in the list, describe it in the configuration. Number or name:");
    while let Some(line) = input.line().await {
        match chosen(config, &String::from_utf8_lossy(line.expose())) {
            Some(name) => return Ok(name),
            None => complain(format_args!("enter a number from 1 to {}, or a name", config.providers.len())),
        }
    }
    Err(unknown("no provider was chosen", config))
}

fn chosen(config: &Config, answer: &str) -> Option<String> {
    let answer = answer.trim();
    let mut names = config.providers.keys();
    match answer.parse::<usize>() {
        Ok(number) => names.nth(number.checked_sub(1)?).cloned(),
        Err(_) => names.find(|name| name.eq_ignore_ascii_case(answer)).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::environment::Environment;

    fn config(text: &str) -> Config {
        let environment = Environment { home: Some("/".into()), ..Environment::default() };
        Config::parse(text, Path::new("postkey.toml"), &environment).unwrap()
    }

    #[test]
    fn a_person_chooses_by_number_or_name() {
        let config = config("");
        let first = config.providers.keys().next().unwrap();
        assert_eq!(chosen(&config, " 1 ").as_ref(), Some(first));
        assert_eq!(chosen(&config, "Google"), Some("google".to_owned()));
        let last = config.providers.len();
        assert_eq!(chosen(&config, &last.to_string()).as_ref(), config.providers.keys().last());
        for nothing in ["0", "", "-1", "x", &(last + 1).to_string()] {
            assert_eq!(chosen(&config, nothing), None, "{nothing:?}");
        }
    }
}
