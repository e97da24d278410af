//! The members of a JSON object, as servers really send it.
//!
//! They are read wherever possible: after a byte order mark, beside text that is not UTF-8, beside a member that is not JSON
//! (`NaN`), and from a body that was cut off.

use serde_json::Value;
use url::{Url, form_urlencoded};

/// A JSON object's members, in their order.
#[derive(Default)]
pub struct Members {
    all: Vec<(String, Value)>,
    /// Whether the object has its end.
    is_whole: bool,
}

impl Members {
    /// Reads the object at the start of a body; None if there is none.
    pub fn read(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let mut rest = text.trim_start_matches('\u{feff}').trim_start().strip_prefix('{')?;
        let mut members = Self::default();
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
            if rest.is_empty() || rest.starts_with('}') {
                members.is_whole = !rest.is_empty();
                return Some(members);
            }
            let member = name(rest).map(|(name, rest)| (name, value(rest)));
            rest = match member {
                Some((name, Some((value, rest)))) => {
                    members.all.push((name, value));
                    rest
                }
                // This value is not JSON, but what follows the next comma may be.
                Some((_, None)) => rest.split_once(',').map_or("", |(_, rest)| rest),
                None => return (!members.all.is_empty() || rest.starts_with('"')).then_some(members),
            };
        }
    }

    /// Reads a body that is a form with one of these members, as servers send it that are older than RFC 6749. It must be whole,
    /// because a form does not show where it was cut off.
    pub fn read_form(body: &[u8], one_of: &[&str]) -> Option<Self> {
        let members = form_urlencoded::parse(body.trim_ascii());
        let all: Vec<_> = members.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
        let members = Self { all, is_whole: true };
        one_of.iter().any(|name| members.get(name).is_some()).then_some(members)
    }

    /// Whether the object has its end.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The last member with this name that is neither null nor an empty text.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let has_content = |value: &Value| !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty());
        self.all.iter().rev().find(|(own, value)| own == name && has_content(value)).map(|(_, value)| value)
    }

    /// A text, or a number as text.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Words: a list of texts, or a text with blanks between them.
    pub fn words(&self, name: &str) -> Option<Vec<String>> {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match self.get(name)? {
            Value::String(text) => Some(split(text)),
            Value::Array(all) => Some(all.iter().filter_map(Value::as_str).flat_map(split).collect()),
            _ => None,
        }
    }

    /// A number of at least 1, also as text; None for anything else.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        let seconds: f64 = self.text(name)?.parse().ok()?;
        (seconds >= 1.0).then_some(seconds as u64)
    }

    /// Whether a member is true, also as text.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| *value == true || *value == "true")
    }

    /// None if it is not a URL.
    pub fn url(&self, name: &str) -> Option<Url> {
        Url::parse(&self.text(name)?).ok()
    }

    /// The texts and numbers in the members with wanted names, also within lists and objects.
    pub fn leaves(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        self.all.iter().filter(|(name, _)| is_wanted(name)).for_each(|(_, value)| leaves(value, &mut found));
        found
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.all.into_iter().collect())
    }
}

fn leaves(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.trim().is_empty() => found.push(text.trim().to_owned()),
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(all) => all.iter().for_each(|one| leaves(one, found)),
        Value::Object(all) => all.values().for_each(|one| leaves(one, found)),
        _ => {}
    }
}

/// A member's name, and what follows the colon.
fn name(text: &str) -> Option<(String, &str)> {
    let (name, rest) = value(text)?;
    let Value::String(name) = name else { return None };
    Some((name, rest.trim_start().strip_prefix(':')?))
}

/// A value, and what follows it.
fn value(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Members {
        Members::read(body.as_bytes()).expect("an object")
    }

    #[test]
    fn an_object_is_read_in_every_form() {
        for body in [
            r#"{"a":"1","b":2}"#,
            "\u{feff}{\"a\":\"1\",\"b\":2}",
            " \r\n{ \"a\" : \" 1\\n\" , \"b\" : 2 , }\n\0garbage",
            r#"{"a":"1","odd":NaN,"b":2}"#,
            r#"{"a":"0","b":2,"a":"1"}"#,
            r#"{"a":"1","b":2,"a":null,"b":""}"#,
            r#"{"a":1,"b":"2","deep":{"a":[{}]}}"#,
            r#"{"a":"1","b":2,"cut":"of"#,
            r#"{"a":"1","b":2,"cu"#,
            r#"{"a":"1","b":2,"cut":"#,
        ] {
            let members = read(body);
            assert_eq!((members.text("a").unwrap(), members.seconds("b")), ("1".into(), Some(2)), "{body}");
            assert_eq!(members.is_whole(), !body.contains("cu"), "{body}");
        }
        let latin = Members::read(b"{\"error\":\"no\",\"error_description\":\"ung\xfcltig\"}").unwrap();
        assert_eq!(latin.text("error").unwrap(), "no");
        assert!(read(r#"{"a":"1"#).text("a").is_none(), "the value was cut off");
        assert!(read("{}").is_whole() && !read("{").is_whole());
    }

    #[test]
    fn other_bodies_are_not_objects() {
        for body in ["", "[]", "[{}]", "\"a\"", "<html>", "hello {}", "{hello}", "{1:2}"] {
            assert!(Members::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn a_form_is_read_like_an_object() {
        let members =
            Members::read_form(b"scope=a+b%20c&access_token=t%2B1&expires_in=60&empty=\n", &["access_token"]).unwrap();
        assert_eq!((members.text("access_token").unwrap(), members.seconds("expires_in")), ("t+1".into(), Some(60)));
        assert_eq!(members.words("scope").unwrap(), ["a", "b", "c"]);
        assert!(members.is_whole() && members.get("empty").is_none());
        for other in ["", "access_token", "access_token=", "<a href=\"?x=1&access_token_=2\">", "token=1"] {
            assert!(Members::read_form(other.as_bytes(), &["access_token"]).is_none(), "{other}");
        }
    }

    #[test]
    fn a_member_of_another_kind_is_none() {
        let odd = read(
            r#"{"text":[],"seconds":"soon","minus":-1,"zero":0,"url":"/relative","true":"yes","list":[1,"a b",null," ","c"]}"#,
        );
        assert!(odd.text("text").is_none() && odd.url("url").is_none() && !odd.is_true("true"));
        assert!(["seconds", "minus", "zero", "text"].iter().all(|name| odd.seconds(name).is_none()));
        assert_eq!(odd.words("list").unwrap(), ["a", "b", "c"]);
        assert_eq!(
            odd.leaves(|name| !["text", "url", "true", "seconds"].contains(&name)),
            ["-1", "0", "1", "a b", "c"]
        );
        assert_eq!(read(r#"{"u":"https://a.test/b"}"#).url("u").unwrap().as_str(), "https://a.test/b");
        assert!([r#"{"t":true}"#, r#"{"t":"true"}"#].iter().all(|body| read(body).is_true("t")));
        assert_eq!(read(r#"{"s":"3599"}"#).seconds("s"), Some(3599));
        assert_eq!(read(r#"{"s":60.5}"#).seconds("s"), Some(60));
        assert_eq!(read(r#"{"s":1e300}"#).seconds("s"), Some(u64::MAX));
    }

    #[test]
    fn an_object_becomes_a_value_with_all_that_was_received() {
        let value = read(r#"{"sub":"7","deep":{"a":[1]},"sub":"8","cut":"of"#).into_value();
        assert_eq!(value, serde_json::json!({"sub": "8", "deep": {"a": [1]}}));
    }
}
