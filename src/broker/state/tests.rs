use super::*;
use crate::oauth::TemporaryCause;
use crate::wire::Reason;
use Event::{Accept, Doubt, Fail, Insist, Pass, Refresh, Refuse, Reload, Renew};
use Mechanism::{OAuthBearer, XOAuth2};
use Protocol::{Imap, Smtp};

/// What may happen to an authorization's tokens.
#[derive(Clone)]
enum Event {
    /// The mailbox of this protocol lets the newest token in.
    Accept(Protocol),
    /// It refuses it.
    Refuse(Protocol),
    /// It has trouble with whoever shows it.
    Doubt(Protocol),
    /// A refresh begins.
    Refresh,
    /// It brings a new token.
    Renew,
    /// It brings none.
    Fail(Failure),
    /// The configuration is read again.
    Reload,
    /// Somebody runs `postkey test`.
    Insist,
    /// So many seconds go by.
    Pass(u64),
}

fn mailbox(protocol: Protocol) -> Mailbox {
    Mailbox { address: "ann@example.test".into(), protocol }
}

fn refusal() -> Refusal {
    Refusal::new(Reason::TokenRefused, "the server says no")
}

/// Tokens out of the vault, and what has happened since.
struct Play {
    state: TokenState,
    now: Instant,
    generation: u64,
    ticket: Option<Ticket>,
    mechanisms: Vec<Mechanism>,
}

impl Play {
    fn new(events: &[Event]) -> Self {
        let state = TokenState::new(1, None, None);
        let mut play = Self { state, now: Instant::now(), generation: 1, ticket: None, mechanisms: vec![XOAuth2] };
        events.iter().for_each(|event| play.happen(event));
        play
    }

    fn happen(&mut self, event: &Event) {
        let Self { state, now, generation, .. } = self;
        match event {
            Accept(protocol) => state.accepted(&mailbox(*protocol), *generation, self.mechanisms[0]),
            Refuse(protocol) => state.refused(&mailbox(*protocol), *generation, &self.mechanisms, &refusal(), *now),
            Doubt(protocol) => {
                state.doubted(&mailbox(*protocol), *generation, *now);
            }
            Refresh => self.ticket = Some(state.begin()),
            Renew => {
                *generation += 1;
                state.succeeded(*generation, *now);
                state.end();
            }
            Fail(failure) => {
                let ticket = self.ticket.take().unwrap_or_else(|| state.begin());
                let reason = if matches!(failure, Failure::Temporary(..)) {
                    Reason::Unavailable
                } else {
                    Reason::AuthorizationEnded
                };
                state.failed(ticket, failure, Refusal::new(reason, "no token"), true, (Moment(1), *now));
                state.end();
            }
            Reload => state.reloaded(),
            Insist => state.insisted(),
            Pass(seconds) => *now += Duration::from_secs(*seconds),
        }
    }

    fn next(&self, protocol: Protocol, left: Left) -> &'static str {
        match self.state.next(&mailbox(protocol), left, self.now) {
            Next::Show => "show",
            Next::Refresh => "refresh",
            Next::Wait => "wait",
            Next::Answer(refusal) => refusal.reason.name(),
        }
    }
}

fn down() -> Event {
    Fail(Failure::Temporary(TemporaryCause::Faulty, "down".into()))
}

fn unreachable() -> Event {
    Fail(Failure::Temporary(TemporaryCause::Unreachable, "down".into()))
}

fn misconfigured() -> Event {
    Fail(Failure::Misconfigured("the secret is wrong".into()))
}

fn ended() -> Event {
    Fail(Failure::Ended("revoked".into()))
}

/// The table of `docs/design/architecture.md`: what has happened, and what the next login by IMAP and by SMTP does.
#[test]
fn what_a_login_does_next() {
    let table: &[(&[Event], [&str; 2])] = &[
        // Nobody has shown the token yet, or it has worked.
        (&[], ["show", "show"]),
        (&[Accept(Imap)], ["show", "show"]),
        // It was refused: nobody shows it again.
        (&[Refuse(Imap)], ["refresh", "refresh"]),
        (&[Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Accept(Smtp), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Refuse(Imap), Refresh], ["wait", "wait"]),
        (&[Refuse(Imap), Renew], ["show", "show"]),
        // It could not be replaced. Where it has worked, and was refused elsewhere only, it is all that there is.
        (&[Refuse(Imap), down()], ["unavailable", "unavailable"]),
        (&[Accept(Smtp), Refuse(Imap), down()], ["unavailable", "show"]),
        (&[Accept(Imap), Accept(Smtp), Refuse(Imap), down()], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), down(), Pass(61)], ["refresh", "refresh"]),
        (&[Refuse(Imap), unreachable(), Pass(4)], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), unreachable(), Pass(5)], ["refresh", "refresh"]),
        (&[Refuse(Imap), down(), Reload], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), down(), Insist], ["refresh", "refresh"]),
        // Somebody has to act.
        (&[Refuse(Imap), misconfigured(), Pass(9999)], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), misconfigured(), Reload], ["refresh", "refresh"]),
        (&[Refuse(Imap), misconfigured(), Insist], ["refresh", "refresh"]),
        (&[Refuse(Imap), Refresh, Reload, misconfigured()], ["refresh", "refresh"]),
        (&[Refuse(Imap), ended(), Pass(9999)], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), ended(), Reload], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), ended(), Insist], ["refresh", "refresh"]),
        (&[ended()], ["show", "show"]),
        // A new token that is refused before it ever worked: the loop. Another mailbox may still like it.
        (&[Refuse(Imap), Renew, Refuse(Imap)], ["token-refused", "show"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Pass(59)], ["token-refused", "show"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Pass(60)], ["refresh", "show"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Reload], ["refresh", "show"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Insist], ["refresh", "show"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Refuse(Imap), Pass(119)], ["token-refused", "show"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Refuse(Imap), Pass(120)], ["refresh", "show"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        // One that has worked is none, however soon it ends; nor is one that nobody has shown for long.
        (&[Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Renew, Accept(Imap), Refuse(Imap), Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Renew, Pass(59), Refuse(Imap)], ["token-refused", "show"]),
        (&[Renew, Pass(60), Refuse(Imap)], ["refresh", "refresh"]),
        // Its server has trouble, which may be its end: nobody shows it while it is replaced, and all do if it cannot be.
        (&[Doubt(Imap), Refresh], ["wait", "wait"]),
        (&[Doubt(Imap), Refresh, Renew], ["show", "show"]),
        (&[Doubt(Imap), down()], ["show", "show"]),
    ];
    for (row, (events, expected)) in table.iter().enumerate() {
        let play = Play::new(events);
        assert_eq!([Imap, Smtp].map(|protocol| play.next(protocol, Left::Enough)), *expected, "row {row}");
    }
}

#[test]
fn a_token_that_has_little_left_is_replaced_and_used_while_that_fails() {
    let next = |events: &[Event], left| Play::new(events).next(Imap, left);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[], left)), ["refresh"; 2]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[Refresh], left)), ["wait"; 2]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[down()], left)), ["show", "unavailable"]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[ended()], left)), ["show", "authorization-ended"]);
    assert_eq!(next(&[Refuse(Imap), down()], Left::Little), "unavailable");
}

#[test]
fn trouble_costs_a_mailbox_one_token_until_it_lets_somebody_in() {
    let doubts = |events: &[Event]| {
        let mut play = Play::new(events);
        play.state.doubted(&mailbox(Imap), play.generation, play.now)
    };
    assert!(doubts(&[]), "what the vault holds may be old");
    assert!(doubts(&[Renew, Pass(600)]) && !doubts(&[Renew, Pass(599)]), "a young one has hardly ended");
    assert!(!doubts(&[Doubt(Imap), Renew, Pass(9999)]), "an outage");
    assert!(doubts(&[Doubt(Imap), down()]), "nobody has seen a new one yet");
    assert!(doubts(&[Doubt(Imap), Renew, Accept(Imap), Pass(600)]), "the outage is over");
    assert!(doubts(&[Doubt(Smtp), Renew, Accept(Imap), Pass(600)]), "that of another server");
    let mut play = Play::new(&[Renew]);
    assert!(play.state.doubted(&mailbox(Imap), 1, play.now), "there is a newer one already");
}

/// Upkeep wants a token newer than the one that it has seen.
#[test]
fn a_renewal_wants_a_newer_token_and_shows_it_to_nobody() {
    let renewal = |events: &[Event], than| {
        let play = Play::new(events);
        match play.state.renewal(than, play.now) {
            Next::Answer(refusal) => Next::Answer(Refusal { text: String::new(), ..refusal }),
            next => next,
        }
    };
    let answer = |reason| Next::Answer(Refusal::new(reason, ""));
    for (events, than, expected) in [
        (&[][..], 1, Next::Refresh),
        (&[][..], 0, Next::Show),
        (&[Renew], 1, Next::Show),
        (&[Renew], 2, Next::Refresh),
        (&[Refresh], 1, Next::Wait),
        (&[Renew, Refresh], 1, Next::Show),
        (&[down()], 1, answer(Reason::Unavailable)),
        (&[down(), Pass(61)], 1, Next::Refresh),
        (&[ended(), Pass(9999)], 1, answer(Reason::AuthorizationEnded)),
    ] {
        assert_eq!(renewal(events, than), expected);
    }
}

#[test]
fn a_refresh_is_under_way_from_its_beginning_to_its_end() {
    let is_refreshing = |events: &[Event]| Play::new(events).state.is_refreshing();
    assert_eq!(
        [&[][..], &[Refresh], &[Refresh, Renew], &[Refresh, down()]].map(is_refreshing),
        [false, true, false, false]
    );
    let is_refused = |events: &[Event]| Play::new(events).state.is_refused();
    assert_eq!(
        [&[][..], &[Accept(Imap)], &[Refuse(Imap)], &[Refuse(Imap), Renew]].map(is_refused),
        [false, false, true, false]
    );
}

/// A secret that could not be read may be there again in a minute; one that the server refuses will not be right by itself.
#[test]
fn a_failure_before_the_request_stands_for_a_minute() {
    for (was_asked, after_a_minute) in [(false, "refresh"), (true, "authorization-ended")] {
        let mut play = Play::new(&[Refuse(Imap), Refresh]);
        let failure = Failure::Misconfigured("no secret".into());
        let refusal = Refusal::new(Reason::AuthorizationEnded, "no secret");
        play.state.failed(play.ticket.take().unwrap(), &failure, refusal, was_asked, (Moment(1), play.now));
        play.state.end();
        play.happen(&Pass(59));
        assert_eq!(play.next(Imap, Left::Enough), "authorization-ended");
        play.happen(&Pass(1));
        assert_eq!(play.next(Imap, Left::Enough), after_a_minute);
    }
}

#[test]
fn the_fifth_refusal_without_a_reason_means_an_end() {
    let mut play = Play::new(&[]);
    let five = |play: &mut Play| [(); 5].map(|()| play.state.unexplained());
    assert_eq!(five(&mut play), [false, false, false, false, true]);
    assert!(play.state.unexplained(), "and so does every further one");
    for event in [Renew, Insist] {
        play.happen(&event);
        assert_eq!(five(&mut play), [false, false, false, false, true], "they are counted from the beginning again");
    }
}

/// How a login's turn is, in a word.
fn turn(play: &mut Play, generation: u64, seen: &mut Option<u64>) -> &'static str {
    match play.state.turn(&mailbox(Imap), generation, seen, play.now) {
        ShowDecision::First(_) => "first",
        ShowDecision::Follow => "follow",
        ShowDecision::Wait(_) => "wait",
        ShowDecision::Stale => "stale",
    }
}

#[test]
fn one_login_shows_a_token_and_the_others_wait_for_its_answer() {
    let mut play = Play::new(&[Accept(Imap)]);
    let mut seen = [None; 4];
    assert_eq!([0, 1, 2].map(|who| turn(&mut play, 1, &mut seen[who])), ["first", "wait", "wait"]);
    play.happen(&Accept(Imap));
    assert_eq!(turn(&mut play, 1, &mut seen[3]), "first", "whoever comes later knows less");
    assert_eq!([1, 2].map(|who| turn(&mut play, 1, &mut seen[who])), ["follow"; 2]);
    play.happen(&Refuse(Imap));
    assert_eq!(turn(&mut play, 1, &mut None), "stale");
    play.happen(&Renew);
    assert_eq!([1, 2].map(|generation| turn(&mut play, generation, &mut None)), ["stale", "first"]);
}

#[test]
fn a_login_without_an_answer_makes_room_for_the_next_and_a_slow_one_too() {
    let mut play = Play::new(&[]);
    let ShowDecision::First(probe) = play.state.turn(&mailbox(Imap), 1, &mut None, play.now) else {
        panic!("nobody is there")
    };
    assert_eq!(turn(&mut play, 1, &mut None), "wait");
    play.state.unanswered(probe);
    assert_eq!(turn(&mut play, 1, &mut None), "first");
    play.state.unanswered(TokenProbe { begun: play.now + SLOW, ..probe });
    assert_eq!(turn(&mut play, 1, &mut None), "wait", "another one's end is nobody's business");
    play.happen(&Pass(SLOW.as_secs()));
    assert_eq!([(); 2].map(|()| turn(&mut play, 1, &mut None)), ["first", "wait"]);
}

#[test]
fn the_next_mechanism_has_its_try_before_a_new_token_counts_as_refused() {
    let mut play = Play::new(&[]);
    let offered = [OAuthBearer, XOAuth2];
    let next = |play: &mut Play| {
        let first = play.state.mechanism(&mailbox(Imap), &offered).unwrap();
        play.mechanisms = if first == OAuthBearer { vec![OAuthBearer, XOAuth2] } else { vec![XOAuth2, OAuthBearer] };
        first
    };
    play.happen(&Renew);
    assert_eq!(next(&mut play), OAuthBearer);
    play.happen(&Refuse(Imap));
    assert_eq!((next(&mut play), play.next(Imap, Left::Enough)), (XOAuth2, "refresh"));
    assert!(!play.state.is_known(&mailbox(Imap), XOAuth2), "it is only the next to be tried");
    play.happen(&Renew);
    play.happen(&Accept(Imap));
    assert_eq!(next(&mut play), XOAuth2, "what has worked is remembered");
    play.state.recall(mailbox(Smtp), OAuthBearer);
    for (protocol, mechanism, is_known) in
        [(Imap, XOAuth2, true), (Imap, OAuthBearer, false), (Smtp, OAuthBearer, true), (Smtp, XOAuth2, false)]
    {
        assert_eq!(play.state.is_known(&mailbox(protocol), mechanism), is_known, "{protocol} {mechanism:?}");
    }
    for _ in 0..2 {
        play.happen(&Refuse(Imap));
        assert_eq!(next(&mut play), XOAuth2, "a token that has ended says nothing about the mechanism");
        play.happen(&Renew);
        play.happen(&Accept(Imap));
    }
    play.happen(&Renew);
    play.happen(&Refuse(Imap));
    assert_eq!((next(&mut play), play.next(Imap, Left::Enough)), (OAuthBearer, "token-refused"));
}

#[test]
fn a_mechanism_that_is_not_taken_costs_no_token() {
    let mut play = Play::new(&[]);
    play.state.recall(mailbox(Imap), XOAuth2);
    assert_eq!(play.state.mechanism(&mailbox(Imap), &[OAuthBearer, XOAuth2]), Some(XOAuth2));
    assert_eq!(play.state.mechanism(&mailbox(Imap), &[OAuthBearer]), Some(OAuthBearer), "it is not offered any more");
    play.state.mechanism_refused(&mailbox(Imap), XOAuth2);
    assert_eq!(play.state.mechanism(&mailbox(Imap), &[OAuthBearer, XOAuth2]), Some(OAuthBearer));
    assert_eq!(play.state.mechanism(&mailbox(Imap), &[]), None);
    assert_eq!(play.next(Imap, Left::Enough), "show");
}

#[test]
fn people_see_what_is_needed_until_it_is_done_and_what_a_server_said_until_it_lets_somebody_in() {
    assert_eq!(Play::new(&[down()]).state.needed(), None);
    let mut play = Play::new(&[misconfigured(), Reload]);
    assert_eq!(play.state.needed(), Some("no token"));
    let past = play.state.past_failure().unwrap();
    assert!(past.at == Moment(1) && past.why.contains("the secret is wrong"), "{past:?}");
    play.happen(&Renew);
    assert_eq!(play.state.needed(), None);
    play.state.note(&mailbox(Imap), Moment(1), "IMAP says no");
    play.state.note(&mailbox(Smtp), Moment(2), "SMTP says no");
    assert_eq!(play.state.said().map(|said| said.why.as_str()), Some("SMTP says no"));
    play.happen(&Accept(Smtp));
    assert_eq!(play.state.said().map(|said| said.why.as_str()), Some("IMAP says no"));
    play.happen(&Accept(Imap));
    assert_eq!(play.state.said(), None);
}
