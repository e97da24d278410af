//! The state of an authorization's newest access token, which decides what a login does next: send it to the provider,
//! wait, have it replaced, or give up. `docs/design/architecture.md` has this as a table.
//!
//! Nothing here waits, locks or reads a clock: `tokens.rs` does that.
//!
//! There are two rules. First, however many clients come, a token that the provider no longer accepts is sent once: while
//! nobody knows whether it is still good, one login sends it and the others wait for the answer. Second, a *new* token that is
//! refused before it ever worked is not replaced at once, because the next one would be no better, and providers count loops.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::pauses::{LONGEST_PAUSE, POSTPONED, pause_after};
use crate::clock::Moment;
use crate::oauth::Failure;
use crate::protocol::{Mechanism, Protocol};
use crate::wire::Refusal;

/// How long a token counts as new. Some servers need a few seconds to learn of a new token.
const NEW: Duration = Duration::from_secs(60);

/// How long the first refusal of a new token counts; doubled after each further one.
const LOOP: Duration = Duration::from_secs(60);

/// The upper limit. Somebody who corrects something at the provider runs `postkey test`, or waits this long.
const LONGEST_LOOP: Duration = Duration::from_secs(900);

/// The least age of a token that may have ended when its server reports only a temporary problem. A younger one has hardly
/// ended, and the next would be no better.
const SUSPECT: Duration = Duration::from_secs(600);

/// How long a login may keep the others waiting for its server's answer. Then the next one sends the token, so that a server
/// that needs half a minute to accept a login serves several clients at a time.
const SLOW: Duration = Duration::from_secs(5);

/// After so many refusals without a reason an authorization counts as ended, because some servers answer a dead refresh token
/// like that. The pauses between them grow, so this takes at least a minute, and longer than a server needs to start.
const UNEXPLAINED: u32 = 5;

/// A mailbox and one of its protocols. One may accept a token that another refuses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mailbox {
    pub(super) address: String,
    pub(super) protocol: Protocol,
}

/// How long a token will be valid, compared with what it is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Long enough.
    Enough,
    /// Not long enough, but it still works.
    Little,
    /// It has expired.
    Nothing,
}

/// The next step of a login that needs a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sends the newest token to the provider.
    Send,
    /// Starts a refresh, and waits for it.
    Refresh,
    /// Waits for the refresh that is under way.
    Wait,
    /// Gets this answer at once.
    Answer(Refusal),
}

/// Whether a login that is connected to its server sends the token now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendDecision {
    /// It does, and the others wait for its answer.
    First(TokenProbe),
    /// It does, because another login has succeeded while it waited.
    Follow,
    /// It waits for another login's answer, or until this time.
    Wait(Instant),
    /// The token must not be sent any more: [`TokenState::next`] says what to do.
    Stale,
}

/// Identifies the login that sends a token of which nobody knows whether it is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenProbe {
    generation: u64,
    begun: Instant,
}

/// The state of an authorization's tokens.
pub(super) struct TokenState {
    newest: NewestToken,
    mailboxes: HashMap<Mailbox, History>,
    is_refreshing: bool,
    /// The last refresh, if it failed, and when to try again.
    failure: Option<(Retry, Refusal)>,
    /// How many refreshes have failed since the last success.
    failed_in_a_row: u32,
    /// How many of them the server has refused without a reason.
    unexplained: u32,
    /// Incremented when somebody may have corrected the cause of earlier failures, which do not count any more then.
    remedies: u64,
    past_failure: Option<PastFailure>,
    /// The remedy that somebody has to apply before the tokens are refreshed again.
    needed: Option<String>,
}

struct NewestToken {
    generation: u64,
    /// When the authorization server gave it to this process; None if it comes from the vault.
    obtained: Option<Instant>,
    /// The mailboxes in which it has worked. Emptied when it turns out to have ended.
    worked: HashSet<Mailbox>,
    /// Where it was refused, and whether that says something about this mailbox only.
    refused: HashMap<Mailbox, bool>,
    /// The login whose answer the others wait for.
    probe: Option<TokenProbe>,
    /// The mailboxes whose servers reported a problem that may mean its end. Nobody sends it while it is being replaced.
    troubled: HashSet<Mailbox>,
    /// How many logins have succeeded with it.
    logins: u64,
}

/// How a mailbox's server has answered so far.
#[derive(Default)]
struct History {
    /// Refusals since the last success.
    refusals: u32,
    /// Refusals of new tokens since the last success.
    loops: u32,
    /// The refusal of a new token, and how long it counts.
    refusal: Option<(Instant, Refusal)>,
    /// The mechanism of the last attempt.
    mechanism: Option<Mechanism>,
    /// Whether that has worked.
    works: bool,
    /// Whether a token was replaced because of this server's problem, since the last success.
    was_troubled: bool,
    login_failure: Option<PastFailure>,
}

/// When a refresh that has failed may be tried again.
#[derive(Debug, PartialEq, Eq)]
enum Retry {
    At(Instant),
    /// Once the number of remedies differs from this, because somebody has to act.
    AfterRemedy(u64),
    /// Only after a person has given the authorization again.
    AfterConsent,
}

/// A refresh or a login that failed, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastFailure {
    pub at: Moment,
    /// A clause that says what happened and what to do.
    pub why: String,
}

/// A refresh that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefreshTicket {
    /// The token set that it replaces.
    pub(super) generation: u64,
    remedies: u64,
}

impl TokenState {
    /// The state of tokens from the vault, or from an authorization just `obtained`. `ended` is the answer to clients if the
    /// vault says that the authorization has ended.
    pub(super) fn new(generation: u64, obtained: Option<Instant>, ended: Option<Refusal>) -> Self {
        Self {
            newest: NewestToken::new(generation, obtained),
            mailboxes: HashMap::new(),
            is_refreshing: false,
            past_failure: None,
            needed: ended.as_ref().map(|refusal| refusal.text.clone()),
            failure: ended.map(|refusal| (Retry::AfterConsent, refusal)),
            failed_in_a_row: 0,
            unexplained: 0,
            remedies: 0,
        }
    }

    /// The next step of a login to this mailbox.
    pub(super) fn next(&self, mailbox: &Mailbox, left: Left, now: Instant) -> Next {
        let may_send = self.may_send(mailbox, now) && left != Left::Nothing;
        match self.refusal_of(mailbox, now) {
            _ if may_send && left == Left::Enough => Next::Send,
            _ if self.is_refreshing => Next::Wait,
            Some(_) if may_send => Next::Send,
            Some(refusal) => Next::Answer(refusal.clone()),
            None => Next::Refresh,
        }
    }

    /// The next step to get a token newer than this one. `Send` means that there is one.
    pub(super) fn renewal(&self, than: u64, now: Instant) -> Next {
        match self.refresh_refusal(now) {
            _ if self.newest.generation > than => Next::Send,
            _ if self.is_refreshing => Next::Wait,
            Some(refusal) => Next::Answer(refusal.clone()),
            None => Next::Refresh,
        }
    }

    /// Whether a login that is ready to send this token does so. `seen` belongs to the login: None at first, then what this
    /// has stored in it.
    pub(super) fn may_login_send(
        &mut self,
        mailbox: &Mailbox,
        generation: u64,
        seen: &mut Option<u64>,
        now: Instant,
    ) -> SendDecision {
        if generation != self.newest.generation || !self.may_send(mailbox, now) {
            return SendDecision::Stale;
        }
        let newest = &mut self.newest;
        if seen.is_some_and(|logins| logins != newest.logins) {
            return SendDecision::Follow;
        }
        match newest.probe.map(|probe| probe.begun + SLOW) {
            Some(slow) if now < slow => {
                *seen = Some(newest.logins);
                SendDecision::Wait(slow)
            }
            _ => {
                let probe = TokenProbe { generation, begun: now };
                newest.probe = Some(probe);
                SendDecision::First(probe)
            }
        }
    }

    /// Which of the mechanisms that this mailbox's server offers to use: the one that works, or else the next to try.
    pub(super) fn mechanism(&self, mailbox: &Mailbox, offered: &[Mechanism]) -> Option<Mechanism> {
        let history = self.mailboxes.get(mailbox);
        let last = history.and_then(|history| offered.iter().position(|one| Some(*one) == history.mechanism));
        let index = last.map_or(0, |last| last + usize::from(history.is_some_and(|history| !history.works)));
        offered.iter().cycle().nth(index).copied()
    }

    /// Whether this mechanism is known to work for this mailbox.
    pub(super) fn works(&self, mailbox: &Mailbox, mechanism: Mechanism) -> bool {
        self.mailboxes.get(mailbox).is_some_and(|history| history.works && history.mechanism == Some(mechanism))
    }

    /// Restores which mechanism has worked before this process started.
    pub(super) fn recall(&mut self, mailbox: Mailbox, mechanism: Mechanism) {
        let history = History { mechanism: Some(mechanism), works: true, ..History::default() };
        self.mailboxes.entry(mailbox).or_insert(history);
    }

    /// This mailbox's server has accepted this token by this mechanism.
    pub(super) fn accepted(&mut self, mailbox: &Mailbox, generation: u64, mechanism: Mechanism) {
        let history = History { mechanism: Some(mechanism), works: true, ..History::default() };
        self.mailboxes.insert(mailbox.clone(), history);
        if generation == self.newest.generation {
            self.newest.refused.remove(mailbox);
            self.newest.worked.insert(mailbox.clone());
            self.newest.logins += 1;
            self.newest.probe = None;
        }
    }

    /// This mailbox's server has refused this token by the first of these mechanisms. It offers the others, too.
    pub(super) fn refused(
        &mut self,
        mailbox: &Mailbox,
        generation: u64,
        mechanisms: &[Mechanism],
        refusal: &Refusal,
        now: Instant,
    ) {
        if generation != self.newest.generation {
            return;
        }
        let newest = &mut self.newest;
        let has_worked = newest.worked.contains(mailbox);
        let is_new = newest.obtained.is_some_and(|at| now < at + NEW) && !has_worked;
        if has_worked {
            // It has ended, so it does not work anywhere.
            newest.worked.clear();
        }
        newest.refused.insert(mailbox.clone(), is_new);
        newest.probe = None;
        self.mailboxes.entry(mailbox.clone()).or_default().refused(is_new, mechanisms, refusal, now);
    }

    /// The server does not accept the mechanism, and has not seen the token.
    pub(super) fn mechanism_refused(&mut self, mailbox: &Mailbox, mechanism: Mechanism) {
        let history = self.mailboxes.entry(mailbox.clone()).or_default();
        (history.mechanism, history.works) = (Some(mechanism), false);
    }

    /// This mailbox's server has reported a temporary problem to a login that sent this token. Returns whether that login
    /// should try a newer one, because some servers say this of a token that has ended. In an outage a new one does not help,
    /// so the mailbox gets only one until its server accepts a login again.
    pub(super) fn troubled(&mut self, mailbox: &Mailbox, generation: u64, now: Instant) -> bool {
        if generation != self.newest.generation {
            return true;
        }
        let is_young = self.newest.obtained.is_some_and(|at| now < at + SUSPECT);
        if is_young || self.mailboxes.get(mailbox).is_some_and(|history| history.was_troubled) {
            return false;
        }
        self.newest.troubled.insert(mailbox.clone());
        true
    }

    /// The login whose answer the others wait for has ended without an answer about the token.
    pub(super) fn unanswered(&mut self, probe: TokenProbe) {
        if self.newest.probe == Some(probe) {
            self.newest.probe = None;
        }
    }

    /// Stores, for people, what a mailbox's server answered to a login that failed.
    pub(super) fn note_login_failure(&mut self, mailbox: &Mailbox, at: Moment, why: &str) {
        self.mailboxes.entry(mailbox.clone()).or_default().login_failure =
            Some(PastFailure { at, why: why.to_owned() });
    }

    pub(super) fn begin(&mut self) -> RefreshTicket {
        self.is_refreshing = true;
        RefreshTicket { generation: self.newest.generation, remedies: self.remedies }
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.is_refreshing
    }

    /// Whether the newest token was refused, so that a client waits for another one.
    pub(super) fn is_refused(&self) -> bool {
        !self.newest.refused.is_empty()
    }

    /// A refresh has ended, whatever its outcome.
    pub(super) fn end(&mut self) {
        self.is_refreshing = false;
    }

    /// The authorization server has given a new token.
    pub(super) fn succeeded(&mut self, generation: u64, now: Instant) {
        for mailbox in std::mem::replace(&mut self.newest, NewestToken::new(generation, Some(now))).troubled {
            self.mailboxes.entry(mailbox).or_default().was_troubled = true;
        }
        (self.failure, self.failed_in_a_row, self.unexplained, self.needed) = (None, 0, 0, None);
    }

    /// A refresh has failed. The next logins get the same refusal for a while. `was_sent` is false if a secret for the request
    /// could not be read, which somebody may correct soon.
    pub(super) fn failed(
        &mut self,
        ticket: RefreshTicket,
        failure: &Failure,
        refusal: Refusal,
        was_sent: bool,
        (at, now): (Moment, Instant),
    ) {
        self.past_failure = Some(PastFailure { at, why: failure.to_string() });
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let retry = match failure {
            Failure::Temporary(cause, _) => Retry::At(now + pause_after(*cause, self.failed_in_a_row)),
            Failure::Ended(_) => Retry::AfterConsent,
            Failure::Misconfigured(_) | Failure::Forbidden(_) if was_sent => Retry::AfterRemedy(ticket.remedies),
            Failure::Misconfigured(_) | Failure::Forbidden(_) => Retry::At(now + LONGEST_PAUSE),
        };
        if !matches!(failure, Failure::Temporary(..)) {
            self.needed = Some(refusal.text.clone());
        }
        self.failure = Some((retry, refusal));
    }

    /// A refresh has not been tried, because it is another replica's turn or the database is away. The logins of the next
    /// second get this answer.
    pub(super) fn postponed(&mut self, refusal: Refusal, now: Instant) {
        self.failure = Some((Retry::At(now + POSTPONED), refusal));
    }

    /// The server has refused a refresh without a reason. Returns whether that has happened so often that the authorization has
    /// probably ended.
    pub(super) fn count_unexplained(&mut self) -> bool {
        self.unexplained = self.unexplained.saturating_add(1);
        self.unexplained >= UNEXPLAINED
    }

    /// The configuration was reloaded, which may have corrected the cause of earlier failures.
    pub(super) fn reloaded(&mut self) {
        self.remedies += 1;
        self.mailboxes.values_mut().for_each(|history| history.refusal = None);
    }

    /// A person wants to see whether it works now, so earlier failures prevent no refresh or login.
    pub(super) fn retry_now(&mut self) {
        self.reloaded();
        (self.failure, self.failed_in_a_row, self.unexplained) = (None, 0, 0);
    }

    /// The remedy that somebody has to apply before the tokens are refreshed again.
    pub(super) fn needed(&self) -> Option<&str> {
        self.needed.as_deref()
    }

    /// Whether the refresh before failed for the same reason, and nothing has happened since.
    pub(super) fn has_failed_like(&self, failure: &Failure) -> bool {
        self.failure.is_some() && self.past_failure.as_ref().is_some_and(|past| past.why == failure.to_string())
    }

    pub(super) fn past_failure(&self) -> Option<&PastFailure> {
        self.past_failure.as_ref()
    }

    /// The newest login failure of a mailbox whose server has not accepted a login since.
    pub(super) fn login_failure(&self) -> Option<&PastFailure> {
        self.mailboxes.values().filter_map(|history| history.login_failure.as_ref()).max_by_key(|failure| failure.at)
    }

    /// Whether the newest token may be sent to this mailbox's server.
    ///
    /// A token that was refused somewhere may have ended, so it is not sent anywhere before it has been replaced. If the
    /// refresh fails, a mailbox that has accepted it gets it again, because the refusal of a mailbox that never accepted it
    /// says little.
    pub(super) fn may_send(&self, mailbox: &Mailbox, now: Instant) -> bool {
        let NewestToken { refused, worked, troubled, .. } = &self.newest;
        let is_suspect = refused.values().any(|is_local| !is_local) || !troubled.is_empty() && self.is_refreshing;
        let is_all_there_is = || worked.contains(mailbox) && !self.is_refreshing && self.refresh_refusal(now).is_some();
        !refused.contains_key(mailbox) && (!is_suspect || is_all_there_is())
    }

    /// The refusal that a login to this mailbox gets instead of a refresh.
    fn refusal_of(&self, mailbox: &Mailbox, now: Instant) -> Option<&Refusal> {
        let refused = || {
            let history = self.mailboxes.get(mailbox).filter(|_| self.newest.refused.contains_key(mailbox))?;
            history.refusal.as_ref().filter(|(until, _)| now < *until).map(|(_, refusal)| refusal)
        };
        self.refresh_refusal(now).or_else(refused)
    }

    /// The refusal of the last refresh, until it may be tried again.
    fn refresh_refusal(&self, now: Instant) -> Option<&Refusal> {
        let (retry, refusal) = self.failure.as_ref()?;
        let counts = match retry {
            Retry::At(time) => now < *time,
            Retry::AfterRemedy(remedies) => *remedies == self.remedies,
            Retry::AfterConsent => true,
        };
        counts.then_some(refusal)
    }
}

impl NewestToken {
    fn new(generation: u64, obtained: Option<Instant>) -> Self {
        let (worked, refused, troubled) = (HashSet::new(), HashMap::new(), HashSet::new());
        Self { generation, obtained, worked, refused, probe: None, troubled, logins: 0 }
    }
}

impl History {
    /// Once every mechanism was tried, the refusal of a new token is no reason to request another one.
    fn refused(&mut self, is_new: bool, mechanisms: &[Mechanism], refusal: &Refusal, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        self.mechanism = mechanisms.first().copied();
        let has_tried_all = self.works || self.refusals as usize >= mechanisms.len();
        if is_new && has_tried_all {
            let pause = LOOP.saturating_mul(1 << self.loops.min(10)).min(LONGEST_LOOP);
            self.refusal = Some((now + pause, refusal.clone()));
            (self.loops, self.works) = (self.loops.saturating_add(1), false);
        }
    }
}

#[cfg(test)]
mod tests;
