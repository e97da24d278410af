//! Tokens that other programs have encrypted with the password of the mail program.

use aes::{Aes128, cipher};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use cbc::Decryptor;
use cipher::block_padding::Pkcs7;
use cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use ring::{hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The most rounds of a derivation to make: ten times what email-oauth2-proxy makes in 2026. A damaged file could ask for days.
const MOST_ROUNDS: u32 = 12_000_000;

/// Why something stays closed.
#[derive(Debug, PartialEq, Eq)]
pub enum Closed {
    WrongPassword,
    /// Says what is damaged.
    Damaged(String),
}

/// Tokens in the format of Fernet, <https://github.com/fernet/spec>, under a key that comes from a password.
#[derive(Clone, Default)]
pub struct Fernet {
    pub salt: Vec<u8>,
    /// The numbers of rounds that may have been used, each to be tried.
    pub rounds: Vec<u32>,
}

impl Fernet {
    /// Opens tokens that were all made with one password, and returns them in the same order.
    pub fn open(&self, password: &Secret, tokens: &[&str]) -> Result<Vec<Secret>, Closed> {
        for rounds in &self.rounds {
            let key = derive::<32>(password, &self.salt, *rounds)?;
            let opened: Result<Vec<_>, _> = tokens.iter().map(|token| open_one(&key, token)).collect();
            match opened {
                Err(Closed::WrongPassword) => {}
                opened => return opened,
            }
        }
        Err(Closed::WrongPassword)
    }
}

/// A version, a time of 8 bytes, an initialization vector of 16, the encrypted text, and an HMAC of 32 bytes.
fn open_one(key: &[u8; 32], token: &str) -> Result<Secret, Closed> {
    let damaged = || Closed::Damaged("one of its tokens is not in the form of Fernet".to_owned());
    let bytes = BASE64_URL_SAFE.decode(token.trim()).map_err(|_| damaged())?;
    let (signed, tag) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    let (head, encrypted) = signed.split_first_chunk::<25>().ok_or_else(damaged)?;
    let [0x80, _, _, _, _, _, _, _, _, iv @ ..] = head else { return Err(damaged()) };
    let (signing, encrypting) = key.split_at(16);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, signing), signed, tag).map_err(|_| Closed::WrongPassword)?;
    decrypt(encrypting, iv, encrypted).ok_or_else(damaged)
}

/// PKCS #5's PBES2 (RFC 8018) with HMAC-SHA-256 and AES-128-CBC, as Java's `PBEWithHmacSHA256AndAES_128` has it.
pub struct Pbes2 {
    pub salt: Vec<u8>,
    pub iv: Vec<u8>,
    pub rounds: u32,
}

impl Pbes2 {
    /// Opens a text in base64. Its padding is all that shows a wrong password, and one in 256 passes by chance.
    pub fn open(&self, password: &Secret, text: &str) -> Result<Secret, Closed> {
        let damaged = || Closed::Damaged("its token is not base64 of whole blocks".to_owned());
        let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| damaged())?;
        if bytes.is_empty() || bytes.len() % 16 != 0 || self.iv.len() != 16 {
            return Err(damaged());
        }
        let key = derive::<16>(password, &self.salt, self.rounds)?;
        let opened = decrypt(key.as_slice(), &self.iv, &bytes);
        opened.filter(|token| token.expose().iter().all(u8::is_ascii_graphic)).ok_or(Closed::WrongPassword)
    }
}

/// PBKDF2 with HMAC-SHA-256.
fn derive<const N: usize>(password: &Secret, salt: &[u8], rounds: u32) -> Result<Zeroizing<[u8; N]>, Closed> {
    let rounds = std::num::NonZeroU32::new(rounds).filter(|rounds| rounds.get() <= MOST_ROUNDS);
    let rounds = rounds.ok_or_else(|| Closed::Damaged("its number of iterations is not possible".to_owned()))?;
    let mut key = Zeroizing::new([0; N]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.expose(), key.as_mut_slice());
    Ok(key)
}

/// AES-128-CBC with PKCS #7's padding.
fn decrypt(key: &[u8], iv: &[u8], encrypted: &[u8]) -> Option<Secret> {
    let cipher = Decryptor::<Aes128>::new_from_slices(key, iv).ok()?;
    cipher.decrypt_padded_vec::<Pkcs7>(encrypted).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first vector of Fernet's specification: its key, and the text `hello`.
    #[test]
    fn a_token_of_the_specification_is_opened() {
        let key = BASE64_URL_SAFE.decode("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").unwrap();
        let token =
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        let opened =
            |token: &str| open_one(&key.clone().try_into().unwrap(), token).map(|secret| secret.expose().to_vec());
        assert_eq!(opened(token), Ok(b"hello".to_vec()));
        assert_eq!(opened(&token.replace("GM4B", "GM4C")), Err(Closed::WrongPassword), "any change breaks the HMAC");
        for damaged in ["", "gAAA", "not base64!", "AAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ"] {
            assert!(matches!(opened(damaged), Err(Closed::Damaged(_))), "{damaged}");
        }
    }

    #[test]
    fn impossible_numbers_of_rounds_take_no_time() {
        for rounds in [0, MOST_ROUNDS + 1] {
            let fernet = Fernet { salt: vec![1], rounds: vec![rounds] };
            assert!(matches!(fernet.open(&Secret::new(vec![1]), &["gA=="]), Err(Closed::Damaged(_))), "{rounds}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_token_is_opened_or_refused(token in "[A-Za-z0-9_=-]{0,200}") {
            assert!(open_one(&[7; 32], &token).is_err());
            let pbes2 = Pbes2 { salt: vec![1], iv: vec![0; 16], rounds: 1 };
            let _either = pbes2.open(&Secret::new(b"password".to_vec()), &token);
        }
    }
}
