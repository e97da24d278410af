//! Compares our parser of LOGIN and AUTHENTICATE with imap-codec, an IMAP parser by other authors: generated lines,
//! most of them valid, many broken in a byte or two. Both have to accept and refuse the same lines and read the same,
//! except in the classes of lines below, in which postkey differs on purpose.
//!
//! `POSTKEY_LINES` says how many lines; `tests/run` has a million of them.

use std::collections::BTreeMap;

use imap_codec::CommandCodec;
use imap_codec::decode::{CommandDecodeError, Decoder};
use imap_codec::imap_types::command::CommandBody;
use imap_codec::imap_types::core::AString;
use postkey::downstream::{self, Event, Offer, Tls, sasl};
use postkey::protocol::Protocol;
use postkey::wire::framer::Framer;
use postkey::wire::{Capabilities, Frame};

/// The result of a line, as far as both can tell.
#[derive(Debug, PartialEq)]
enum Read {
    /// A whole LOGIN; its strings if they can be a login.
    Login(Option<(Vec<u8>, Vec<u8>)>),
    /// A whole AUTHENTICATE.
    Authenticate,
    /// There is more to come.
    Unfinished,
    Refused,
}

fn ours(line: &[u8]) -> Read {
    let offer = Offer { host: "mail.test".into(), known: Capabilities::default(), tls: Tls::Active, asks_login: true };
    let (mut dialogue, mut framer, mut out) = (downstream::new(Protocol::Imap, offer), Framer::default(), Vec::new());
    framer.push(line);
    let is_login = |line: &[u8]| line.to_ascii_uppercase().windows(6).any(|word| word == b"LOGIN ");
    while let Some(frame) = framer.next(dialogue.want()) {
        let is_line = matches!(frame, Frame::Line(_) | Frame::Overlong(_));
        match dialogue.feed(frame, &mut out) {
            Some(Event::Login(it)) => {
                return match is_login(line) && !is_authenticate(line) {
                    true => Read::Login(Some((it.user.into_bytes(), it.password.expose().to_vec()))),
                    false => Read::Authenticate,
                };
            }
            Some(_) => return Read::Refused,
            None => {}
        }
        let said = String::from_utf8_lossy(&out).into_owned();
        out.clear();
        match said.as_str() {
            // The announced literal, or the first prompt of a mechanism.
            "+ OK\r\n" | "" => {}
            said if said.starts_with("+ ") => return Read::Authenticate,
            said if said.contains(" NO [AUTHENTICATIONFAILED]") && !is_authenticate(line) => return Read::Login(None),
            said if said.contains(" NO ") => return Read::Authenticate,
            _ if is_line => return Read::Refused,
            other => panic!("{other}"),
        }
    }
    Read::Unfinished
}

fn theirs(line: &[u8]) -> Read {
    match CommandCodec::default().decode(line) {
        Ok((_, command)) => match command.body {
            CommandBody::Login { username, password } => {
                let (user, password) = (bytes(&username), bytes(password.declassify()));
                let usable = postkey::wire::Credentials::parse(&user, &password).is_some();
                Read::Login(usable.then_some((user, password)))
            }
            CommandBody::Authenticate { .. } => Read::Authenticate,
            _ => Read::Refused,
        },
        Err(CommandDecodeError::Incomplete | CommandDecodeError::LiteralFound { .. }) => Read::Unfinished,
        Err(CommandDecodeError::Failed) => Read::Refused,
    }
}

fn bytes(string: &AString<'_>) -> Vec<u8> {
    match string {
        AString::Atom(atom) => atom.as_ref().as_bytes().to_vec(),
        AString::String(string) => string.as_ref().to_vec(),
    }
}

fn is_authenticate(line: &[u8]) -> bool {
    line.to_ascii_uppercase().windows(13).any(|word| word == b"AUTHENTICATE ")
}

// ---- Lines.

/// SplitMix64: the same lines in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn line(dice: &mut Dice) -> Vec<u8> {
    let tag = dice.one(&["a", "A001", ".x]", "1-2_3", "~"]);
    let verb = dice.one(&["LOGIN", "login", "LoGiN", "AUTHENTICATE", "authenticate"]);
    let mut line = format!("{tag} {verb} ").into_bytes();
    if verb.eq_ignore_ascii_case("LOGIN") {
        let (user, password) = (string(dice), string(dice));
        line.extend([user, b" ".to_vec(), password].concat());
    } else {
        line.extend(dice.one(&["PLAIN", "plain", "LOGIN", "XOAUTH2", "SCRAM-SHA-1"]).bytes());
        let initial = ["", "", " =", " AGFubkBleGFtcGxlLnRlc3QAczNjcmV0", " AGEAYWI=", " AGEAYQ==", " YQ==", " ?"];
        line.extend(dice.one(&initial).bytes());
    }
    line.extend(b"\r\n");
    for _ in 0..dice.below(6).saturating_sub(3) {
        damage(dice, &mut line);
    }
    line
}

fn string(dice: &mut Dice) -> Vec<u8> {
    let text =
        dice.one(&["ann@example.test", "s3cret", "x", "a]b", "p+q/=", "two words", "\\\"", "100%", "\u{e9}", ""]);
    match dice.below(4) {
        0 => text.bytes().collect(),
        1 => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes(),
        2 => format!("{{{}}}\r\n{text}", text.len()).into_bytes(),
        _ => format!("{{{}+}}\r\n{text}", text.len()).into_bytes(),
    }
}

/// Replaces, adds or removes a byte.
fn damage(dice: &mut Dice, line: &mut Vec<u8>) {
    let byte = dice.one(b" \"\\{}()%*]+=1a\r\n\t\0\x7f\x80\xff");
    let place = dice.below(line.len());
    match dice.below(3) {
        0 => line[place] = byte,
        1 => line.insert(place, byte),
        _ => drop(line.remove(place)),
    }
}

// ---- The differences, and their reasons.

/// A class of lines in which the two may differ, and how.
struct Class {
    why: &'static str,
    is_it: fn(&[u8], &Read, &Read) -> bool,
}

/// All except the first three and the one with NUL exist for old programs, which send such lines.
const CLASSES: &[Class] = &[
    Class {
        why: "postkey judges a line when all of it is there",
        is_it: |_, ours, theirs| *ours == Read::Unfinished && *theirs == Read::Refused,
    },
    Class {
        why: "what follows a mechanism that is not taken is not read; the answer is NO instead of BAD",
        is_it: |line, ours, _| *ours == Read::Authenticate && ![&b"PLAIN"[..], b"LOGIN"].contains(&&*mechanism(line)),
    },
    Class {
        why: "an initial response has to be a message of its mechanism",
        is_it: |line, ours, theirs| {
            *ours == Read::Refused
                && *theirs == Read::Authenticate
                && sasl::decode(initial(line)).is_ok_and(|message| sasl::plain(&message).is_err())
        },
    },
    Class {
        why: "% * \\ and all beyond ASCII may stand in strings as they are",
        is_it: |line, ours, _| is_taken(ours) && line.iter().any(|byte| b"%*\\".contains(byte) || !byte.is_ascii()),
    },
    Class { why: "a line may end in LF alone", is_it: |line, ours, _| is_taken(ours) && ends_in_lf(line) },
    Class {
        why: "a NUL in a literal is answered as a wrong password is",
        is_it: |line, ours, _| *ours == Read::Login(None) && line.contains(&0),
    },
    Class {
        why: "blanks may be more than one, and stand at the end; tabs and CR count as such",
        is_it: |line, ours, _| {
            let line = line.strip_suffix(b"\r\n").unwrap_or(line);
            is_taken(ours) && line.split(|&byte| byte == b' ').any(|word| word.is_empty() || word.trim_ascii() != word)
        },
    },
    Class {
        why: "base64 needs no padding",
        is_it: |line, ours, _| *ours == Read::Authenticate && !initial(line).len().is_multiple_of(4),
    },
];

/// Whether a line ends in LF alone, also if a literal before it has consumed its CR.
fn ends_in_lf(line: &[u8]) -> bool {
    let whole = [line.strip_suffix(b"\n").unwrap_or(line), b"\r\n"].concat();
    let is_bare = |index: usize| index == 0 || line[index - 1] != b'\r';
    (0..line.len()).any(|index| line[index] == b'\n' && is_bare(index)) || theirs(&whole) != Read::Refused
}

fn is_taken(read: &Read) -> bool {
    *read != Read::Refused
}

/// The third and the fourth word of the line.
fn mechanism(line: &[u8]) -> Vec<u8> {
    line.split(|&byte| byte == b' ').nth(2).unwrap_or_default().trim_ascii().to_ascii_uppercase()
}

fn initial(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b' ').nth(3).unwrap_or_default().trim_ascii()
}

#[test]
fn both_read_the_same() {
    let count = std::env::var("POSTKEY_LINES").map_or(100_000, |count| count.parse().unwrap());
    let (mut dice, mut seen, mut unnamed) = (Dice(1), BTreeMap::new(), Vec::new());
    let mut agreed = BTreeMap::new();
    for _ in 0..count {
        let line = line(&mut dice);
        let (ours, theirs) = (ours(&line), theirs(&line));
        if ours == theirs {
            *agreed.entry(matches!(ours, Read::Refused | Read::Unfinished)).or_insert(0) += 1;
            continue;
        }
        match CLASSES.iter().find(|class| (class.is_it)(&line, &ours, &theirs)) {
            Some(class) => *seen.entry(class.why).or_insert(0) += 1,
            None => unnamed.push(format!("{}: {ours:?}, {theirs:?}", line.escape_ascii())),
        }
    }
    println!("{agreed:?} {seen:#?}");
    assert!(unnamed.is_empty(), "{} of {count}\n{}", unnamed.len(), unnamed[..unnamed.len().min(40)].join("\n"));
    assert_eq!(seen.len(), CLASSES.len(), "a class is empty: {seen:?}");
    assert!(agreed.values().all(|&lines| lines > count / 10), "{agreed:?}");
}
