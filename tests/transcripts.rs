//! Replays the conversations in `tests/transcripts`: every burst whole, byte by byte, and split in two at every
//! position. POSTKEY_SPLITS limits these positions, to save time.
//!
//! A transcript is a text file in ASCII. Its first comment says what it shows, its first other line which side it is
//! about:
//!
//! ```text
//! # A command pipelined behind the login is left for the relay.
//! downstream imap tls=absent known="IDLE;LITERAL+"
//! C: a LOGIN ann@example.test s3cret       consecutive lines of the other side are one burst
//! C: b NOOP
//! = login ann@example.test s3cret          an event that the dialogue reports
//! = accept "IDLE"                          an act of the session
//! S: a OK [CAPABILITY IDLE] Logged in.     a line that the dialogue sends, exactly
//! = rest "b NOOP\r\n"                      what the framer holds then
//! = replay "MAIL FROM:<>\r\n"              what is handed to the provider ahead of that
//! ```
//!
//! The side towards a provider has the header `upstream imap security=tls` (or `starttls`) and these words:
//!
//! ```text
//! = starttls | = ready "LIST" | = accepted ["LIST"] | = rejected VERDICT "words"
//! = refused VERDICT "words" | = no-starttls | = starttls-later | = preauth | = no-mechanism "offered" | = broken "what it did"
//! = tls started | = authenticate USER TOKEN MECHANISM;..
//! ```
//!
//! What the provider wants the person to see follows accepted, rejected, refused, accept or refuse: `alert "words"`,
//! once for each.
//!
//! In lines and words `\r`, `\n`, `\\`, `\"` and `\xNN` are escapes; a line that ends with a single `\` has no CRLF.
//! What a dialogue sends and reports has to be written down completely: nothing more, nothing less, in this order.

#[path = "transcripts/sides.rs"]
mod sides;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use postkey::protocol::Protocol;
use postkey::wire::framer::Framer;

use sides::{Act, Options, Subject, subject};

#[test]
fn every_transcript_holds_however_its_bytes_arrive() {
    let mut files = Vec::new();
    for protocol in Protocol::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(protocol.name());
        let before = files.len();
        files.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        assert!(files.len() - before > 60, "the transcripts of {protocol} are not all there");
    }
    let failures: Vec<String> =
        files.iter().filter_map(|path| Script::read(path).and_then(|it| it.check()).err()).collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[test]
fn the_transcript_that_contributing_shows_holds() {
    let text =
        include_str!("../CONTRIBUTING.md").split("```transcript\n").nth(1).and_then(|rest| rest.split("```").next());
    Script::parse(Path::new("CONTRIBUTING.md"), text.expect("a transcript")).and_then(|it| it.check()).unwrap();
}

/// The distance from one position of a split to the next, in bursts of this length.
fn stride(longest: usize) -> usize {
    let most = std::env::var("POSTKEY_SPLITS").ok().map(|most| most.parse().expect("POSTKEY_SPLITS is a number"));
    most.map_or(1, |most| longest.div_ceil(most).max(1))
}

// ---- Reading a transcript.

struct Script {
    path: PathBuf,
    role: String,
    protocol: Protocol,
    options: Options,
    /// The steps, each with the number of its line.
    steps: Vec<(usize, Step)>,
}

enum Step {
    /// The other side sends this.
    Burst(Vec<u8>),
    /// The dialogue sends this line.
    Line(Vec<u8>),
    /// The session acts, or the dialogue reports an event.
    Words(Vec<String>),
}

impl Script {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let fault = |number: usize, what: &str| format!("{}:{number}: {what}", path.display());
        if !text.is_ascii() || !text.starts_with("# ") {
            return Err(fault(1, "a transcript is ASCII and begins with its title in a comment"));
        }
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (number, header) = lines.next().ok_or_else(|| fault(1, "there is no header line"))?;
        let header = words(header);
        let [role, protocol, options @ ..] = header.as_slice() else {
            return Err(fault(number, "a header names role and protocol"));
        };
        let protocol = Protocol::ALL.into_iter().find(|it| it.name() == protocol);
        let mut script = Self {
            path: path.to_owned(),
            role: role.clone(),
            protocol: protocol.ok_or_else(|| fault(number, "no such protocol"))?,
            options: options.iter().filter_map(|it| it.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect(),
            steps: Vec::new(),
        };
        for (number, line) in lines {
            script.add(number, line).ok_or_else(|| fault(number, "a line begins with `C: `, `S: `, `= ` or `#`"))?;
        }
        Ok(script)
    }

    fn add(&mut self, number: usize, line: &str) -> Option<()> {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        let theirs = if self.role == "downstream" { "C:" } else { "S:" };
        match (sign, self.steps.last_mut()) {
            ("=", _) => self.steps.push((number, Step::Words(words(rest)))),
            (sign, Some((_, Step::Burst(burst)))) if sign == theirs => burst.extend(line_bytes(rest)),
            (sign, _) if sign == theirs => self.steps.push((number, Step::Burst(line_bytes(rest)))),
            ("C:" | "S:", _) => self.steps.push((number, Step::Line(line_bytes(rest)))),
            _ => return None,
        }
        Some(())
    }

    /// Replays in all three ways. The first difference is the error.
    fn check(&self) -> Result<(), String> {
        let bursts = self.steps.iter().map(|(_, step)| if let Step::Burst(bytes) = step { bytes.len() } else { 0 });
        let longest = bursts.max().unwrap_or(0);
        self.replay("whole", &|burst| vec![burst])?;
        self.replay("byte by byte", &|burst| burst.chunks(1).collect())?;
        for position in (1..longest).step_by(stride(longest)) {
            self.replay(&format!("split at {position}"), &|burst| halves(burst, position))?;
        }
        Ok(())
    }

    fn replay(&self, way: &str, cut: &dyn Fn(&[u8]) -> Vec<&[u8]>) -> Result<(), String> {
        let place = |number: usize, what: String| format!("{}:{number}: ({way}) {what}", self.path.display());
        let mut run = Run::new(self).ok_or_else(|| place(1, "no such role".into()))?;
        for (number, step) in &self.steps {
            run.step(step, cut).map_err(|what| place(*number, what))?;
        }
        let last = self.steps.last().map_or(1, |(number, _)| *number);
        run.nothing_is_left().map_err(|what| place(last, what))
    }
}

fn halves(burst: &[u8], position: usize) -> Vec<&[u8]> {
    let (one, two) = burst.split_at(position.min(burst.len()));
    vec![one, two]
}

// ---- Running a transcript.

/// What a dialogue did.
#[derive(PartialEq)]
enum Seen {
    Line(Vec<u8>),
    Event(Vec<String>),
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(bytes) => write!(f, "line `{}`", bytes.escape_ascii()),
            Self::Event(words) => write!(f, "event {words:?}"),
        }
    }
}

struct Run {
    subject: Box<dyn Subject>,
    framer: Framer,
    /// What the dialogue did and the transcript has not mentioned yet.
    seen: VecDeque<Seen>,
    hung_up: bool,
}

impl Run {
    fn new(script: &Script) -> Option<Self> {
        let mut out = Vec::new();
        let subject = subject(&script.role, script.protocol, &script.options, &mut out)?;
        let mut run = Self { subject, framer: Framer::default(), seen: VecDeque::new(), hung_up: false };
        run.note(&out, None);
        Some(run)
    }

    fn step(&mut self, step: &Step, cut: &dyn Fn(&[u8]) -> Vec<&[u8]>) -> Result<(), String> {
        match step {
            Step::Burst(bytes) => {
                self.all_is_told()?;
                for piece in cut(bytes) {
                    self.framer.push(piece);
                    self.pump();
                }
                Ok(())
            }
            Step::Line(line) => self.expect(&Seen::Line(line.clone())),
            Step::Words(words) => self.words(words),
        }
    }

    fn words(&mut self, words: &[String]) -> Result<(), String> {
        let brief: Vec<&str> = words.iter().map(String::as_str).collect();
        if let ["rest", expected] = brief.as_slice() {
            let rest = latin1(&std::mem::take(&mut self.framer).into_rest());
            return if rest == *expected { Ok(()) } else { Err(format!("the framer holds {rest:?}")) };
        }
        if brief == ["tls", "started"] && !self.framer.is_empty() {
            return Err("a session hangs up here: there are bytes from before the handshake".into());
        }
        let mut out = Vec::new();
        let event = match self.subject.act(&brief, &mut out) {
            Act::Done => None,
            Act::Event(event) => Some(event),
            Act::Unknown => return self.expect(&Seen::Event(words.to_vec())),
        };
        self.all_is_told()?;
        self.note(&out, event);
        self.pump();
        Ok(())
    }

    /// Lets the dialogue use what has arrived, as a session does.
    fn pump(&mut self) {
        while let Some(frame) = self.framer.next(self.subject.want()) {
            let mut out = Vec::new();
            let event = self.subject.feed(frame, &mut out);
            self.note(&out, event);
        }
    }

    fn note(&mut self, out: &[u8], event: Option<Vec<String>>) {
        self.seen.extend(out.split_inclusive(|&byte| byte == b'\n').map(|line| Seen::Line(line.to_vec())));
        self.hung_up |= event.as_ref().is_some_and(|words| words == &["hang", "up"]);
        self.seen.extend(event.map(Seen::Event));
    }

    fn expect(&mut self, expected: &Seen) -> Result<(), String> {
        match self.seen.pop_front() {
            Some(seen) if seen == *expected => Ok(()),
            Some(seen) => Err(format!("expected {expected}\n    came {seen}")),
            None => Err(format!("expected {expected}\n    came nothing")),
        }
    }

    fn all_is_told(&self) -> Result<(), String> {
        self.seen.front().map_or(Ok(()), |seen| Err(format!("before this came {seen}")))
    }

    /// At the end nothing may be unmentioned or unread. After a hang-up nobody reads.
    fn nothing_is_left(self) -> Result<(), String> {
        if let Some(seen) = self.seen.front() {
            return Err(format!("after this came {seen}"));
        }
        let rest = latin1(&self.framer.into_rest());
        if rest.is_empty() || self.hung_up { Ok(()) } else { Err(format!("the framer still holds {rest:?}")) }
    }
}

// ---- Escapes. One char is one byte, as in Latin-1, so that words can hold any byte.

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn line_bytes(line: &str) -> Vec<u8> {
    let slashes = line.bytes().rev().take_while(|&byte| byte == b'\\').count();
    let (line, end) = if slashes % 2 == 1 { (&line[..line.len() - 1], "") } else { (line, "\r\n") };
    let mut chars = line.chars();
    let mut bytes = Vec::new();
    while let Some(byte) = chars.next().map(|c| unescape(c, &mut chars)) {
        bytes.push(byte);
    }
    bytes.extend_from_slice(end.as_bytes());
    bytes
}

/// Splits at blanks. Between double quotes, blanks belong to the word.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(char::from(unescape(c, &mut chars))),
        }
    }
    words.extend(word);
    words
}

fn unescape(c: char, rest: &mut std::str::Chars<'_>) -> u8 {
    let escaped = if c == '\\' { rest.next() } else { None };
    match escaped {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('x') => {
            let digits: String = rest.take(2).collect();
            u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("no byte: \\x{digits}"))
        }
        Some(other) => u8::try_from(other).unwrap(),
        None => u8::try_from(c).unwrap(),
    }
}

#[test]
fn a_transcript_that_tells_something_else_is_found_out_with_its_place() {
    let check = |text: &str| Script::parse(Path::new("it.txt"), text).and_then(|script| script.check());
    let told = "# T\ndownstream pop3\nS: +OK postkey ready.\nC: QUIT\nS: +OK Bye.\n= hang up\n";
    assert_eq!(check(told), Ok(()));
    for (part, other, place) in [
        ("+OK Bye.", "+OK Goodbye.", "it.txt:5: (whole) expected line"),
        ("C: QUIT\n", "", "it.txt:4: (whole) expected line"),
        ("S: +OK Bye.\n", "", "it.txt:5: (whole) expected event"),
        ("= hang up\n", "", "it.txt:5: (whole) after this came event"),
        ("= hang up", "= rest \"x\"", "it.txt:6: (whole) the framer holds"),
        ("C: QUIT", "X: QUIT", "it.txt:4: a line begins"),
    ] {
        let error = check(&told.replace(part, other)).unwrap_err();
        assert!(error.starts_with(place), "{error}");
    }
}
