//! Private keys in the files that people have: PEM, DER, or PKCS#12 with a certificate.

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::secret::Secret;

/// A private key, and its certificate if the same file has it.
pub struct PrivateKey {
    pub key: PrivateKeyDer<'static>,
    /// In DER.
    pub certificate: Option<Vec<u8>>,
}

impl PrivateKey {
    /// Reads the first private key in a PEM file (RFC 7468), or the key of a PKCS#12 file (RFC 7292), also with old RC2 and 3DES
    /// encryption.
    ///
    /// # Errors
    ///
    /// A sentence that says what the file is and what to do. It quotes nothing of the file.
    pub fn read(file: &Secret, password: Option<&Secret>) -> Result<Self, String> {
        let bytes = file.expose();
        if is_pkcs12(bytes) {
            return pkcs12(bytes, password);
        }
        if bytes.first() == Some(&SEQUENCE)
            && let Ok(key) = PrivateKeyDer::try_from(bytes.to_vec())
        {
            return Ok(Self { key, certificate: None });
        }
        if let Ok(key) = PrivateKeyDer::from_pem_slice(bytes) {
            return Ok(Self { key, certificate: None });
        }
        let is_encrypted = bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
        Err(match is_encrypted {
            true => {
                "the private key in PEM is encrypted; run `openssl pkey -in FILE -out NEWFILE` to write it without a \
                     passphrase, or use a PKCS#12 file with its password"
                    .to_owned()
            }
            false => "there is no private key in PEM, and it is not a PKCS#12 file".to_owned(),
        })
    }
}

/// Marks an encrypted key in PEM (RFC 7468 section 11, and OpenSSL's older form).
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// The first byte of a key or a PKCS#12 file in DER (X.690 section 8.9), but never of PEM.
const SEQUENCE: u8 = 0x30;

/// Whether this is a sequence that begins with the integer 3, the version of PFX (RFC 7292 section 4). Its length may have any
/// form (X.690 section 8.1.3).
fn is_pkcs12(bytes: &[u8]) -> bool {
    let [SEQUENCE, length, rest @ ..] = bytes else { return false };
    let skipped = if *length > 0x80 { usize::from(*length - 0x80) } else { 0 };
    rest.get(skipped..).is_some_and(|content| content.starts_with(&[2, 1, 3]))
}

fn pkcs12(bytes: &[u8], password: Option<&Secret>) -> Result<PrivateKey, String> {
    let text = std::str::from_utf8(password.map_or(b"", Secret::expose))
        .map_err(|_| "the password of the PKCS#12 file is not UTF-8".to_owned())?;
    let store = KeyStore::from_pkcs12(bytes, text, Pkcs12ImportPolicy::Relaxed).map_err(|_| match password {
        None => "it is a PKCS#12 file, but its password is missing; add it beside the key".to_owned(),
        Some(_) => "the PKCS#12 file does not open: the password is wrong, the file is damaged, or it uses an encryption \
                    that postkey does not know; run `openssl pkcs12 -in FILE -nodes -legacy -out NEWFILE` to convert it to PEM"
            .to_owned(),
    })?;
    let (_, chain) = store.private_key_chain().ok_or("there is no private key in the PKCS#12 file")?;
    let key = PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec()).into();
    Ok(PrivateKey { key, certificate: chain.certs().first().map(|certificate| certificate.as_der().to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &[u8] = include_bytes!("../../tests/support/signing-key.pem");
    /// Made by OpenSSL: 40-bit RC2 for the certificate, 3DES for the key, as in old exports of Windows and Java.
    const LEGACY: &[u8] = include_bytes!("../../tests/support/signing-legacy.p12");
    /// Made by OpenSSL 3: AES-256 and PBKDF2.
    const MODERN: &[u8] = include_bytes!("../../tests/support/signing-modern.p12");

    fn read(file: &[u8], password: Option<&str>) -> Result<PrivateKey, String> {
        let password = password.map(|password| Secret::new(password.into()));
        PrivateKey::read(&Secret::new(file.to_vec()), password.as_ref())
    }

    fn complaint(file: &[u8], password: Option<&str>) -> String {
        read(file, password).err().expect("a complaint")
    }

    #[test]
    fn a_key_is_the_same_in_every_format() {
        let pem = read(PEM, None).unwrap();
        assert!(pem.certificate.is_none());
        for file in [LEGACY, MODERN] {
            let own = read(file, Some("notasecret")).unwrap();
            assert!(own.key.secret_der() == pem.key.secret_der());
            assert!(own.certificate.is_some());
        }
        let der = read(pem.key.secret_der(), None).unwrap();
        assert!(der.key.secret_der() == pem.key.secret_der());
    }

    #[test]
    fn an_unreadable_file_is_explained() {
        assert!(complaint(LEGACY, None).contains("its password is missing"));
        for (file, password) in [(LEGACY, "wrong"), (MODERN, ""), (&MODERN[..500], "notasecret")] {
            assert!(complaint(file, Some(password)).contains("the password is wrong"), "{password}");
        }
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(complaint(encrypted, None).contains("is encrypted"));
        for nothing in [&b""[..], b"nonsense", b"0", &[0x30, 0x82], b"-----BEGIN CERTIFICATE-----"] {
            assert!(!complaint(nothing, None).is_empty());
        }
    }
}
