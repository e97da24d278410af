//! The name of an account: one type for what a person types, a mail program sends, the configuration contains or a
//! server says.
//!
//! A mailbox has more than one spelling. Names are compared in a canonical form, computed here: letters composed (NFC)
//! and in lower case, full-width letters as normal ones (RFC 8265 section 3.3), an international domain in ASCII
//! (RFC 5891), and without dots and tags at Google's consumer domains. Everything that is shown, stored or sent keeps
//! the spelling.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;
use idna::AsciiDenyList;

/// Google's consumer domains. There `ann.b`, `annb` and `annb+news` are one mailbox; at the domains of its customers
/// they are not.
const GOOGLE: [&str; 2] = ["gmail.com", "googlemail.com"];

/// Quotation marks around a copied name.
const QUOTES: [(char, char); 6] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»')];

/// The longest address, in bytes, that a mail program may send as a user name.
const LONGEST: usize = 255;

/// Replaces characters that cannot be part of an address.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The name of an account, in the spelling in which it was written.
///
/// In an ordered map all spellings of a name are adjacent; [`find`] uses that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    canonical: String,
    spelling: String,
}

impl Name {
    /// Reads what a person, a mail program or the configuration wrote. Removes what was copied along: blanks, invisible
    /// characters, quotes, `mailto:`, and the person's name in `Ann <ann@example.com>`.
    pub fn typed(text: &str) -> Self {
        if is_plain(text) {
            return Self::spelled_plainly(text.to_ascii_lowercase());
        }
        let visible = text.chars().filter(|&letter| !is_invisible(letter));
        let text: String = visible.map(normal_width).collect();
        Self::spelled(composed(&bare(&text).to_lowercase()))
    }

    /// Reads what an authorization server calls a person. It removes nothing, because `Ann <ann@example.com>` could be
    /// a name that somebody else has chosen. Invisible characters are replaced by one that no address has, and so are
    /// those that would become ASCII: the Kelvin sign is not a K.
    pub fn claimed(text: &str) -> Self {
        let is_bad = |letter: char| letter.is_control() || is_invisible(letter) || becomes_ascii(letter);
        let shown = |letter: char| if is_bad(letter) { REPLACEMENT } else { letter };
        let more = text.chars().nth(LONGEST).map(|_| REPLACEMENT);
        let text: String = text.chars().take(LONGEST).map(shown).chain(more).collect();
        Self::spelled(composed(&text.to_lowercase()))
    }

    /// # Errors
    ///
    /// Fails if there is no part before or after an @, or if it has characters that no mail program could send.
    pub fn address(text: &str) -> Result<Self, String> {
        let name = Self::typed(text);
        let parts = name.spelling.rsplit_once('@');
        let has_parts = parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
        let is_bad = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '*';
        match has_parts && !name.spelling.contains(is_bad) && name.spelling.len() <= LONGEST {
            true => Ok(name),
            false => Err("must be an address such as \"ann@example.test\"".to_owned()),
        }
    }

    /// A fast path for what nearly every login sends. Except at Google, there is nothing to change.
    fn spelled_plainly(spelling: String) -> Self {
        let is_canonical = |domain: &str| !domain.is_empty() && !domain.ends_with('.') && !GOOGLE.contains(&domain);
        match spelling.rsplit_once('@') {
            Some((_, domain)) if !is_canonical(domain) => Self::spelled(spelling),
            _ => Self { canonical: spelling.clone(), spelling },
        }
    }

    fn spelled(spelling: String) -> Self {
        match spelling.rsplit_once('@') {
            Some((local, domain)) if !domain.is_empty() => {
                let domain = domain.replace('。', ".");
                let domain = domain.strip_suffix('.').unwrap_or(&domain);
                let canonical = canonical(local, domain);
                Self { canonical, spelling: format!("{local}@{domain}") }
            }
            _ => Self { canonical: spelling.clone(), spelling },
        }
    }

    /// The name as it was written, in lower case. This is what is shown, stored and sent.
    pub fn as_str(&self) -> &str {
        &self.spelling
    }

    /// The form that all spellings of a name have in common.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Whether both are names of the same account.
    pub fn same_as(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }

    /// The parts before and after the @, if it is an address; the domain in ASCII.
    pub fn parts(&self) -> Option<(&str, Cow<'_, str>)> {
        let (local, domain) = self.spelling.rsplit_once('@')?;
        Some((local, in_ascii(domain)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelling)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.spelling
    }
}

/// Finds the entry with exactly this spelling of a name, or else the first one with another spelling.
pub fn find<'a, T>(names: &'a BTreeMap<Name, T>, name: &Name) -> Option<(&'a Name, &'a T)> {
    if names.is_empty() {
        return None;
    }
    let first = || Name { canonical: name.canonical.clone(), spelling: String::new() };
    let same = || names.range(first()..).next().filter(|(other, _)| other.same_as(name));
    names.get_key_value(name).or_else(same)
}

/// Text with its letters composed (Unicode's NFC), as RFC 8265 requires.
pub fn composed(text: &str) -> String {
    const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();
    match NFC.normalize(text) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Whether there is nothing to remove, which is true in nearly every login.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._+-".contains(&byte);
    text.bytes().all(is_plain)
}

fn canonical(local: &str, domain: &str) -> String {
    let local = unquoted(local);
    let domain = in_ascii(domain);
    if GOOGLE.contains(&&*domain) {
        let mailbox = local.split('+').next().unwrap_or_default().replace('.', "");
        if !mailbox.is_empty() {
            return format!("{mailbox}@{}", GOOGLE[0]);
        }
    }
    format!("{local}@{domain}")
}

/// An international domain in its DNS form; anything else stays as it is.
fn in_ascii(domain: &str) -> Cow<'_, str> {
    idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::EMPTY).unwrap_or(Cow::Borrowed(domain))
}

/// A quoted local part without its quotes (RFC 5321 section 4.1.2), unless it needs them.
fn unquoted(local: &str) -> &str {
    let inner = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let needs_none = |inner: &&str| !inner.is_empty() && is_plain(inner) && !inner.contains('@');
    inner.filter(needs_none).unwrap_or(local)
}

/// Removes what is around a name. If nothing would remain, it stays as it is.
fn bare(text: &str) -> &str {
    let mut bare = text.trim();
    loop {
        let inner = inner(bare).trim();
        if inner == bare {
            return bare;
        }
        if inner.is_empty() {
            return text;
        }
        bare = inner;
    }
}

/// The text inside the outermost marks, if there are any.
fn inner(text: &str) -> &str {
    let within = |(open, close): (char, char)| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(quoted) = QUOTES.into_iter().find_map(within) {
        return quoted;
    }
    if let Some((_, address)) = text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        return address;
    }
    match text.split_at_checked("mailto:".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto:") => rest.split('?').next().unwrap_or_default(),
        _ if text.contains('@') => text.trim_end_matches([',', ';']),
        _ => text,
    }
}

/// Invisible characters that are copied along from web pages.
const fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}')
}

/// Whether a character is not ASCII but would become ASCII in the canonical form.
fn becomes_ascii(letter: char) -> bool {
    const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    let lower: String = letter.to_lowercase().collect();
    !letter.is_ascii() && (letter == '。' || NFKC.normalize(&lower).is_ascii())
}

/// The normal form of a full-width character, which East Asian input methods produce instead of ASCII.
fn normal_width(letter: char) -> char {
    match letter {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(letter) - 0xfee0).unwrap_or(letter),
        '\u{3000}' => ' ',
        letter => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_same(one: &str, spellings: &[&str]) {
        for spelling in spellings {
            assert!(Name::typed(one).same_as(&Name::typed(spelling)), "{one:?} and {spelling:?}");
        }
    }

    fn assert_other(one: &str, others: &[&str]) {
        for other in others {
            assert!(!Name::typed(one).same_as(&Name::typed(other)), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn the_fast_path_has_the_same_result() {
        for text in [
            "Ann@Example.test",
            "ann+news@example.test",
            "a.b@xn--mnchen-3ya.test",
            "ann@xn--0.test",
            "ann",
            "@",
            "a@@b",
            "@b.test",
            "ann@example.test.",
            "ann@.",
            "a.nn@gmail.com",
            "ann@",
            "a_b@c_d.test",
        ] {
            assert!(is_plain(text));
            assert_eq!(
                Name::spelled_plainly(text.to_ascii_lowercase()),
                Name::spelled(text.to_ascii_lowercase()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_mailbox_at_google_has_no_dots_no_tags_and_two_domains() {
        assert_same(
            "annb@gmail.com",
            &[
                "ann.b@gmail.com",
                "A.N.N.B+news@GoogleMail.com",
                "annb@googlemail.com",
                "annb@gmail.com.",
                "annb+@gmail.com",
            ],
        );
        assert_other("annb@gmail.com", &["annb@gmail.co", "annc@gmail.com", "annb@mail.gmail.com", "annb"]);
        assert_same("+b@gmail.com", &["+b@gmail.com"]);
        assert_other("+b@gmail.com", &["+c@gmail.com"]);
    }

    #[test]
    fn elsewhere_mailboxes_differ_by_dots_and_tags() {
        for domain in ["example.test", "outlook.com", "google.com"] {
            let at = |local: &str| format!("{local}@{domain}");
            assert_other(&at("annb"), &[&at("ann.b"), &at("annb+news")]);
        }
    }

    #[test]
    fn an_international_domain_is_the_same_in_unicode_and_in_ascii() {
        assert_same(
            "ann@bücher.example",
            &[
                "ann@xn--bcher-kva.example",
                "ann@BÜCHER.example",
                "ann@bu\u{308}cher.example",
                "ann@XN--BCHER-KVA.EXAMPLE",
            ],
        );
        assert_same("ann@例え.テスト", &["ann@xn--r8jz45g.xn--zckzah", "ann@例え。テスト", "ann@例え．テスト."]);
        assert_other("ann@bücher.example", &["ann@bucher.example", "ann@buecher.example"]);
        let name = Name::typed("ann@BÜCHER.example");
        assert_eq!(name.as_str(), "ann@bücher.example", "the spelling stays");
        assert_eq!(name.parts(), Some(("ann", "xn--bcher-kva.example".into())));
        assert_eq!(Name::typed("ann.b@googlemail.com").parts(), Some(("ann.b", "googlemail.com".into())));
    }

    #[test]
    fn letters_are_the_same_composed_or_decomposed_and_in_any_case_and_width() {
        assert_same(
            "zoë@example.test",
            &["zoe\u{308}@example.test", "ZOË@Example.TEST", "ＺＯË＠ｅｘａｍｐｌｅ．ｔｅｓｔ"],
        );
        assert_same("scanner", &["SCANNER", " Scanner ", "ｓｃａｎｎｅｒ"]);
        assert_other("zoë@example.test", &["zoe@example.test"]);
    }

    #[test]
    fn what_is_copied_along_with_a_name_is_removed() {
        assert_same(
            "ann@example.test",
            &[
                "  ann@example.test\t",
                "\u{a0}ann@example.test\u{3000}",
                "\u{feff}ann@exam\u{ad}ple.test\u{200b}",
                "\u{202a}ann@example.test\u{202c}",
                "Ann B <ann@example.test>",
                "\"Ann, B\" <Ann@Example.test>",
                "<ann@example.test>",
                "< ann@example.test >",
                "mailto:ann@example.test",
                "MAILTO:Ann@example.test?subject=hello",
                "<mailto:ann@example.test>",
                "\"ann@example.test\"",
                "'ann@example.test'",
                "“ann@example.test”",
                "«ann@example.test»",
                "ann@example.test,",
                "ann@example.test;",
                "ann@example.test.",
                "\"ann\"@example.test",
            ],
        );
        for odd in ["", "<>", "\"\"", "mailto:", "@", "a@", "\\", "domain\\ann", "ann%example.test", "o'neil", "a#b"] {
            assert_eq!(Name::typed(odd).as_str(), odd, "there is nothing to remove");
        }
    }

    #[test]
    fn nothing_is_removed_from_what_a_server_says() {
        let ann = Name::typed("ann@example.test");
        for claim in ["Ann@example.test", "ann@EXAMPLE.test", "ann@example.test."] {
            assert!(Name::claimed(claim).same_as(&ann), "{claim}");
        }
        for claim in
            ["Ann <ann@example.test>", "mailto:ann@example.test", "an\u{200b}n@example.test", "\"ann@example.test\""]
        {
            assert!(!Name::claimed(claim).same_as(&ann), "{claim}");
        }
        assert!(Name::claimed("a.nn@googlemail.com").same_as(&Name::typed("ann@gmail.com")));
    }

    #[test]
    fn text_that_cannot_be_an_address_is_refused() {
        for good in ["ann@a", "Ann <ann@example.test>", "o'neil@example.test", "ann@[192.0.2.1]", "ann+x@example.test"]
        {
            assert!(Name::address(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.test", "a".repeat(250));
        for bad in
            ["", "ann", "@example.test", "ann@", "ann@.", "*@example.test", "a nn@example.test", "ann\n@a", &long]
        {
            assert!(Name::address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_exact_spelling_is_found_before_another_one() {
        let of = |names: &[&str]| names.iter().map(|name| (Name::typed(name), (*name).to_owned())).collect();
        let found =
            |names: &BTreeMap<Name, String>, name: &str| find(names, &Name::typed(name)).map(|(_, it)| it.clone());
        let both = of(&["annb@gmail.com", "ann.b@gmail.com", "ann@example.test"]);
        assert_eq!(found(&both, "annb@gmail.com").unwrap(), "annb@gmail.com");
        assert_eq!(found(&both, "Ann.B@gmail.com").unwrap(), "ann.b@gmail.com");
        assert_eq!(found(&both, "annb@googlemail.com").unwrap(), "ann.b@gmail.com", "the first of them");
        let one = of(&["ann.b@googlemail.com"]);
        assert_eq!(found(&one, "a.n.n.b+x@gmail.com").unwrap(), "ann.b@googlemail.com");
        assert_eq!(found(&one, "ann@gmail.com"), None);
    }
}
