//! Lists of names, and suggestions, for messages.

/// The name that `word` probably means.
pub fn suggest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    // One typing error in three letters. With more, it is another word.
    let limit = (word.chars().count() / 3).max(1);
    let distance = |name: &&str| strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &name.to_ascii_lowercase());
    names.iter().map(|name| (distance(name), *name)).filter(|(far, _)| *far <= limit).min().map(|(_, name)| name)
}

/// `did you mean "a"?`, or else all names.
pub fn did_you_mean(word: &str, names: &[&str]) -> String {
    match suggest(word, names) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known are {}", listing(names, "and")),
    }
}

/// `"a", "b" or "c"`, with this conjunction.
pub fn listing(names: &[&str], conjunction: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
        None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognized_and_another_word_is_not() {
        let names = ["address", "certificate", "key", "ca_file"];
        assert_eq!(suggest("adress", &names), Some("address"));
        assert_eq!(suggest("Certifcate", &names), Some("certificate"));
        assert_eq!(suggest("kye", &names), Some("key"));
        assert_eq!(suggest("port", &names), None);
    }

    #[test]
    fn a_listing_reads_like_a_sentence() {
        assert_eq!(listing(&["a"], "or"), r#""a""#);
        assert_eq!(listing(&["a", "b", "c"], "or"), r#""a", "b" or "c""#);
    }
}
