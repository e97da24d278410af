//! What goes to the log: `LEVEL`, and `TARGET=LEVEL` for what comes from single modules, separated by commas.

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::words;

const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
    ("off", LevelFilter::OFF),
];

/// A level that stands alone: it is for postkey, as libraries say little that helps at their lower levels.
pub fn of_level(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("postkey", level)
}

/// Reads a filter.
///
/// # Errors
///
/// What is wrong with it, and how to write it.
pub fn read(text: &str) -> Result<Targets, String> {
    if !text.contains([',', '=']) {
        return level(text).map(of_level);
    }
    text.split(',').try_fold(Targets::new(), |filter, directive| {
        let Some((target, of_target)) = directive.split_once('=') else {
            return Ok(filter.with_default(level(directive)?));
        };
        let target = target.trim();
        if !is_target(target) {
            return Err(format!(
                "\"{target}\" is no name of a module; write something like \"warn,postkey::oauth=debug\""
            ));
        }
        Ok(filter.with_target(target, level(of_target)?))
    })
}

/// Not as LevelFilter reads itself: it takes an empty text, and numbers.
fn level(text: &str) -> Result<LevelFilter, String> {
    let word = text.trim();
    let level = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let refusal = || format!("\"{word}\" is no level; {}", words::did_you_mean(word, &LEVELS.map(|(name, _)| name)));
    level.map(|(_, level)| *level).ok_or_else(refusal)
}

/// Whether this can be the path of a module.
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::read;

    #[test]
    fn a_level_alone_is_for_postkey_and_a_list_is_what_it_says() {
        for (text, expected) in [
            ("info", "warn,postkey=info"),
            (" Trace ", "warn,postkey=trace"),
            ("error", "error,postkey=error"),
            ("off", "off,postkey=off"),
            ("warn, postkey::oauth = debug", "warn,postkey::oauth=debug"),
            ("dialogue=trace", "dialogue=trace"),
            ("postkey=info,off", "off,postkey=info"),
        ] {
            assert_eq!(read(text), Ok(expected.parse().unwrap()), "{text}");
        }
        assert_eq!(read("dialogue=trace").unwrap().default_level(), None::<LevelFilter>);
    }

    #[test]
    fn what_would_silence_the_log_by_a_slip_is_refused() {
        for (text, expected) in [
            ("", "\"\" is no level; known are"),
            ("inof", "\"inof\" is no level; did you mean \"info\"?"),
            ("postkey", "\"postkey\" is no level; known are"),
            ("warn,postkey=", "\"\" is no level"),
            ("warn,postkey=dbug", "\"dbug\" is no level; did you mean \"debug\"?"),
            ("warn,,postkey=debug", "\"\" is no level"),
            ("a=b=c", "\"b=c\" is no level"),
            ("=info", "\"\" is no name of a module"),
            ("warn, é[[=info", "\"é[[\" is no name of a module"),
            ("postkey[{user}]=info", "\"postkey[{user}]\" is no name of a module"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
