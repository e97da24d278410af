//! Types for what must never be shown: without Debug, Display, Serialize and `==`.
//!
//! Their bytes leave only through [`Secret::expose`] and [`Token::expose`], so a search for that word finds every use.

use std::io::{self, Read};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::pasted::decoded;

/// A password or a key. Wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a secret to its end, without the line end after it. Blanks belong to it.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = Zeroizing::new(Vec::new());
        from.read_to_end(&mut bytes)?;
        Ok(Self::new(without_line_end(&decoded(&bytes)).to_vec()))
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the bytes are equal, in a time that depends only on the lengths.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

/// The bytes without line ends at their end.
pub fn without_line_end(bytes: &[u8]) -> &[u8] {
    let mut text = bytes;
    while let [rest @ .., b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}

/// An access token, a refresh token or an authorization code: printable ASCII without blanks.
///
/// RFC 6750 section 2.1 allows fewer characters (`b64token`), RFC 6749 appendix A a few more. What matters is that none of them
/// can end a line, a header field or a SASL field.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The longest accepted token in bytes. The largest known have 4 to 5 KiB.
    pub const MOST: usize = 16 * 1024;

    /// None if the text is empty, too long, or has anything but visible ASCII.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MOST).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_contain_a_field_or_a_line() {
        for bad in ["", "a b", "a\u{1}auth=Bearer b", "a\r\n", "é", "a\u{7f}"] {
            assert!(Token::parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(Token::parse("ya29.A-_~+/=").map(|token| token.expose().len()), Some(12));
        assert!(Token::parse(&"x".repeat(Token::MOST + 1)).is_none());
    }

    #[test]
    fn a_secret_ends_where_its_line_ends() {
        for file in ["s3cret \t", "s3cret \t\n", "s3cret \t\r\n", "\u{feff}s3cret \t\n\n"] {
            assert_eq!(Secret::read(file.as_bytes()).unwrap().expose(), b"s3cret \t", "{file:?}");
        }
        assert!(Secret::read("\u{feff}\r\n".as_bytes()).unwrap().is_empty());
        let utf16: Vec<u8> = "\u{feff}s3cret \t\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Secret::read(&*utf16).unwrap().expose(), b"s3cret \t");
    }

    #[test]
    fn secrets_compare_by_their_bytes() {
        let secret = Secret::new(b"one".to_vec());
        assert!(secret.same_as(&Secret::new(b"one".to_vec())));
        assert!(!secret.same_as(&Secret::new(b"two".to_vec())));
        assert!(!secret.same_as(&Secret::new(b"one ".to_vec())));
    }
}
