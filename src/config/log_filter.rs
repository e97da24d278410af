//! The filter of the log: a list of `LEVEL`, and of `TARGET=LEVEL` for single modules, separated by commas.

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

/// The filter of a single level. It applies to postkey, because libraries log little that helps below warnings.
pub fn of_level(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("postkey", level)
}

/// Reads a filter. The error says how to write it.
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
                "\"{target}\" is not the name of a module; write something like \"warn,postkey::oauth=debug\""
            ));
        }
        Ok(filter.with_target(target, level(of_target)?))
    })
}

/// `LevelFilter` cannot read it, because that also accepts an empty text and numbers.
fn level(text: &str) -> Result<LevelFilter, String> {
    let word = text.trim();
    let level = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let refusal = || format!("\"{word}\" is not a level; {}", words::did_you_mean(word, &LEVELS.map(|(name, _)| name)));
    level.map(|(_, level)| *level).ok_or_else(refusal)
}

/// Whether this can be a module's path.
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::read;

    #[test]
    fn a_single_level_applies_to_postkey_and_a_list_is_taken_literally() {
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
    fn a_typing_error_that_would_silence_the_log_is_refused() {
        for (text, expected) in [
            ("", "\"\" is not a level; known are"),
            ("inof", "\"inof\" is not a level; did you mean \"info\"?"),
            ("postkey", "\"postkey\" is not a level; known are"),
            ("warn,postkey=", "\"\" is not a level"),
            ("warn,postkey=dbug", "\"dbug\" is not a level; did you mean \"debug\"?"),
            ("warn,,postkey=debug", "\"\" is not a level"),
            ("a=b=c", "\"b=c\" is not a level"),
            ("=info", "\"\" is not the name of a module"),
            ("warn, é[[=info", "\"é[[\" is not the name of a module"),
            ("postkey[{user}]=info", "\"postkey[{user}]\" is not the name of a module"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
