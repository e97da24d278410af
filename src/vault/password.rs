//! App passwords: generated ones, and ones that a person chose.

use zeroize::Zeroizing;

use super::error::VaultError;
use crate::name::composed;
use crate::random;
use crate::secret::Secret;

/// The 32 characters of a generated password. No two of them look alike.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 26 characters of 5 bits are 130 bits. In groups of five, the last of six, they fit the 32 that some printers can store.
const LENGTH: usize = 26;

/// An app password, in the form in which it is compared.
#[derive(Clone)]
pub enum Password {
    /// The 26 characters in lower case, without the hyphens with which it is shown.
    Generated(Secret),
    /// Chosen by a person, as UTF-8.
    Chosen(Secret),
}

impl Password {
    pub fn generate() -> Self {
        let letter = |byte: u8| ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'0');
        Self::Generated(Secret::new(random::bytes::<LENGTH>().map(letter).to_vec()))
    }

    /// Reads a password as it was typed. It is a generated one if it has the form of one, with or without hyphens and in
    /// upper or lower case. Otherwise the bytes are UTF-8, or else Latin-1, because Thunderbird sends that.
    pub fn read(typed: &[u8]) -> Self {
        let letters: Vec<u8> =
            typed.iter().filter(|byte| !matches!(byte, b'-' | b' ')).map(u8::to_ascii_lowercase).collect();
        if letters.len() == LENGTH && letters.iter().all(|letter| ALPHABET.contains(letter)) {
            return Self::Generated(Secret::new(letters));
        }
        let _wiped = Zeroizing::new(letters);
        Self::Chosen(Secret::new(match std::str::from_utf8(typed) {
            Ok(_) => typed.to_vec(),
            Err(_) => typed.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes(),
        }))
    }

    /// Reads a new password that a person chose.
    ///
    /// # Errors
    ///
    /// Fails if it looks generated, if it is so short that whoever steals the vault guesses it in an afternoon, or if it
    /// is longer than clients can send.
    pub fn chosen(typed: &[u8]) -> Result<Self, VaultError> {
        match Self::read(typed) {
            Self::Generated(_) => Err(VaultError::LooksGenerated),
            Self::Chosen(text) if !(8..=255).contains(&text.expose().len()) => Err(VaultError::WrongLength),
            password => Ok(password.prepared().unwrap_or(password)),
        }
    }

    /// A chosen password as RFC 8265 section 4.2 prepares it, with composed letters and every blank as a space, if that
    /// differs from what was typed: macOS and phones send the same letters in other bytes. New slots have this form,
    /// older ones may have what was typed.
    pub fn prepared(&self) -> Option<Self> {
        let Self::Chosen(text) = self else { return None };
        let typed = std::str::from_utf8(text.expose()).ok().filter(|text| !text.is_ascii())?;
        let is_blank = |letter: char| letter.is_whitespace() && !letter.is_control();
        let prepared = Zeroizing::new(composed(&Zeroizing::new(typed.replace(is_blank, " "))));
        (prepared.as_str() != typed).then(|| Self::Chosen(Secret::new(prepared.as_bytes().to_vec())))
    }

    /// Whether both are the same. The time it takes depends on nothing but their lengths.
    pub fn same_as(&self, other: &Self) -> bool {
        let prepared = (self.prepared(), other.prepared());
        match (prepared.0.as_ref().unwrap_or(self), prepared.1.as_ref().unwrap_or(other)) {
            (Self::Generated(one), Self::Generated(other)) | (Self::Chosen(one), Self::Chosen(other)) => {
                one.same_as(other)
            }
            _ => false,
        }
    }

    pub const fn is_generated(&self) -> bool {
        matches!(self, Self::Generated(_))
    }

    /// The password as it is shown and typed.
    pub fn expose(&self) -> Vec<u8> {
        match self {
            Self::Chosen(text) => text.expose().to_vec(),
            Self::Generated(letters) => {
                let (head, last) = letters.expose().split_at(20);
                let mut groups: Vec<&[u8]> = head.chunks(5).collect();
                groups.push(last);
                groups.join(&b'-')
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_read_however_it_is_typed() {
        let password = Password::generate();
        let shown = password.expose();
        assert_eq!(shown.len(), 30);
        let typed = String::from_utf8(shown.clone()).unwrap();
        for form in [typed.clone(), typed.replace('-', ""), typed.to_uppercase(), typed.replace('-', " ")] {
            let read = Password::read(form.as_bytes());
            assert!(read.is_generated());
            assert_eq!(read.expose(), shown);
        }
        assert_ne!(Password::generate().expose(), shown);
    }

    #[test]
    fn a_chosen_password_is_the_same_in_latin_1_and_utf_8() {
        let utf8 = Password::read("pässwörd".as_bytes());
        let latin1 = Password::read(b"p\xe4ssw\xf6rd");
        assert!(!utf8.is_generated());
        assert_eq!(utf8.expose(), latin1.expose());
        assert_eq!(Password::read(b" Mixed Case ").expose(), b" Mixed Case ");
    }

    #[test]
    fn a_chosen_password_is_prepared_if_its_bytes_are_not_the_usual_ones() {
        let chosen = |typed: &str| Password::chosen(typed.as_bytes()).unwrap();
        for typed in ["pa\u{308}ssword", "pässword", "p\u{e4}ssword"] {
            assert_eq!(chosen(typed).expose(), "pässword".as_bytes());
            assert!(Password::read(typed.as_bytes()).same_as(&Password::read("pässword".as_bytes())));
        }
        assert_eq!(chosen("my\u{a0}pass\u{3000}word").expose(), b"my pass word");
        assert!(Password::read("pa\u{308}ssword".as_bytes()).prepared().is_some(), "reading keeps what was typed");
        for usual in ["password", "pässword", "Pass Word", "ﬁne-password"] {
            assert!(Password::read(usual.as_bytes()).prepared().is_none(), "{usual}");
        }
        assert!(!Password::read(b"Password").same_as(&Password::read(b"password")));
        assert!(Password::generate().prepared().is_none());
    }
}
