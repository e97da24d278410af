//! An IMAP command as clients send it: a tag, a name, and strings in all their forms (RFC 3501 sections 4.3 and 9).

use zeroize::Zeroizing;

use crate::downstream::dialogue::verb;
use crate::wire::split_word;

/// The longest tag to accept. Clients use up to a dozen bytes, and it is repeated in lines of 510.
const LONGEST_TAG: usize = 64;

/// A command that is complete or still arriving.
pub struct Command {
    /// Its name in upper case.
    pub verb: String,
    pieces: Vec<Piece>,
}

/// A piece of a command. Any of them can contain a password.
enum Piece {
    Text(Zeroizing<Vec<u8>>),
    Literal(Zeroizing<Vec<u8>>),
}

/// The end of a line that announces a literal: `{5}`, or `{5+}` (RFC 7888).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its size in bytes; None if it is too large for a number.
    pub length: Option<usize>,
    /// Whether the client waits for our permission before it sends the literal.
    pub waits: bool,
}

/// The tag at the beginning of a line, if there is one. It can be echoed unchanged.
pub fn tag(line: &[u8]) -> Option<&str> {
    let tag = split_word(line).0;
    let fits = |&byte: &u8| byte.is_ascii_graphic() && !br#"(){%*"\+"#.contains(&byte);
    let is_tag = (1..=LONGEST_TAG).contains(&tag.len()) && tag.iter().all(fits);
    if is_tag { std::str::from_utf8(tag).ok() } else { None }
}

impl Command {
    /// Creates a command from its first line. Returns it with the arguments after its name.
    pub fn new(line: &[u8]) -> (Self, &[u8]) {
        let (name, arguments) = split_word(split_word(line).1.trim_ascii_start());
        (Self { verb: verb(name), pieces: Vec::new() }, arguments)
    }

    /// Adds a piece of the command line, up to its end or to the literal that it announces.
    pub fn add_text(&mut self, text: &[u8]) -> Option<Announcement> {
        let (text, announcement) = split_announcement(text);
        self.pieces.push(Piece::Text(Zeroizing::new(text.to_vec())));
        announcement
    }

    pub fn add_literal(&mut self, bytes: &[u8]) {
        self.pieces.push(Piece::Literal(Zeroizing::new(bytes.to_vec())));
    }

    /// The number of bytes in memory.
    pub fn size(&self) -> usize {
        let size = |piece: &Piece| match piece {
            Piece::Text(bytes) | Piece::Literal(bytes) => bytes.len(),
        };
        self.pieces.iter().map(size).sum()
    }

    pub fn literals(&self) -> usize {
        self.pieces.iter().filter(|piece| matches!(piece, Piece::Literal(_))).count()
    }

    /// The arguments as written, up to the first literal.
    pub fn text(&self) -> &[u8] {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => b"",
        }
    }

    /// The arguments as strings: atoms, quoted strings and literals, in their order. None if they are not strings.
    pub fn strings(&self) -> Option<Vec<Zeroizing<Vec<u8>>>> {
        let mut strings = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Literal(bytes) => strings.push(bytes.clone()),
                // A blank separates a literal from what follows; only the line's end needs none.
                Piece::Text(text) if index > 0 && !text.starts_with(b" ") => {
                    return (text.is_empty() && index + 1 == self.pieces.len()).then_some(strings);
                }
                Piece::Text(text) => add_strings(text, &mut strings)?,
            }
        }
        Some(strings)
    }
}

fn split_announcement(text: &[u8]) -> (&[u8], Option<Announcement>) {
    match announcement(text) {
        Some((before, announcement)) => (before, Some(announcement)),
        None => (text, None),
    }
}

fn announcement(text: &[u8]) -> Option<(&[u8], Announcement)> {
    let open = text.iter().rposition(|&byte| byte == b'{')?;
    let (before, count) = (text.get(..open)?, text.get(open + 1..)?.strip_suffix(b"}")?);
    let (digits, waits) = count.strip_suffix(b"+").map_or((count, true), |digits| (digits, false));
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let is_separate = before.last().is_none_or(|byte| b" (".contains(byte));
    let length = std::str::from_utf8(digits).ok()?.parse().ok();
    (is_number && is_separate).then_some((before, Announcement { length, waits }))
}

/// Adds the strings of a piece without literals. Extra blanks do no harm.
fn add_strings(text: &[u8], strings: &mut Vec<Zeroizing<Vec<u8>>>) -> Option<()> {
    let mut rest = text.trim_ascii();
    while let Some(first) = rest.first() {
        let (string, after) = if *first == b'"' { quoted(rest)? } else { atom(rest)? };
        if after.first().is_some_and(|&byte| byte != b' ') {
            return None;
        }
        strings.push(string);
        rest = after.trim_ascii_start();
    }
    Some(())
}

/// An atom, and what follows. `% * \ ]` and bytes above ASCII are accepted, because passwords are sent like that.
fn atom(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, &[u8])> {
    let ends = |byte: &u8| byte.is_ascii_control() || br#" (){""#.contains(byte);
    let (atom, after) = text.split_at_checked(text.iter().position(ends).unwrap_or(text.len()))?;
    (!atom.is_empty()).then(|| (Zeroizing::new(atom.to_vec()), after))
}

/// A quoted string, and what follows. A backslash before anything but `"` and `\` stands for itself.
fn quoted(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, &[u8])> {
    let mut string = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some((string, after)),
            [b'\0' | b'\r', ..] | [] => return None,
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] | [byte, after @ ..] => {
                string.push(*byte);
                after
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut strings = Vec::new();
        add_strings(text, &mut strings)?;
        Some(strings.iter().map(|string| string.to_vec()).collect())
    }

    #[test]
    fn strings_are_read_in_all_forms_that_clients_send() {
        for (text, expected) in [
            (&b"ann@example.test \"a b\""[..], [&b"ann@example.test"[..], b"a b"]),
            (br#"  "an\"n"   "a\\b"  "#, [br#"an"n"#, br"a\b"]),
            (br#""a\b" a\b]%*"#, [br"a\b", br"a\b]%*"]),
            (b"\"\xe9\" \xff", [b"\xe9", b"\xff"]),
            (b"\"\" \"{5}\"", [b"", b"{5}"]),
        ] {
            assert_eq!(strings(text), Some(expected.map(<[u8]>::to_vec).to_vec()), "{}", text.escape_ascii());
        }
        for text in [&b"\"open"[..], b"\"a\"b", b"a\"b\"", b"a(b", b"(a)", b"a{5}", b"a\x01", b"\"a\\\""] {
            assert_eq!(strings(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_blank_separates_a_literal_from_what_follows() {
        let strings = |pieces: [&str; 2]| {
            let (mut command, arguments) = Command::new(b"a LOGIN {3}");
            assert!(command.add_text(arguments).is_some());
            command.add_literal(b"ann");
            if command.add_text(pieces[0].as_bytes()).is_some() {
                command.add_literal(b"s3cret");
                command.add_text(pieces[1].as_bytes());
            }
            command.strings().map(|strings| strings.len())
        };
        assert_eq!(strings([" {6}", ""]), Some(2));
        assert_eq!(strings([" s3cret", ""]), Some(2));
        assert_eq!(strings(["", ""]), Some(1));
        for glued in [["{6}", ""], ["s3cret", ""], [" {6}", "x"]] {
            assert_eq!(strings(glued), None, "{glued:?}");
        }
    }

    #[test]
    fn announcements_are_at_the_end_after_a_blank() {
        let read = |text: &[u8]| split_announcement(text).1.map(|it| (it.length, it.waits));
        assert_eq!(read(b"{5}"), Some((Some(5), true)));
        assert_eq!(read(b"ann {0005+}"), Some((Some(5), false)));
        assert_eq!(read(b"(\"name\" {0}"), Some((Some(0), true)));
        assert_eq!(read(b"{99999999999999999999+}"), Some((None, false)));
        for text in [&b"{-1}"[..], b"{+1}", b"{}", b"{+}", b"{5-}", b"x{5}", b"~{5}", b"{5} ", b"\"{5}\"", b"5}"] {
            assert_eq!(read(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn only_tags_that_can_be_echoed_are_accepted() {
        let long = [b'x'; 65];
        assert_eq!(tag(b"A.1-]'<> NOOP"), Some("A.1-]'<>"));
        for line in [&b""[..], b" NOOP", b"+ x", b"a\x01 x", b"a\xe9 x", b"a{ x", b"* x", b"a\\ x", &long] {
            assert_eq!(tag(line), None, "{}", line.escape_ascii());
        }
    }
}
