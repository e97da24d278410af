//! An OAuth error (RFC 6749 section 5.2): who has to act, and a sentence for that person.
//!
//! The standard codes are too coarse to act on, so what a provider adds to them decides first: Microsoft's AADSTS numbers, the
//! sub-errors, and Google's words. After that it matters which request failed, and how the client authenticated.

use std::borrow::Cow;

use tracing::debug;

use super::Failure;
use super::error_codes::{BY_REQUEST, CODES, ErrorClass, NUMBERS, RequestKind, Row, SUBTYPES, WORDS};
use super::members::Members;
use super::registration::{Proof, Registration};
use crate::wire::{Redactor, printable};

/// The one who has to act, and a clause that says what happened and what to do.
type Meaning = (ErrorClass, Cow<'static, str>);

/// An error, with the members that Microsoft and Google add.
#[derive(Default)]
pub struct ErrorResponse {
    pub code: String,
    description: String,
    /// Microsoft's `suberror`, Google's `error_subtype`.
    subtype: String,
    /// Microsoft's `error_codes`.
    numbers: Vec<u32>,
    /// The ids that Microsoft's support asks for.
    correlation_id: String,
    /// The secrets of the request, which the error may repeat.
    sent: Redactor,
}

impl ErrorResponse {
    /// `sent` knows the secrets of the request.
    pub fn read(members: &Members, code: String, sent: Redactor) -> Self {
        let numbers = members.get("error_codes").and_then(|numbers| numbers.as_array()).into_iter().flatten();
        let first = |names: &[&str]| names.iter().find_map(|name| members.text(name)).unwrap_or_default();
        Self {
            code,
            description: first(&["error_description", "message", "msg", "detail"]),
            subtype: first(&["suberror", "error_subtype"]),
            numbers: numbers.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect(),
            correlation_id: first(&["correlation_id"]),
            sent,
        }
    }

    /// An error that came with a browser (RFC 6749 section 4.1.2.1).
    pub fn redirected(code: String, description: String) -> Self {
        Self { code, description, ..Self::default() }
    }

    /// The meaning of this error as the answer to a request of this client: a sentence, and the server's own words.
    pub fn failure(&self, request: RequestKind, client: Option<&Registration>) -> Failure {
        debug!(correlation_id = printable(&self.correlation_id), "the authorization server refuses");
        let (class, sentence) = self.meaning(request, client);
        class(format!("{sentence}; the authorization server says {}", self.words()))
    }

    /// Code, description and sub-error on one printable line. The lines of the description after the first have only trace ids.
    pub fn words(&self) -> String {
        let parts = [self.description.lines().next().unwrap_or_default(), &self.subtype];
        let parts = parts.map(|part| part.trim().trim_end_matches('.')).into_iter().filter(|part| !part.is_empty());
        match parts.collect::<Vec<_>>().as_slice() {
            [] => self.sent.quote(&self.code),
            parts => self.sent.quote(&format!("{} ({})", self.code, parts.join(", "))),
        }
    }

    fn meaning(&self, request: RequestKind, client: Option<&Registration>) -> Meaning {
        // The last of several numbers is the cause; the others say where it occurred.
        let numbers = self.numbers.iter().copied().chain(numbers_in(&self.description));
        let by_number = numbers.filter_map(|number| find(NUMBERS, |known| known.contains(&number))).last();
        by_number
            .or_else(|| find(SUBTYPES, |subtype| *subtype == self.subtype))
            .or_else(|| find(WORDS, |(code, words)| *code == self.code && self.description.contains(words)))
            .or_else(|| self.client_error(request, client))
            .or_else(|| find(BY_REQUEST, |(of, code)| *of == request && *code == self.code))
            .or_else(|| find(CODES, |code| *code == self.code))
            .unwrap_or_else(|| self.unknown(request))
    }

    /// The flaw of the client, by the way in which it authenticated.
    fn client_error(&self, request: RequestKind, client: Option<&Registration>) -> Option<Meaning> {
        if !matches!(self.code.as_str(), "invalid_client" | "deleted_client" | "unauthorized_client") {
            return None;
        }
        let proof = client.map_or(&Proof::None, |client| &client.proof);
        if request == RequestKind::Revocation && matches!(proof, Proof::None) {
            let sentence =
                "the provider revokes authorizations only for clients with a secret, and this client has none";
            return Some((Failure::Misconfigured, sentence.into()));
        }
        if client.is_some_and(|client| client.is_self_registered) {
            let sentence = "the provider no longer knows the client as which postkey registered itself: sign in again, which \
                            registers it again";
            return Some((Failure::Ended, sentence.into()));
        }
        let remedy = match proof {
            _ if self.code != "invalid_client" => return None,
            Proof::Secret(_) => return None,
            Proof::None => no_secret(client.map_or(&[], |client| &client.methods.token)),
            Proof::Assertion(_) => {
                ": check client_id, and issuer, subject, audience and life of its client_assertion".to_owned()
            }
            Proof::Key(key) => {
                let remedy = other_algorithm(key.algorithm(), client.map_or(&[], |client| &client.methods.algorithms));
                format!(", which signed by {} with {}: {remedy}", key.algorithm(), key.name())
            }
        };
        Some((Failure::Misconfigured, format!("the provider does not accept the client{remedy}").into()))
    }

    /// The meaning of an unknown code. If it is about a refresh token, a new sign-in mostly helps.
    fn unknown(&self, request: RequestKind) -> Meaning {
        let words = format!("{} {}", self.code, self.description).to_ascii_lowercase();
        let has = |all: &[&str]| all.iter().any(|word| words.contains(word));
        let is_dead = has(&["token", "grant", "session", "authorization"])
            && has(&["expired", "revoked", "invalid", "not found", "not_found", "unknown", "already used", "reuse"]);
        match request == RequestKind::Refresh && is_dead {
            true => (Failure::Ended, "the provider no longer accepts the refresh token: sign in again".into()),
            false => {
                let sentence = "the provider refuses with an unknown error: check the provider's entries";
                (Failure::Misconfigured, sentence.into())
            }
        }
    }
}

/// Whether the tables have this code.
pub fn is_known(code: &str) -> bool {
    CODES.iter().any(|(known, ..)| *known == code)
}

fn no_secret(methods: &[String]) -> String {
    let offered = match methods {
        [] => String::new(),
        methods => {
            format!(", and its metadata offer {}: configure what the registration has", methods.join(", "))
        }
    };
    format!(": check client_id; no secret was sent{offered}")
}

fn other_algorithm(algorithm: &str, offered: &[String]) -> String {
    match offered.is_empty() || offered.iter().any(|one| one == algorithm) {
        true => "check client_id, client_key and the certificate, and try another client_algorithm".to_owned(),
        false => format!("set client_algorithm to one of {}", offered.join(", ")),
    }
}

fn find<K>(rows: &[Row<K>], is_it: impl Fn(&K) -> bool) -> Option<Meaning> {
    let (_, class, sentence) = rows.iter().find(|(key, ..)| is_it(key))?;
    Some((*class, (*sentence).into()))
}

/// The numbers in a description such as `AADSTS70008: The provided ...`.
fn numbers_in(description: &str) -> impl Iterator<Item = u32> {
    description.split("AADSTS").skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(Some(rest), |end| rest.get(..end))?;
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests;
