//! How a client behaves: who speaks no mail protocol gets no answer, and who makes too many mistakes is sent away.

use crate::wire::Frame;
use crate::wire::framer::TLS_RECORD;

/// So many commands may be bad. A person at a terminal and every odd program stay below; a web page that makes a
/// browser post to a mail port does not get far.
const MOST_MISTAKES: u8 = 10;

/// How HTTP requests begin (RFC 9110 section 9, RFC 9113 section 3.4).
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// What a client has done so far.
#[derive(Default)]
pub struct Manners {
    has_spoken: bool,
    mistakes: u8,
}

impl Manners {
    /// Whether this frame shows a client of another protocol: TLS anywhere, HTTP and SSH as the first line.
    pub fn foreign(&mut self, frame: Frame<'_>) -> bool {
        let first = !std::mem::replace(&mut self.has_spoken, true);
        match frame {
            Frame::Line(line) => first && (line.starts_with(b"SSH-") || (is_method(line) && ends_as_http(line))),
            Frame::Overlong(start) => start == TLS_RECORD || (first && is_method(start)),
            Frame::Literal(_) => false,
        }
    }

    /// Counts a bad command. Whether it was one too many.
    pub fn mistake(&mut self) -> bool {
        self.mistakes = self.mistakes.saturating_add(1);
        self.mistakes >= MOST_MISTAKES
    }
}

fn is_method(line: &[u8]) -> bool {
    METHODS.contains(&super::split_word(line).0)
}

fn ends_as_http(line: &[u8]) -> bool {
    line.rsplit(|&byte| byte == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/"))
}
