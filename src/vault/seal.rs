//! The vault's cryptography: seals to an account's public key, and wraps its private key for each app password.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::password::Password;
use super::record::text;
use super::stretch::Stretch;
use crate::random;

type HpkePrivateKey = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as hpke::Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as hpke::Kem>::EncappedKey;

/// The application's name in HPKE's key schedule (RFC 9180 section 5.1).
const INFO: &[u8] = b"postkey vault 1";

/// Something sealed cannot be opened, because it is damaged or was sealed to another key.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged;

/// An account's private key, while it is needed.
pub struct AccountKey(HpkePrivateKey);

/// Bytes sealed to an account's public key (HPKE base mode, RFC 9180).
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Sealed {
    #[serde(with = "text")]
    encapped: Vec<u8>,
    #[serde(with = "text")]
    ciphertext: Vec<u8>,
    /// Whether the context includes where the account's tokens are sent. It does since format 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_bound: bool,
}

/// An account's private key, wrapped under one password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Wrapped {
    /// Derived together with the wrapping key. Shows whether a password is correct before the key is unwrapped.
    #[serde(with = "text")]
    tag: Vec<u8>,
    #[serde(with = "text")]
    nonce: Vec<u8>,
    #[serde(with = "text")]
    ciphertext: Vec<u8>,
}

/// The keys derived from a password in one account: 16 bytes of tag, by which its slot is found, and the key that unwraps it.
/// A deposit has the same, derived from its secret.
pub struct Derived {
    bytes: Zeroizing<[u8; 48]>,
}

/// A new key pair: the private key, and the public key as bytes.
pub fn key_pair() -> (AccountKey, Vec<u8>) {
    let (private, public) = X25519HkdfSha256::gen_keypair();
    (AccountKey(private), public.to_bytes().to_vec())
}

/// Seals `plaintext` so that only the holder of the private key can read it. To open it takes the same `context`.
pub fn seal(public_key: &[u8], context: &[u8], plaintext: &[u8]) -> Result<Sealed, Damaged> {
    let key = PublicKey::from_bytes(public_key).map_err(|_| Damaged)?;
    let (encapped, ciphertext) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &key,
        INFO,
        plaintext,
        context,
    )
    .map_err(|_| Damaged)?;
    Ok(Sealed { encapped: encapped.to_bytes().to_vec(), ciphertext, is_bound: true })
}

impl AccountKey {
    /// The public key that belongs to it, as bytes.
    pub fn public_key(&self) -> Vec<u8> {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().to_vec()
    }

    /// Opens what was sealed in this context.
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Damaged> {
        let encapped = EncappedKey::from_bytes(&sealed.encapped).map_err(|_| Damaged)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &encapped,
            INFO,
            &sealed.ciphertext,
            context,
        )
        .map(Zeroizing::new)
        .map_err(|_| Damaged)
    }

    /// Wraps this key under a password's derived key. To unwrap it takes the same `context`.
    pub fn wrap(&self, derived: &Derived, context: &[u8]) -> Result<Wrapped, Damaged> {
        let nonce = random::bytes::<24>();
        let private = Zeroizing::new(self.0.to_bytes().to_vec());
        let ciphertext = derived
            .cipher()?
            .encrypt(&XNonce::from(nonce), Payload { msg: &private, aad: context })
            .map_err(|_| Damaged)?;
        Ok(Wrapped { tag: derived.tag().to_vec(), nonce: nonce.to_vec(), ciphertext })
    }
}

impl Wrapped {
    /// Whether this was wrapped under that password.
    pub fn belongs_to(&self, derived: &Derived) -> bool {
        self.tag.as_slice().ct_eq(derived.tag()).into()
    }

    pub fn tag(&self) -> &[u8] {
        &self.tag
    }

    pub fn unwrap_key(&self, derived: &Derived, context: &[u8]) -> Result<AccountKey, Damaged> {
        let nonce = <[u8; 24]>::try_from(self.nonce.as_slice()).map_err(|_| Damaged)?;
        let private = derived
            .cipher()?
            .decrypt(&XNonce::from(nonce), Payload { msg: &self.ciphertext, aad: context })
            .map(Zeroizing::new)
            .map_err(|_| Damaged)?;
        HpkePrivateKey::from_bytes(&private).map(AccountKey).map_err(|_| Damaged)
    }
}

impl Derived {
    /// Derives tag and key from a password. This is slow for a chosen password, and fast for a generated one because nobody
    /// can guess its 130 bits. The time depends on nothing else.
    pub fn new(password: &Password, salt: &[u8], stretch: Stretch) -> Result<Self, VaultError> {
        #[cfg(test)]
        tests::DERIVED.set(tests::DERIVED.get() + 1);
        let mut bytes = Zeroizing::new([0; 48]);
        let expanded = match password {
            Password::Generated(text) => Hkdf::<Sha256>::new(Some(salt), text.expose()),
            Password::Chosen(text) => Hkdf::<Sha256>::new(Some(salt), stretch.derive(text.expose(), salt)?.as_slice()),
        };
        // HKDF can derive many more than 48 bytes, so this does not fail.
        expanded.expand(b"postkey slot 1", bytes.as_mut_slice()).map_err(|_| VaultError::NoMemory)?;
        Ok(Self { bytes })
    }

    /// Derives tag and key from a secret that nobody can guess.
    pub fn of_secret(secret: &[u8], purpose: &str) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; 48]);
        let expanded = Hkdf::<Sha256>::new(Some(purpose.as_bytes()), secret);
        expanded.expand(b"postkey deposit 1", bytes.as_mut_slice()).map_err(|_| VaultError::NoMemory)?;
        Ok(Self { bytes })
    }

    pub fn tag(&self) -> &[u8] {
        self.bytes.split_at(16).0
    }

    /// Seals bytes: a nonce of 24 bytes, and what it and the key encrypt.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, Damaged> {
        let nonce = random::bytes::<24>();
        let ciphertext = self.cipher()?.encrypt(&XNonce::from(nonce), plaintext).map_err(|_| Damaged)?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Opens what [`Self::seal`] has sealed.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Damaged> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<24>().ok_or(Damaged)?;
        self.cipher()?.decrypt(&XNonce::from(*nonce), ciphertext).map(Zeroizing::new).map_err(|_| Damaged)
    }

    fn cipher(&self) -> Result<XChaCha20Poly1305, Damaged> {
        XChaCha20Poly1305::new_from_slice(self.bytes.split_at(16).1).map_err(|_| Damaged)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    thread_local! {
        /// The number of derivations on this thread.
        pub static DERIVED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    fn derived(password: &[u8], salt: &[u8]) -> Derived {
        Derived::new(&Password::read(password), salt, Stretch::FORMAT_1).unwrap()
    }

    #[test]
    fn only_the_key_and_the_context_open_what_is_sealed() {
        let (key, public) = key_pair();
        let sealed = seal(&public, b"ann 1", b"token").unwrap();
        assert_eq!(key.open(b"ann 1", &sealed).unwrap().as_slice(), b"token");
        assert!(key.open(b"ann 2", &sealed).is_err());
        assert!(key_pair().0.open(b"ann 1", &sealed).is_err());
        let mut damaged = sealed;
        damaged.ciphertext[0] ^= 1;
        assert!(key.open(b"ann 1", &damaged).is_err());
        assert!(seal(&public[1..], b"ann 1", b"token").is_err());
    }

    #[test]
    fn only_the_secret_and_its_purpose_open_a_deposit() {
        let derived = |secret: &[u8], purpose| Derived::of_secret(secret, purpose).unwrap();
        let key = derived(b"secret", "page");
        let sealed = key.seal(b"tokens").unwrap();
        assert_eq!(key.open(&sealed).unwrap().as_slice(), b"tokens");
        assert_ne!(sealed, key.seal(b"tokens").unwrap(), "another nonce");
        for other in [derived(b"Secret", "page"), derived(b"secret", "form")] {
            assert_ne!(other.tag(), key.tag());
            assert!(other.open(&sealed).is_err());
        }
        assert!(key.open(&sealed[1..]).is_err() && key.open(b"short").is_err());
    }

    #[test]
    fn only_the_password_unwraps_the_key() {
        let (key, public) = key_pair();
        let sealed = seal(&public, b"", b"token").unwrap();
        for password in [Password::generate().expose(), b"correct horse".to_vec()] {
            let right = derived(&password, b"0123456789abcdef");
            let wrapped = key.wrap(&right, b"ann").unwrap();
            assert!(wrapped.belongs_to(&right));
            let unwrapped = wrapped.unwrap_key(&right, b"ann").unwrap();
            assert_eq!(unwrapped.open(b"", &sealed).unwrap().as_slice(), b"token");
            assert!(wrapped.unwrap_key(&right, b"bob").is_err());
            for wrong in [derived(b"wrong", b"0123456789abcdef"), derived(&password, b"0123456789abcdeX")] {
                assert!(!wrapped.belongs_to(&wrong));
                assert!(wrapped.unwrap_key(&wrong, b"ann").is_err());
            }
        }
    }
}
