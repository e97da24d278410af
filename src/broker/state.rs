//! What is known of an authorization's newest access token, and so what a login does next: show it to the provider, wait,
//! have it replaced, or be answered. `docs/design/architecture.md` has this as a table.
//!
//! Nothing here waits, locks or asks for the time: `tokens.rs` does that around it.
//!
//! Two rules make it. However many clients come, a token that the provider does not accept any more is shown once: while
//! nobody knows whether it is still good, one login shows it and the others wait for the answer. And a *new* token that is
//! refused before it ever worked is not replaced at once, because the next one would not be better, and providers count loops.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::patience;
use crate::clock::Moment;
use crate::oauth::Failure;
use crate::protocol::{Mechanism, Protocol};
use crate::wire::Refusal;

/// How long a token counts as new. Servers that take a while to learn of a new token take seconds.
const NEW: Duration = Duration::from_secs(60);

/// How long the refusal of a new token stands at first; twice as long after each further one.
const LOOP: Duration = Duration::from_secs(60);

/// At most. Whoever corrects something at the provider meanwhile runs `postkey test` or waits no longer than this.
const LONGEST_LOOP: Duration = Duration::from_secs(900);

/// How old a token is at least that may have ended though its server says only that it has trouble. A younger one has hardly
/// ended, and the next would not be better.
const DOUBTFUL: Duration = Duration::from_secs(600);

/// How long one login may keep the others waiting with the answer of its server. Then the next one shows the token, so that
/// a server that takes half a minute for a yes lets in several clients at a time.
const SLOW: Duration = Duration::from_secs(5);

/// After so many refusals without a reason an authorization counts as ended: there are servers that answer a dead refresh
/// token so. Failures stand longer and longer, so it takes a minute at least, and longer than a server takes to start.
const UNEXPLAINED: u32 = 5;

/// A mailbox by one of its protocols: a token may be good for one and refused by the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mailbox {
    /// The account's address.
    pub(super) address: String,
    pub(super) protocol: Protocol,
}

/// How much of its life a token has left, seen from what it is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Enough for what it is wanted for.
    Enough,
    /// Too little for that, but it still works.
    Little,
    /// Nothing.
    Nothing,
}

/// What somebody who wants a token does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Takes the newest token to the provider.
    Show,
    /// Has the newest token replaced, and waits for that.
    Refresh,
    /// Waits for the refresh that is under way.
    Wait,
    /// Hears this at once.
    Answer(Refusal),
}

/// Whether a login that is connected to its server sends the token now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ShowDecision {
    /// It does, and the others wait for its answer.
    First(TokenProbe),
    /// It does: somebody has been let in while it waited.
    Follow,
    /// It waits for the answer to somebody else, or until then.
    Wait(Instant),
    /// The token is not to be shown any more: [`TokenState::next`] says what to do.
    Stale,
}

/// The one login that shows a token of which nobody knows whether it is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenProbe {
    generation: u64,
    begun: Instant,
}

/// The state of an authorization's tokens.
pub(super) struct TokenState {
    newest: Newest,
    mailboxes: HashMap<Mailbox, History>,
    /// Whether a refresh is under way.
    refreshing: bool,
    /// The last refresh, if it failed, and how long that stands.
    failure: Option<(Stands, Refusal)>,
    /// How many refreshes have failed since one succeeded.
    failed_in_a_row: u32,
    /// How many of them the server has refused without a reason.
    unexplained: u32,
    /// Grows whenever somebody may have put right what was wrong: what failed before that stands no longer.
    remedies: u64,
    /// The last refresh that failed.
    past_failure: Option<PastFailure>,
    /// What somebody has to do before the tokens are refreshed again.
    needed: Option<String>,
}

/// The newest access token.
struct Newest {
    generation: u64,
    /// When the authorization server gave it to this process; None if it comes from the vault.
    obtained: Option<Instant>,
    /// Where it has worked. Emptied when it turns out to have ended.
    worked: HashSet<Mailbox>,
    /// Where it was refused, and whether that says something about this mailbox only.
    refused: HashMap<Mailbox, bool>,
    /// The login whose answer the others wait for.
    probe: Option<TokenProbe>,
    /// Where it was met with trouble that may be its end: nobody shows it while it is being replaced.
    doubted: HashSet<Mailbox>,
    /// How many logins it has opened.
    logins: u64,
}

/// What a mailbox has said to the tokens so far.
#[derive(Default)]
struct History {
    /// Refusals since the last yes.
    refusals: u32,
    /// Refusals of new tokens since the last yes.
    loops: u32,
    /// Until when the refusal of a new token stands, and its words.
    stands: Option<(Instant, Refusal)>,
    /// By which mechanism it was last shown a token.
    mechanism: Option<Mechanism>,
    /// Whether that has worked.
    works: bool,
    /// Whether a token was replaced because of its trouble, since the last yes.
    doubted: bool,
    /// What it last said to a login that it did not let in.
    said: Option<PastFailure>,
}

/// How long a failed refresh stands for those who come next.
#[derive(Debug, PartialEq, Eq)]
enum Stands {
    /// It may pass: until then.
    Until(Instant),
    /// Somebody has to act: until so many remedies have been tried.
    Remedy(u64),
    /// A person has to give the authorization again.
    Ended,
}

/// A refresh or a login that failed, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastFailure {
    /// When.
    pub at: Moment,
    /// What happened and what to do.
    pub why: String,
}

/// A refresh that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The token set that is to be replaced.
    pub(super) generation: u64,
    remedies: u64,
}

impl TokenState {
    /// Of tokens that come out of the vault, or from an authorization just `obtained`. `ended` is what clients hear where
    /// the vault says that a person has to give the authorization again.
    pub(super) fn new(generation: u64, obtained: Option<Instant>, ended: Option<Refusal>) -> Self {
        Self {
            newest: Newest::new(generation, obtained),
            mailboxes: HashMap::new(),
            refreshing: false,
            past_failure: None,
            needed: ended.as_ref().map(|refusal| refusal.text.clone()),
            failure: ended.map(|refusal| (Stands::Ended, refusal)),
            failed_in_a_row: 0,
            unexplained: 0,
            remedies: 0,
        }
    }

    /// What a login to this mailbox does, whose token has so much of its life left.
    pub(super) fn next(&self, of: &Mailbox, left: Left, now: Instant) -> Next {
        let may_show = self.may_show(of, now) && left != Left::Nothing;
        match self.standing(of, now) {
            _ if may_show && left == Left::Enough => Next::Show,
            _ if self.refreshing => Next::Wait,
            Some(_) if may_show => Next::Show,
            Some(refusal) => Next::Answer(refusal.clone()),
            None => Next::Refresh,
        }
    }

    /// What somebody does who wants a token newer than this one, without showing it to anybody.
    pub(super) fn renewal(&self, than: u64, now: Instant) -> Next {
        match self.failing(now) {
            _ if self.newest.generation > than => Next::Show,
            _ if self.refreshing => Next::Wait,
            Some(refusal) => Next::Answer(refusal.clone()),
            None => Next::Refresh,
        }
    }

    /// Whether a login that is ready to show this token does so. `seen` is what this has set it to before, if it had to wait.
    pub(super) fn turn(&mut self, of: &Mailbox, generation: u64, seen: &mut Option<u64>, now: Instant) -> ShowDecision {
        if generation != self.newest.generation || !self.may_show(of, now) {
            return ShowDecision::Stale;
        }
        let newest = &mut self.newest;
        if seen.is_some_and(|logins| logins != newest.logins) {
            return ShowDecision::Follow;
        }
        match newest.probe.map(|probe| probe.begun + SLOW) {
            Some(slow) if now < slow => {
                *seen = Some(newest.logins);
                ShowDecision::Wait(slow)
            }
            _ => {
                let probe = TokenProbe { generation, begun: now };
                newest.probe = Some(probe);
                ShowDecision::First(probe)
            }
        }
    }

    /// Which of the mechanisms that its server offers shows the token to this mailbox: the one that works, or else the next.
    pub(super) fn mechanism(&self, of: &Mailbox, offered: &[Mechanism]) -> Option<Mechanism> {
        let history = self.mailboxes.get(of);
        let last = history.and_then(|history| offered.iter().position(|one| Some(*one) == history.mechanism));
        let index = last.map_or(0, |last| last + usize::from(history.is_some_and(|history| !history.works)));
        offered.iter().cycle().nth(index).copied()
    }

    /// Whether it is known that this mechanism works for this mailbox.
    pub(super) fn is_known(&self, of: &Mailbox, mechanism: Mechanism) -> bool {
        self.mailboxes.get(of).is_some_and(|history| history.works && history.mechanism == Some(mechanism))
    }

    /// Remembers which mechanism has worked before this process began.
    pub(super) fn recall(&mut self, of: Mailbox, mechanism: Mechanism) {
        let history = History { mechanism: Some(mechanism), works: true, ..History::default() };
        self.mailboxes.entry(of).or_insert(history);
    }

    /// This token has opened the mailbox, shown by this mechanism.
    pub(super) fn accepted(&mut self, of: &Mailbox, generation: u64, mechanism: Mechanism) {
        let history = History { mechanism: Some(mechanism), works: true, ..History::default() };
        self.mailboxes.insert(of.clone(), history);
        if generation == self.newest.generation {
            self.newest.refused.remove(of);
            self.newest.worked.insert(of.clone());
            self.newest.logins += 1;
            self.newest.probe = None;
        }
    }

    /// The mailbox's server has refused this token, shown by the first of these mechanisms; it offers the others, too.
    pub(super) fn refused(
        &mut self,
        of: &Mailbox,
        generation: u64,
        mechanisms: &[Mechanism],
        refusal: &Refusal,
        now: Instant,
    ) {
        if generation != self.newest.generation {
            return;
        }
        let newest = &mut self.newest;
        let has_worked = newest.worked.contains(of);
        let is_new = newest.obtained.is_some_and(|at| now < at + NEW) && !has_worked;
        if has_worked {
            // It has ended, and so where it has worked it works no longer.
            newest.worked.clear();
        }
        newest.refused.insert(of.clone(), is_new);
        newest.probe = None;
        self.mailboxes.entry(of.clone()).or_default().refused(is_new, mechanisms, refusal, now);
    }

    /// The server takes the mechanism not at all, and has not seen the token.
    pub(super) fn mechanism_refused(&mut self, of: &Mailbox, mechanism: Mechanism) {
        let history = self.mailboxes.entry(of.clone()).or_default();
        (history.mechanism, history.works) = (Some(mechanism), false);
    }

    /// The mailbox's server has trouble with a login that showed this token. Whether that login should show a newer one: there
    /// are servers that say so of a token that has ended. In an outage a new one does not help, so the mailbox gets one until
    /// it lets somebody in again.
    pub(super) fn doubted(&mut self, of: &Mailbox, generation: u64, now: Instant) -> bool {
        if generation != self.newest.generation {
            return true;
        }
        let is_young = self.newest.obtained.is_some_and(|at| now < at + DOUBTFUL);
        if is_young || self.mailboxes.get(of).is_some_and(|history| history.doubted) {
            return false;
        }
        self.newest.doubted.insert(of.clone());
        true
    }

    /// The login whose answer the others wait for has ended without one about the token.
    pub(super) fn unanswered(&mut self, probe: TokenProbe) {
        if self.newest.probe == Some(probe) {
            self.newest.probe = None;
        }
    }

    /// What a mailbox's server last said to a login that it did not let in.
    pub(super) fn note(&mut self, of: &Mailbox, at: Moment, said: &str) {
        self.mailboxes.entry(of.clone()).or_default().said = Some(PastFailure { at, why: said.to_owned() });
    }

    /// A refresh begins.
    pub(super) fn begin(&mut self) -> Ticket {
        self.refreshing = true;
        Ticket { generation: self.newest.generation, remedies: self.remedies }
    }

    /// Whether a refresh is under way.
    pub(super) fn is_refreshing(&self) -> bool {
        self.refreshing
    }

    /// Whether the newest token was refused, so that somebody waits for another.
    pub(super) fn is_refused(&self) -> bool {
        !self.newest.refused.is_empty()
    }

    /// A refresh has come to its end, in whatever way.
    pub(super) fn end(&mut self) {
        self.refreshing = false;
    }

    /// The authorization server has given a new token.
    pub(super) fn succeeded(&mut self, generation: u64, now: Instant) {
        for of in std::mem::replace(&mut self.newest, Newest::new(generation, Some(now))).doubted {
            self.mailboxes.entry(of).or_default().doubted = true;
        }
        (self.failure, self.failed_in_a_row, self.unexplained, self.needed) = (None, 0, 0, None);
    }

    /// The authorization server has given none. Those who come next get the same refusal for a while. `was_asked` is false
    /// where it did not come to a request, because of a secret that could not be read for one: that may soon be otherwise.
    pub(super) fn failed(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        refusal: Refusal,
        was_asked: bool,
        (at, now): (Moment, Instant),
    ) {
        self.past_failure = Some(PastFailure { at, why: failure.to_string() });
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let stands = match failure {
            Failure::Temporary(trouble, _) => Stands::Until(now + patience::stands(*trouble, self.failed_in_a_row)),
            Failure::Ended(_) => Stands::Ended,
            Failure::Misconfigured(_) | Failure::Forbidden(_) if was_asked => Stands::Remedy(ticket.remedies),
            Failure::Misconfigured(_) | Failure::Forbidden(_) => Stands::Until(now + patience::LONGEST),
        };
        if !matches!(failure, Failure::Temporary(..)) {
            self.needed = Some(refusal.text.clone());
        }
        self.failure = Some((stands, refusal));
    }

    /// The server has refused a refresh without a reason. Whether it has done so often enough to mean what it says.
    pub(super) fn unexplained(&mut self) -> bool {
        self.unexplained = self.unexplained.saturating_add(1);
        self.unexplained >= UNEXPLAINED
    }

    /// The configuration has been read again, and may have put right what stood in the way of a refresh or a login.
    pub(super) fn reloaded(&mut self) {
        self.remedies += 1;
        self.mailboxes.values_mut().for_each(|history| history.stands = None);
    }

    /// A person wants to see whether it works now: nothing that was before stands in the way of one more try.
    pub(super) fn insisted(&mut self) {
        self.reloaded();
        (self.failure, self.failed_in_a_row, self.unexplained) = (None, 0, 0);
    }

    /// What somebody has to do before the tokens are refreshed again.
    pub(super) fn needed(&self) -> Option<&str> {
        self.needed.as_deref()
    }

    /// The last refresh that failed.
    pub(super) fn past_failure(&self) -> Option<&PastFailure> {
        self.past_failure.as_ref()
    }

    /// The newest of what mailboxes said to logins that they refused, as long as they have accepted none since.
    pub(super) fn said(&self) -> Option<&PastFailure> {
        self.mailboxes.values().filter_map(|history| history.said.as_ref()).max_by_key(|said| said.at)
    }

    /// Whether this mailbox may be shown the newest token.
    ///
    /// One that was refused somewhere may have ended: it is not shown anywhere before it has been replaced. Only where that
    /// could not be done it is, for this mailbox has let it in, and the refusal of a mailbox that never did says little.
    pub(super) fn may_show(&self, of: &Mailbox, now: Instant) -> bool {
        let Newest { refused, worked, doubted, .. } = &self.newest;
        let is_suspect = refused.values().any(|is_local| !is_local) || !doubted.is_empty() && self.refreshing;
        let is_all_there_is = || worked.contains(of) && !self.refreshing && self.failing(now).is_some();
        !refused.contains_key(of) && (!is_suspect || is_all_there_is())
    }

    /// The refusal that a login to this mailbox hears instead of a refresh.
    fn standing(&self, of: &Mailbox, now: Instant) -> Option<&Refusal> {
        let refused = || {
            let history = self.mailboxes.get(of).filter(|_| self.newest.refused.contains_key(of))?;
            history.stands.as_ref().filter(|(until, _)| now < *until).map(|(_, refusal)| refusal)
        };
        self.failing(now).or_else(refused)
    }

    /// The refusal of the last refresh, as long as it stands.
    fn failing(&self, now: Instant) -> Option<&Refusal> {
        let stands = |stands: &Stands| match stands {
            Stands::Until(until) => now < *until,
            Stands::Remedy(remedies) => *remedies == self.remedies,
            Stands::Ended => true,
        };
        self.failure.as_ref().filter(|(length, _)| stands(length)).map(|(_, refusal)| refusal)
    }
}

impl Newest {
    fn new(generation: u64, obtained: Option<Instant>) -> Self {
        let (worked, refused, doubted) = (HashSet::new(), HashMap::new(), HashSet::new());
        Self { generation, obtained, worked, refused, probe: None, doubted, logins: 0 }
    }
}

impl History {
    /// A new token that is refused is no reason to ask for another, once every mechanism has had its try.
    fn refused(&mut self, is_new: bool, mechanisms: &[Mechanism], refusal: &Refusal, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        self.mechanism = mechanisms.first().copied();
        let has_tried_all = self.works || self.refusals as usize >= mechanisms.len();
        if is_new && has_tried_all {
            let pause = LOOP.saturating_mul(1 << self.loops.min(10)).min(LONGEST_LOOP);
            self.stands = Some((now + pause, refusal.clone()));
            (self.loops, self.works) = (self.loops.saturating_add(1), false);
        }
    }
}

#[cfg(test)]
mod tests;
