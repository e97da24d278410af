//! Client behaviour: a client of another protocol gets no answer, and a client with too many mistakes is disconnected.

use super::dialogue::split_word;
use crate::wire::Frame;
use crate::wire::framer::begins_tls;

/// The number of bad commands to allow. A person at a terminal and odd programs stay below; a web page that makes a
/// browser post to a mail port does not get far.
const MOST_MISTAKES: u8 = 10;

/// The beginnings of HTTP requests (RFC 9110 section 9, RFC 9113 section 3.4).
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// What a client has done so far.
#[derive(Default)]
pub struct Manners {
    has_spoken: bool,
    mistakes: u8,
}

impl Manners {
    /// Whether this frame comes from a client of another protocol: TLS anywhere, HTTP and SSH in the first line.
    pub fn foreign(&mut self, frame: Frame<'_>) -> bool {
        let first = !std::mem::replace(&mut self.has_spoken, true);
        match frame {
            Frame::Line(line) => first && (line.starts_with(b"SSH-") || (is_method(line) && ends_as_http(line))),
            Frame::Overlong(start) => begins_tls(start) || (first && is_method(start)),
            Frame::Literal(_) => false,
        }
    }

    /// Counts a bad command. Returns whether it was one too many.
    pub fn mistake(&mut self) -> bool {
        self.mistakes = self.mistakes.saturating_add(1);
        self.mistakes >= MOST_MISTAKES
    }
}

fn is_method(line: &[u8]) -> bool {
    METHODS.contains(&split_word(line).0)
}

fn ends_as_http(line: &[u8]) -> bool {
    line.rsplit(|&byte| byte == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/"))
}
