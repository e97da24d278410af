//! Redaction of the secrets that were sent to a peer, because a server may repeat them in an error.

use std::collections::HashSet;
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::quote;

/// Pieces of a secret from this length on are redacted, in bytes: a server may cut what it repeats.
const PIECE: usize = 12;

/// Shorter secrets are not searched for, in bytes, because their letters also occur in ordinary words.
const SHORTEST: usize = 4;

/// The most bytes of a text to quote, so that a page or a bomb costs no memory. A secret that is cut here is still
/// redacted, because its pieces are found.
const LONGEST: usize = 4096;

/// How often a text is decoded again: a form in a JSON text in a form has three encodings.
const ENCODINGS: usize = 4;

/// Knows what was sent to a server, and removes it from what the server says.
///
/// A secret is found whole, and in pieces of `PIECE` bytes: as it is, in another case, percent-encoded, escaped as in
/// JSON or HTML, and in base64 of both alphabets, also within a longer message.
#[derive(Clone, Default)]
pub struct Redactor(Vec<Zeroizing<Vec<u8>>>);

impl Redactor {
    pub fn know(&mut self, secret: impl AsRef<[u8]>) {
        if secret.as_ref().len() >= SHORTEST {
            self.0.push(Zeroizing::new(secret.as_ref().to_vec()));
        }
    }

    /// Returns the text with `...` in place of each secret.
    pub fn redact(&self, said: &str) -> String {
        let mut hidden = vec![false; said.len()];
        let mut view = View::of(said);
        for _ in 0..ENCODINGS {
            for secret in &self.0 {
                view.hide(secret, &mut hidden);
                for encoded in in_base64(secret) {
                    view.hide(&encoded, &mut hidden);
                }
            }
            view = view.decoded();
        }
        without(said, &hidden)
    }

    /// Returns a server's words, without secrets, fit for one line of a reply, a log or a terminal.
    pub fn quote(&self, said: &str) -> String {
        let said = said.get(..said.floor_char_boundary(LONGEST)).unwrap_or_default();
        quote(&self.redact(said))
    }
}

/// A secret in base64, for each of its three positions in the three bytes that are encoded together. Characters that
/// also encode a neighbor are left out.
fn in_base64(secret: &[u8]) -> [Zeroizing<Vec<u8>>; 3] {
    [0, 1, 2].map(|before| {
        let mut message = Zeroizing::new(vec![0; before]);
        message.extend(secret);
        let encoded = Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(&*message).into_bytes());
        // A byte has 8 bits, and a base64 character 6.
        let (first, known) = ((before * 8).div_ceil(6), message.len() * 8 / 6);
        Zeroizing::new(encoded.get(first..known).unwrap_or_default().to_vec())
    })
}

/// A text after some decoding: its bytes, and the place of each in the original text.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    places: Vec<Range<usize>>,
}

impl View {
    fn of(text: &str) -> Self {
        Self { bytes: Zeroizing::new(text.as_bytes().to_vec()), places: (0..text.len()).map(|at| at..at + 1).collect() }
    }

    /// The same text, decoded once.
    fn decoded(&self) -> Self {
        let mut decoded = Self { bytes: Zeroizing::new(Vec::with_capacity(self.bytes.len())), places: Vec::new() };
        let mut at = 0;
        while let Some((byte, length)) = self.bytes.get(at..).and_then(next) {
            decoded.bytes.push(byte);
            decoded.places.push(self.place(at, length));
            at += length;
        }
        decoded
    }

    /// The place of these bytes in the original text.
    fn place(&self, at: usize, length: usize) -> Range<usize> {
        let part = self.places.get(at..at + length).unwrap_or_default();
        part.first().map_or(0, |first| first.start)..part.last().map_or(0, |last| last.end)
    }

    /// Marks the places of a secret, and of each piece of it that is long enough.
    fn hide(&self, secret: &[u8], hidden: &mut [bool]) {
        let length = secret.len().min(PIECE);
        let pieces: HashSet<Vec<u8>> =
            secret.windows(length.max(1)).map(|piece| piece.iter().map(alike).collect()).collect();
        let text: Zeroizing<Vec<u8>> = Zeroizing::new(self.bytes.iter().map(alike).collect());
        for (at, window) in text.windows(length.max(1)).enumerate() {
            if pieces.contains(window) {
                hidden.get_mut(self.place(at, length)).unwrap_or_default().fill(true);
            }
        }
    }
}

/// Maps letters that count as the same to one: the case does not matter, and neither does the alphabet of base64.
fn alike(byte: &u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other.to_ascii_lowercase(),
    }
}

/// The first byte of an encoded text, and the length of its encoding.
fn next(text: &[u8]) -> Option<(u8, usize)> {
    let hex = |from: usize, digits: usize| {
        let digits = std::str::from_utf8(text.get(from..from + digits)?).ok()?;
        u8::from_str_radix(digits.trim_start_matches('0'), 16).ok()
    };
    let escaped = match text {
        [b'%', ..] => hex(1, 2).map(|byte| (byte, 3)),
        [b'\\', b'u', ..] => hex(2, 4).map(|byte| (byte, 6)),
        [b'\\', b'x', ..] => hex(2, 2).map(|byte| (byte, 4)),
        [b'\\', escaped, ..] if escaped.is_ascii_punctuation() => Some((*escaped, 2)),
        [b'&', ..] => entity(text),
        _ => None,
    };
    escaped.or_else(|| text.first().map(|byte| (*byte, 1)))
}

/// A character reference of HTML at the beginning of a text.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().take(10).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(text.get(1..end)?).ok()?;
    let byte = match name {
        "amp" => b'&',
        "lt" => b'<',
        "gt" => b'>',
        "quot" => b'"',
        "apos" => b'\'',
        _ => match name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")) {
            Some(hex) => u8::from_str_radix(hex, 16).ok()?,
            None => name.strip_prefix('#')?.parse().ok()?,
        },
    };
    Some((byte, end + 1))
}

fn without(said: &str, hidden: &[bool]) -> String {
    let mut left = String::with_capacity(said.len());
    let mut was_hidden = false;
    for (at, char) in said.char_indices() {
        let is_hidden = hidden.get(at).copied().unwrap_or_default();
        match is_hidden {
            false => left.push(char),
            true if !was_hidden => left.push_str("..."),
            true => {}
        }
        was_hidden = is_hidden;
    }
    left
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    fn knowing(secret: &str) -> Redactor {
        let mut redactor = Redactor::default();
        redactor.know(secret);
        redactor
    }

    /// Tokens in the forms that servers use: short ones, UUIDs, 32 hex digits, parts with dots, all that RFC 6749 allows.
    const SECRETS: [&str; 6] = [
        "7654321",
        "a~b/c+d=",
        "01234567-89ab-cdef-0123-456789abcdef",
        "9e107d9d372bb6826bd81d3542a419d6",
        "1000.8cb99dxxxxxxxxxxxxx9be93.9b8xxxxxxxxxxxxxxxf",
        "q\"u\\o&t<e>'s%2F and:blanks;",
    ];

    #[test]
    fn a_secret_is_found_in_every_encoding() {
        let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        for secret in SECRETS {
            let redactor = knowing(secret);
            let urlencoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let json = serde_json::to_string(secret).unwrap();
            let json = json.trim_matches('"').to_owned();
            let unicode: String = secret.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
            let html: String = secret.bytes().map(|byte| format!("&#x{byte:x};")).collect();
            let sasl = format!("user=ann@example.test\u{1}auth=Bearer {secret}\u{1}\u{1}");
            let mut forms = vec![secret.to_owned(), secret.to_uppercase(), percent(secret), percent(&percent(secret))];
            forms.extend([json.replace('/', "\\/"), unicode, html]);
            if !secret.contains(' ') {
                forms.push(urlencoded);
            }
            for before in ["", "a", "ab"] {
                forms.push(BASE64_STANDARD_NO_PAD.encode(format!("{before}{secret}")));
                forms.push(BASE64_URL_SAFE_NO_PAD.encode(format!("{before}{sasl}")));
            }
            for form in forms {
                let shown = redactor.redact(&format!("the token {form} is not known"));
                assert!(shown.starts_with("the token ") && shown.ends_with(" is not known"), "{shown}");
                let rest = shown.trim_start_matches("the token ").trim_end_matches(" is not known");
                assert!(!rest.contains(&form) && rest.contains("..."), "{form}: {shown}");
            }
        }
    }

    #[test]
    fn a_secret_is_found_however_its_characters_are_escaped() {
        let redactor = knowing("a&b<c>d\"e'");
        for form in [
            "a&amp;b&lt;c&gt;d&quot;e&apos;",
            "a&#38;b&#60;c&#62;d&#34;e&#39;",
            "a\\x26b\\x3cc\\x3Ed\\x22e\\x27",
            "a&#x26;b&#X3C;c&#x3e;d&#x22;e&#x27;",
        ] {
            assert_eq!(redactor.redact(&format!("token {form} (cut)")), "token ... (cut)");
        }
    }

    #[test]
    fn a_piece_of_a_secret_is_found_as_well() {
        let redactor = knowing("9e107d9d372bb6826bd81d3542a419d6");
        assert_eq!(redactor.redact("token 9e107d9d372bb682 (cut)"), "token ... (cut)");
        assert_eq!(redactor.redact("token ...b6826bd81d35 42a419d6"), "token ...... 42a419d6");
    }

    #[test]
    fn other_words_stay_as_they_are() {
        let redactor = knowing("9e107d9d372bb6826bd81d3542a419d6");
        let said =
            "100 % wrong: \\ & \u{fc}ngultig %zz &bogus; AADSTS70008 \u{4e2d} 01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(redactor.redact(said), said);
        assert_eq!(Redactor::default().redact(said), said);
        assert_eq!(knowing("is").redact("this is nothing"), "this is nothing", "too short to search for");
        assert_eq!(redactor.quote("no\n9e107d9d372bb6826bd81d3542a419d6\n"), "no?...");
    }
}
