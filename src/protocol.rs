//! The mail protocols, how a connection is protected, and how a bearer is sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mail protocol that postkey speaks on both sides. Serialized as its [`Protocol::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IMAP4rev1, RFC 3501.
    Imap,
    /// POP3, RFC 1939.
    Pop3,
    /// SMTP message submission, RFC 6409.
    Smtp,
}

impl Protocol {
    /// In the order in which people see them.
    pub const ALL: [Self; 3] = [Self::Imap, Self::Pop3, Self::Smtp];

    /// The name in configuration files and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Smtp => "smtp",
        }
    }
}

/// The name in capital letters.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Smtp => "SMTP",
        })
    }
}

/// How a connection is protected. Serialized as its [`Security::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// No encryption: only for clients, never for a provider.
    #[serde(rename = "none")]
    Clear,
    /// Unencrypted until `STARTTLS` or `STLS`, then TLS. Nothing else is accepted.
    StartTls,
    /// TLS from the first byte (RFC 8314).
    Tls,
}

impl Security {
    /// The name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "none",
            Self::StartTls => "starttls",
            Self::Tls => "tls",
        }
    }
}

/// For people.
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear => "no encryption",
            Self::StartTls => "STARTTLS",
            Self::Tls => "TLS",
        })
    }
}

/// A SASL mechanism that carries a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Google's and Microsoft's own mechanism.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
}

impl Mechanism {
    /// The name in capability lists and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}
