//! A record as it is on the disk: one line with a checksum, and the content.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The format that this version writes. The first line is the same in every format, so that an older version recognizes a
/// newer record and does not touch it.
pub const FORMAT: u32 = 2;

/// The beginning of a record's first line.
const MAGIC: &str = "postkey-record";

/// The record of one address.
#[derive(Clone)]
pub struct Record {
    pub format: u32,
    /// The number of this write. It only grows, so that it shows which of two records is newer.
    pub serial: u64,
    /// JSON, in formats 1 and 2.
    pub content: Vec<u8>,
}

impl Record {
    /// Reads the bytes of this key. None if a single bit differs from what was written, or if they belong to another key.
    pub fn read(key: &str, bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let mut words = std::str::from_utf8(lines.next()?).ok()?.split(' ').skip(1);
        let (format, serial) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let record = Self { format, serial, content: lines.next()?.to_vec() };
        (record.to_bytes(key) == bytes).then_some(record)
    }

    /// Whether damaged bytes come from this very write: their first line or their content is still whole.
    pub fn is_left_in(&self, key: &str, damaged: &[u8]) -> bool {
        let bytes = self.to_bytes(key);
        let (first, content) = bytes.split_at(bytes.len() - self.content.len());
        damaged.starts_with(first) || damaged.ends_with(content) && !content.is_empty()
    }

    /// The bytes to write. Their first line is `postkey-record FORMAT SERIAL CHECKSUM`.
    pub fn to_bytes(&self, key: &str) -> Vec<u8> {
        let Self { format, serial, content } = self;
        let about = format!("{format} {serial}");
        let checksum = checksum(&[about.as_bytes(), key.as_bytes(), content]);
        let mut bytes = format!("{MAGIC} {about} {checksum}\n").into_bytes();
        bytes.extend(content);
        bytes
    }
}

/// The SHA-256 of these parts, each preceded by its length, in base64.
pub fn checksum(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    BASE64_STANDARD_NO_PAD.encode(hash.finalize())
}

/// Serializes bytes as base64.
pub mod text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)
    }
}

/// Serializes what several records share as if each had its own.
pub mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(shared: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        shared.as_ref().serialize(serializer)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ann@example.test";

    fn bytes() -> Vec<u8> {
        Record { format: FORMAT, serial: 1_800_000_000, content: b"{\"a\":\n1}".to_vec() }.to_bytes(KEY)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_only_under_its_own_key() {
        let record = Record::read(KEY, &bytes()).unwrap();
        assert_eq!((record.format, record.serial), (FORMAT, 1_800_000_000));
        assert_eq!(record.content, b"{\"a\":\n1}");
        assert!(Record::read("ben@example.test", &bytes()).is_none());
    }

    #[test]
    fn damaged_bytes_show_which_write_they_were() {
        let (bytes, record) = (bytes(), Record::read(KEY, &bytes()).unwrap());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(record.is_left_in(KEY, &damaged), "bit {bit}");
            let other = Record { serial: record.serial + 1, content: b"{\"a\":\n2}".to_vec(), ..record.clone() };
            assert!(!other.is_left_in(KEY, &damaged), "bit {bit}");
        }
        assert!(record.is_left_in(KEY, &bytes[..bytes.len() - 1]));
        for length in [0, 1, 20] {
            assert!(!record.is_left_in(KEY, &bytes[..length]), "too little is left to tell");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let bytes = bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(KEY, &damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Record::read(KEY, &bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
