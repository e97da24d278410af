//! The three mail protocols, and a port for each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mail protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Imap,
    Pop3,
    Smtp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Smtp];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Smtp => "SMTP",
        })
    }
}

/// A port of 127.0.0.1 for each protocol.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    pub imap: u16,
    pub pop3: u16,
    pub smtp: u16,
}

impl Ports {
    pub fn of(&self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::Imap => self.imap,
            Protocol::Pop3 => self.pop3,
            Protocol::Smtp => self.smtp,
        }
    }
}
