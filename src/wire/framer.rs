//! Splits a stream of bytes into the lines and literals that a dialogue wants.

use zeroize::{Zeroize, Zeroizing};

use super::{Frame, Want};

/// The number of bytes that identify a TLS handshake.
const HELLO: usize = 4;

/// Memory is allocated in steps of this many bytes, which are enough for a login. It is freed when the framer is empty.
const STEP: usize = 1024;

/// Whether these bytes, where a line should begin, are a TLS handshake: a record (RFC 8446 section 5.1), or the hello
/// of SSL 2.0 by which clients offered SSL 3.0 and TLS (RFC 5246 appendix E.2). Either may contain no line end at all,
/// so there is no point in waiting for one.
///
/// A line end among these bytes ends a line, and the rest is not a handshake. Otherwise the result would depend on how
/// the bytes arrive.
pub fn begins_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 0x03, ..] | [0x80..=0xff, ..=0x09 | 0x0b.., 0x01, 0x00 | 0x03, ..])
}

/// The bytes that have arrived and have not been used yet.
#[derive(Default)]
pub struct Framer {
    bytes: Zeroizing<Vec<u8>>,
    /// The start of the unused bytes.
    start: usize,
    /// The number of unused bytes that are known to contain no line end, so that a line that arrives slowly is scanned
    /// once.
    scanned: usize,
    /// Whether an overlong line has been reported whose end has not arrived yet.
    dropping: bool,
}

impl Framer {
    /// Adds what has arrived. Wipes what was used, because it may have been a password.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = self.bytes.len() - self.start;
        self.bytes.copy_within(self.start.., 0);
        self.bytes.iter_mut().skip(kept).for_each(Zeroize::zeroize);
        self.bytes.truncate(kept);
        self.start = 0;
        let wanted = (kept + bytes.len()).next_multiple_of(STEP);
        if wanted > self.bytes.capacity() || (kept == 0 && wanted < self.bytes.capacity()) {
            let mut larger = Vec::with_capacity(wanted);
            larger.extend_from_slice(&self.bytes);
            self.bytes = Zeroizing::new(larger);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame of the wanted kind, or None until more bytes have arrived.
    pub fn next(&mut self, want: Want) -> Option<Frame<'_>> {
        match want {
            Want::Line { limit } => self.line(limit),
            Want::Literal(length) => self.literal(length),
            Want::Nothing => None,
        }
    }

    /// Whether every byte that arrived has been used.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Frees the memory, if every byte that arrived has been used.
    pub fn release_memory(&mut self) {
        if self.is_empty() {
            (self.bytes, self.start) = (Zeroizing::default(), 0);
        }
    }

    /// Returns all bytes that were not used, which are the first ones of the relay.
    pub fn into_rest(self) -> Vec<u8> {
        // Copy them, because the used bytes beside them are wiped.
        self.unused().to_vec()
    }

    fn unused(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn literal(&mut self, length: usize) -> Option<Frame<'_>> {
        if self.unused().len() < length {
            return None;
        }
        let from = self.start;
        self.start += length;
        self.scanned = 0;
        self.bytes.get(from..self.start).map(Frame::Literal)
    }

    fn line(&mut self, limit: usize) -> Option<Frame<'_>> {
        if self.dropping && !self.drop_line() {
            return None;
        }
        if begins_tls(self.unused()) {
            return self.overlong(self.unused().len().min(HELLO));
        }
        let unseen = self.unused().get(self.scanned..).unwrap_or_default();
        let Some(offset) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.unused().len();
            // One byte beyond the limit may be the CR of a line that fits.
            return if self.scanned > limit + 1 { self.overlong(limit) } else { None };
        };
        let (from, end) = (self.start, self.start + self.scanned + offset);
        self.start = end + 1;
        self.scanned = 0;
        let line = self.bytes.get(from..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(if line.len() > limit { Frame::Overlong(line.get(..limit)?) } else { Frame::Line(line) })
    }

    /// Reports a line that has grown too long, and drops it up to here.
    fn overlong(&mut self, limit: usize) -> Option<Frame<'_>> {
        let from = self.start;
        self.start = self.bytes.len();
        self.scanned = 0;
        self.dropping = true;
        self.bytes.get(from..from + limit).map(Frame::Overlong)
    }

    /// Drops bytes up to the end of an overlong line. Returns whether that end has arrived.
    fn drop_line(&mut self) -> bool {
        let end = self.unused().iter().position(|&byte| byte == b'\n');
        self.start = end.map_or(self.bytes.len(), |offset| self.start + offset + 1);
        self.dropping = end.is_none();
        !self.dropping
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: Want = Want::Line { limit: 8 };

    /// All frames when `bytes` arrive in pieces of the given sizes.
    fn frames(bytes: &[u8], sizes: &[usize]) -> Vec<String> {
        let (mut framer, mut rest, mut sizes) = (Framer::default(), bytes, sizes.iter().cycle());
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
            framer.push(piece);
            rest = later;
            while let Some(frame) = framer.next(LINE) {
                seen.push(format!("{frame:?}"));
            }
        }
        seen
    }

    #[test]
    fn tls_is_recognized_however_it_arrives() {
        for bytes in [&b"\xfc\n\x01\0\n"[..], b"\x92\n\x01\x03\n", b"\x80.\x01\x03\n", b"\x16\x03\n", b"\x16\n\x03\n"] {
            let lines = |sizes: &[usize]| -> Vec<bool> {
                frames(bytes, sizes).iter().map(|frame| frame.starts_with("Line")).collect()
            };
            for size in 1..bytes.len() {
                assert_eq!(lines(&[size]), lines(&[bytes.len()]), "{} by {size}", bytes.escape_ascii());
            }
        }
        assert!(begins_tls(b"\x80.\x01\x03\x01") && begins_tls(b"\x16\x03") && !begins_tls(b"\x80\n\x01\x03\x01"));
    }

    #[test]
    fn lines_end_with_crlf_or_lf_but_not_with_cr() {
        let mut framer = Framer::default();
        framer.push(b"a\r\nb\nc\rd\r\n\r\ne");
        for line in [&b"a"[..], b"b", b"c\rd", b""] {
            assert_eq!(framer.next(LINE), Some(Frame::Line(line)));
        }
        assert_eq!(framer.next(LINE), None);
        assert!(!framer.is_empty());
        assert_eq!(framer.into_rest(), b"e");
    }

    #[test]
    fn literals_may_hold_line_ends() {
        let mut framer = Framer::default();
        framer.push(b"{3}\r\n\r");
        assert_eq!(framer.next(LINE), Some(Frame::Line(b"{3}")));
        assert_eq!(framer.next(Want::Literal(3)), None);
        framer.push(b"\nx");
        assert_eq!(framer.next(Want::Nothing), None);
        assert_eq!(framer.next(Want::Literal(3)), Some(Frame::Literal(b"\r\nx")));
        framer.push(b"\r\n");
        assert_eq!(framer.next(LINE), Some(Frame::Line(b"")));
        assert!(framer.is_empty());
    }

    #[test]
    fn a_tls_handshake_is_reported_at_its_second_byte() {
        let mut framer = Framer::default();
        framer.push(b"\x16");
        assert_eq!(framer.next(LINE), None);
        framer.push(b"\x03");
        assert_eq!(framer.next(LINE), Some(Frame::Overlong(&[0x16, 3])));
    }

    #[test]
    fn a_hello_of_ssl_2_is_reported_at_its_fourth_byte() {
        for hello in [b"\x80\x2e\x01\x00\x02", b"\x80\x2e\x01\x03\x01", b"\x81\x03\x01\x03\x03"] {
            let mut framer = Framer::default();
            framer.push(&hello[..3]);
            assert_eq!(framer.next(LINE), None);
            framer.push(&hello[3..]);
            assert!(matches!(framer.next(LINE), Some(Frame::Overlong(start)) if begins_tls(start)));
        }
        for line in [&b"\x80 NOOP\r\n"[..], "Änn\r\n".as_bytes(), b"a\x80\x01\x03\r\n"] {
            let mut framer = Framer::default();
            framer.push(line);
            assert!(matches!(framer.next(LINE), Some(Frame::Line(_))), "{line:?}");
        }
    }

    #[test]
    fn memory_is_freed_with_the_bytes() {
        let mut framer = Framer::default();
        for _ in 0..10 {
            framer.push(&[b'x'; 1000]);
        }
        assert!(framer.bytes.capacity() <= 10_000 + STEP);
        let limit = Want::Line { limit: 20_000 };
        framer.push(b"\r\n");
        assert!(framer.next(limit).is_some());
        framer.push(b"a NOOP\r\n");
        assert!(framer.bytes.capacity() <= STEP);
        assert!(framer.next(limit).is_some());
        framer.release_memory();
        assert_eq!(framer.bytes.capacity(), 0);
    }

    #[test]
    fn an_overlong_line_is_reported_once_and_not_kept() {
        let mut framer = Framer::default();
        framer.push(b"12345678\r");
        assert_eq!(framer.next(LINE), None);
        framer.push(b"9");
        assert_eq!(framer.next(LINE), Some(Frame::Overlong(b"12345678")));
        for _ in 0..1000 {
            framer.push(&[b'x'; 1000]);
            assert_eq!(framer.next(LINE), None);
        }
        assert!(framer.bytes.len() <= 1000);
        framer.push(b"\r\nok\r\n");
        assert_eq!(framer.next(LINE), Some(Frame::Line(b"ok")));
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_bytes_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..60),
            sizes in proptest::collection::vec(1..20_usize, 1..10),
        ) {
            prop_assert_eq!(frames(&bytes, &[1000]), frames(&bytes, &sizes));
        }
    }
}
