//! Cleans what a person pastes: an address or a token that came through terminals, mail programs and other documents.

use std::borrow::Cow;

/// Characters that people and programs put around an address or a token. An address contains none of these except the apostrophe.
const AROUND: [char; 12] = ['"', '\'', '`', '<', '>', '“', '”', '„', '‘', '’', '«', '»'];

/// How HTML writes `&`.
const AMPERSANDS: [&str; 3] = ["&amp;", "&#38;", "&#x26;"];

/// The parameters that an address may have. After a blank, one of these names begins a new parameter.
const PARAMETERS: [&str; 6] = ["code=", "state=", "iss=", "scope=", "error=", "session_state="];

/// Text without the quotes, brackets and blanks around it.
pub fn bare(text: &str) -> &str {
    text.trim_matches(|letter: char| letter.is_whitespace() || is_around(letter))
}

/// An address, or its query, in one piece: without what is around it, and without the line breaks and blanks that a
/// narrow window, a mail or a quoted mail (`> `) has inserted.
pub fn address(text: &str) -> String {
    let is_quoted_so = text.trim_start().starts_with('\'');
    let ends = |letter: char| is_around(letter) && (letter != '\'' || is_quoted_so);
    let lines = text.lines().map(|line| line.trim_start_matches(|letter: char| letter == ' ' || is_around(letter)));
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.split(ends).next().unwrap_or_default();
    let mut whole = String::with_capacity(text.len());
    for piece in text.split_whitespace() {
        let is_parameter = PARAMETERS.iter().any(|name| piece.starts_with(name));
        // After `_` it is the end of a longer name.
        if is_parameter && !whole.is_empty() && !whole.ends_with(['?', '&', ';', '_']) {
            whole.push('&');
        }
        whole.push_str(piece);
    }
    // Some shells put a backslash before each of `?=&`, and no address contains one.
    let whole = AMPERSANDS.iter().fold(whole, |text, ampersand| text.replace(ampersand, "&"));
    whole.replace('\\', "")
}

/// Whether a quotation has begun and not ended, so that the next line has the rest.
pub fn is_open(text: &str) -> bool {
    let text = text.trim();
    [('<', '>'), ('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('«', '»')]
        .iter()
        .any(|(open, close)| text.strip_prefix(*open).is_some_and(|rest| !rest.contains(*close)))
}

/// Converts a file's text from the encodings of common editors and shells: removes a byte order mark, and converts
/// UTF-16 that begins with one to UTF-8. All other bytes stay as they are.
pub fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let text = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => return Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => None,
    };
    text.map_or(Cow::Borrowed(bytes), |text| Cow::Owned(text.into_bytes()))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, []) = bytes.as_chunks::<2>() else { return None };
    String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<_>>()).ok()
}

fn is_around(letter: char) -> bool {
    AROUND.contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "http://127.0.0.1:4000/?code=4%2F0A-b_c.d~e&session_state=12&state=xyz&iss=https://a.test";

    #[test]
    fn an_address_is_read_whatever_is_around_it() {
        let escaped = ADDRESS.replace('&', "&amp;");
        let wrapped = |width: usize, between: &str| {
            let pieces: Vec<_> = ADDRESS.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
            pieces.join(between)
        };
        let mut texts = vec![
            format!("  {ADDRESS}\t\r\n"),
            format!("\"{ADDRESS}\""),
            format!("'{ADDRESS}'"),
            format!("`{ADDRESS}`"),
            format!("“{ADDRESS}”"),
            format!("<{ADDRESS}>"),
            format!("<\"{ADDRESS}\">,"),
            format!("<{ADDRESS}>."),
            escaped.clone(),
            format!("\"{escaped}\">the page</a>"),
            ADDRESS.replace('&', "&#38;"),
            ADDRESS.replace('?', "\\?").replace('=', "\\=").replace('&', "\\&"),
        ];
        for width in 1..ADDRESS.len() {
            texts.extend(["\n", "\r\n", "\n    ", "\n> ", "  "].map(|between| wrapped(width, between)));
            texts.push(format!("<{}>", wrapped(width, "\n")));
        }
        // If the line breaks before the name of a parameter, its `&` is already there.
        for text in texts {
            assert_eq!(address(&text), ADDRESS, "{text}");
        }
    }

    #[test]
    fn parameters_between_blanks_are_several() {
        assert_eq!(address("code=a state=b"), "code=a&state=b");
        assert_eq!(address("code=a\nstate=b\n"), "code=a&state=b");
        assert_eq!(address("\"code=a&state=b\""), "code=a&state=b");
        assert_eq!(address("?code=a& state=b"), "?code=a&state=b");
        assert_eq!(address("it's here: http://x.test/?code=it's&state=b"), "it'shere:http://x.test/?code=it's&state=b");
    }

    #[test]
    fn a_quotation_is_open_until_it_ends() {
        assert!(["<http://a", " \"code=a&", "'a\n> b"].iter().all(|text| is_open(text)));
        assert!(["<http://a>", "\"a\"", "a", "", "it's", "'a'"].iter().all(|text| !is_open(text)));
    }

    #[test]
    fn text_of_every_system_is_decoded() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for text in ["", "s3cret\r\n", "ä€😀"] {
            let marked = format!("\u{feff}{text}");
            for file in [
                text.as_bytes(),
                marked.as_bytes(),
                &utf16(&marked, u16::to_le_bytes),
                &utf16(&marked, u16::to_be_bytes),
            ] {
                assert_eq!(decoded(file), text.as_bytes(), "{file:?}");
            }
        }
        for binary in [&b"\xff\xfea"[..], b"\xff\xfe\x00\xd8", b"\x30\x82\xff\xfe", b"\xfe", b"\xef\xbb"] {
            assert_eq!(decoded(binary), binary, "bytes that are not text stay");
        }
    }
}
