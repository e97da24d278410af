//! App passwords: generated ones, and ones that a person chose.

use zeroize::Zeroizing;

use super::VaultError;
use super::seal::random;
use crate::secret::Secret;

/// The 32 characters of a generated password: no two of them look alike.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 26 characters of 5 bits: 130 bits. In groups of five, the last of six, they fit the 32 that some printers can store.
const LENGTH: usize = 26;

/// An app password, in the one form in which it is compared.
#[derive(Clone)]
pub enum Password {
    /// Generated here: its 26 characters, lower case, without the hyphens that it is shown with.
    Generated(Secret),
    /// Chosen by a person, as UTF-8.
    Chosen(Secret),
}

impl Password {
    /// A new generated password.
    pub fn generate() -> Self {
        let letter = |byte: u8| ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'0');
        Self::Generated(Secret::new(random::<LENGTH>().map(letter).to_vec()))
    }

    /// Reads a password as it was typed. What has the form of a generated one is taken as one, with or without hyphens
    /// and in any case. Other bytes are UTF-8, or else Latin-1, which is what Thunderbird sends.
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

    /// Reads a password of a person's own choice.
    ///
    /// # Errors
    ///
    /// It looks generated, or is too short: such ones are guessed in an afternoon by whoever steals the vault. Clients cannot
    /// send longer ones.
    pub fn chosen(typed: &[u8]) -> Result<Self, VaultError> {
        match Self::read(typed) {
            Self::Generated(_) => Err(VaultError::LooksGenerated),
            Self::Chosen(text) if !(8..=255).contains(&text.expose().len()) => Err(VaultError::WrongLength),
            password => Ok(password),
        }
    }

    /// Whether both are the same, in a time that tells nothing but their lengths.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Generated(one), Self::Generated(other)) | (Self::Chosen(one), Self::Chosen(other)) => {
                one.same_as(other)
            }
            _ => false,
        }
    }

    /// Whether it was generated here.
    pub const fn is_generated(&self) -> bool {
        matches!(self, Self::Generated(_))
    }

    /// The password as it is typed, to be shown once.
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
}
