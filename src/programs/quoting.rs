//! How each program reads a user name or a password in its own file: the filters of the templates in `config/programs`.
//!
//! A filter either quotes a text so that the program reads exactly that text, or refuses it.

use std::fmt;

use minijinja::{Environment, Error, ErrorKind};

type Quoted = Result<String, Error>;

/// A text that a program has no way to read.
#[derive(Debug)]
pub struct Unquotable {
    pub text: String,
    character: char,
    why: &'static str,
}

impl fmt::Display for Unquotable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, because {}", self.character, self.why)
    }
}

impl std::error::Error for Unquotable {}

const ONE_LINE: &str = "a value of its settings is text in one line";
const NO_QUOTING: &str = "its file has no way to quote it";
const NOT_AT_THE_EDGE: &str = "it ignores blanks around a value";

/// Adds all filters.
pub fn add_filters(environment: &mut Environment) {
    environment.add_filter("ascii", ascii);
    environment.add_filter("without_colon", without_colon);
    environment.add_filter("shown", line);
    environment.add_filter("in_url", in_url);
    environment.add_filter("literal", |text: &str| literal(text));
    environment.add_filter("php", php);
    environment.add_filter("shell", shell);
    environment.add_filter("quoted", quoted);
    environment.add_filter("authinfo", authinfo);
    environment.add_filter("fetchmail", fetchmail);
    environment.add_filter("msmtp", msmtp);
    environment.add_filter("msmtp_from", msmtp_from);
    environment.add_filter("ini", ini);
    environment.add_filter("python_ini", python_ini);
    environment.add_filter("go_ini", go_ini);
    environment.add_filter("alpine", alpine);
    environment.add_filter("exim", exim);
    environment.add_filter("postfix", postfix);
    environment.add_filter("xml", xml);
}

/// Returns the text if it has no character that is `bad`.
fn without(text: &str, why: &'static str, bad: impl Fn(char) -> bool) -> Quoted {
    match text.chars().find(|&character| bad(character)) {
        None => Ok(text.to_owned()),
        Some(character) => {
            let unquotable = Unquotable { text: text.to_owned(), character, why };
            Err(Error::new(ErrorKind::InvalidOperation, "unquotable").with_source(unquotable))
        }
    }
}

/// For values of one line, and for what a person types.
fn line(text: &str) -> Quoted {
    without(text, ONE_LINE, char::is_control)
}

/// For programs that encode user names and passwords in ASCII when they log in.
fn ascii(text: &str) -> Quoted {
    without(text, "it logs in with ASCII only", |character| !character.is_ascii())
}

/// For user names in front of a password.
fn without_colon(text: &str) -> Quoted {
    without(text, "it separates the user name from the password", |character| character == ':')
}

/// The part of a URL before the host. Encodes all but the unreserved characters (RFC 3986 section 2.3), because s-nail
/// accepts no others there.
fn in_url(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encoded).collect()
}

/// Replaces single characters.
fn escaped(text: &str, escape: impl Fn(char) -> Option<String>) -> String {
    text.chars().map(|character| escape(character).unwrap_or_else(|| character.to_string())).collect()
}

/// Puts a backslash before these characters.
fn backslashed(text: &str, special: &str) -> String {
    escaped(text, |character| special.contains(character).then(|| format!("\\{character}")))
}

/// A string literal of Python, Java, JavaScript and C#. Everything but printable ASCII becomes UTF-16 code units, which
/// means that Python's text has to be ASCII.
fn literal(text: &str) -> String {
    let units = |character: char| {
        let mut units = [0; 2];
        character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    let escape = |character: char| match character {
        '"' | '\\' => Some(format!("\\{character}")),
        // Java replaces \u000a before it looks for the end of the line.
        '\n' => Some("\\n".to_owned()),
        '\r' => Some("\\r".to_owned()),
        ' '..='~' => None,
        other => Some(units(other)),
    };
    format!("\"{}\"", escaped(text, escape))
}

/// A string of PHP in single quotes, where only these two characters are special.
fn php(text: &str) -> String {
    format!("'{}'", backslashed(text, "\\'"))
}

/// A word of sh(1) in single quotes. mutt, NeoMutt and s-nail read it in the same way.
fn shell(text: &str) -> Quoted {
    Ok(format!("'{}'", line(text)?.replace('\'', "'\\''")))
}

/// Double quotes, with a backslash before a double quote and a backslash: curl, git, mbsync, and strings of Emacs Lisp.
fn quoted(text: &str) -> Quoted {
    Ok(format!("\"{}\"", backslashed(&line(text)?, "\\\"")))
}

/// A value of Emacs's authinfo: quotes of either kind around a text without that quote.
fn authinfo(text: &str) -> Quoted {
    match (line(text)?.contains('"'), text.contains('\'')) {
        (false, _) => Ok(format!("\"{text}\"")),
        (true, false) => Ok(format!("'{text}'")),
        (true, true) if !text.starts_with(['"', '\'', '#']) => without(text, NO_QUOTING, char::is_whitespace),
        (true, true) => without(text, NO_QUOTING, |character| "\"'#".contains(character)),
    }
}

/// A string of fetchmail, whose end is the next double quote, even after a backslash.
fn fetchmail(text: &str) -> Quoted {
    let code = |character: char| "\"\\".contains(character).then(|| format!("\\x{:02x}", u32::from(character)));
    Ok(format!("\"{}\"", escaped(&line(text)?, code)))
}

/// An argument of msmtp, which only removes one pair of quotes.
fn msmtp(text: &str) -> Quoted {
    Ok(format!("\"{}\"", line(text)?))
}

/// msmtp replaces `%U`, `%H` and `%C` in the sender, and compares it as a pattern.
fn msmtp_from(text: &str) -> Quoted {
    msmtp(&without(text, "it has a special meaning in `from`", |character| "%?*[]\\".contains(character))?)
}

/// A value that begins and ends with its line.
fn ini(text: &str) -> Quoted {
    if text.trim() == text { line(text) } else { without(text, NOT_AT_THE_EDGE, char::is_whitespace) }
}

/// A value of Python's configparser with interpolation.
fn python_ini(text: &str) -> Quoted {
    Ok(ini(text)?.replace('%', "%%"))
}

/// A value of go-ini, where `#` and `;` begin a comment unless they are in backquotes.
fn go_ini(text: &str) -> Quoted {
    Ok(format!("`{}`", without(&line(text)?, NO_QUOTING, |character| character == '`')?))
}

/// A part of a mailbox's name in Alpine's file.
fn alpine(text: &str) -> Quoted {
    without(&line(text)?, NO_QUOTING, |character| " \"\\${},/".contains(character))
}

/// A part of Exim's `client_send`, which is split at colons, then expanded, then split at circumflexes. Three
/// circumflexes in a row are a boundary followed by one character, so none can be at the beginning or end of a part.
fn exim(text: &str) -> Quoted {
    if text.starts_with('^') || text.ends_with('^') {
        return without(text, NO_QUOTING, |character| character == '^');
    }
    let code = |character: char| match character {
        '^' => Some("^^".to_owned()),
        '\\' | '$' | ':' | '{' | '}' | '"' | ' ' => Some(format!("\\x{:02x}", u32::from(character))),
        _ => None,
    };
    Ok(escaped(&line(text)?, code))
}

/// A part of a table in Postfix's main.cf.
fn postfix(text: &str) -> Quoted {
    Ok(without(&ini(text)?, NO_QUOTING, |character| "{}".contains(character))?.replace('$', "$$"))
}

/// Text of XML 1.0, also in an attribute with double quotes.
fn xml(text: &str) -> Quoted {
    let text = line(text)?;
    let entity = |character: char| match character {
        '&' => Some("&amp;".to_owned()),
        '<' => Some("&lt;".to_owned()),
        '>' => Some("&gt;".to_owned()),
        '"' => Some("&quot;".to_owned()),
        _ => None,
    };
    Ok(escaped(&text, entity))
}
