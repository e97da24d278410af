use super::*;
use crate::oauth::TemporaryCause;
use crate::wire::Reason;
use Event::{Accept, Fail, Pass, Refresh, Refuse, Reload, Renew, RetryNow, Trouble};
use Mechanism::{OAuthBearer, XOAuth2};
use Protocol::{Imap, Smtp};

/// An event in the life of an authorization's tokens.
#[derive(Clone)]
enum Event {
    /// The server of this protocol accepts the newest token.
    Accept(Protocol),
    /// That server refuses it.
    Refuse(Protocol),
    /// That server reports a temporary problem.
    Trouble(Protocol),
    /// A refresh begins.
    Refresh,
    /// It succeeds.
    Renew,
    /// It fails.
    Fail(Failure),
    Reload,
    /// Somebody runs `postkey test`.
    RetryNow,
    /// Seconds pass.
    Pass(u64),
}

fn mailbox(protocol: Protocol) -> Mailbox {
    Mailbox { address: "ann@example.test".into(), protocol }
}

fn refusal() -> Refusal {
    Refusal::new(Reason::TokenRefused, "the server says no")
}

/// Tokens from the vault, and what has happened since.
struct Scenario {
    state: TokenState,
    now: Instant,
    generation: u64,
    ticket: Option<RefreshTicket>,
    mechanisms: Vec<Mechanism>,
}

impl Scenario {
    fn new(events: &[Event]) -> Self {
        let state = TokenState::new(1, None, None);
        let mut scenario = Self { state, now: Instant::now(), generation: 1, ticket: None, mechanisms: vec![XOAuth2] };
        events.iter().for_each(|event| scenario.happen(event));
        scenario
    }

    fn happen(&mut self, event: &Event) {
        let Self { state, now, generation, .. } = self;
        match event {
            Accept(protocol) => state.accepted(&mailbox(*protocol), *generation, self.mechanisms[0]),
            Refuse(protocol) => state.refused(&mailbox(*protocol), *generation, &self.mechanisms, &refusal(), *now),
            Trouble(protocol) => {
                state.troubled(&mailbox(*protocol), *generation, *now);
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
            RetryNow => state.retry_now(),
            Pass(seconds) => *now += Duration::from_secs(*seconds),
        }
    }

    fn next(&self, protocol: Protocol, left: Left) -> &'static str {
        match self.state.next(&mailbox(protocol), left, self.now) {
            Next::Send => "send",
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
        // Nobody has sent the token yet, or it has worked.
        (&[], ["send", "send"]),
        (&[Accept(Imap)], ["send", "send"]),
        // It was refused: nobody sends it again.
        (&[Refuse(Imap)], ["refresh", "refresh"]),
        (&[Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Accept(Smtp), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Refuse(Imap), Refresh], ["wait", "wait"]),
        (&[Refuse(Imap), Renew], ["send", "send"]),
        // It could not be replaced. A mailbox where it has worked gets it again if only another one has refused it.
        (&[Refuse(Imap), down()], ["unavailable", "unavailable"]),
        (&[Accept(Smtp), Refuse(Imap), down()], ["unavailable", "send"]),
        (&[Accept(Imap), Accept(Smtp), Refuse(Imap), down()], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), down(), Pass(61)], ["refresh", "refresh"]),
        (&[Refuse(Imap), unreachable(), Pass(4)], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), unreachable(), Pass(5)], ["refresh", "refresh"]),
        (&[Refuse(Imap), down(), Reload], ["unavailable", "unavailable"]),
        (&[Refuse(Imap), down(), RetryNow], ["refresh", "refresh"]),
        // Somebody has to act.
        (&[Refuse(Imap), misconfigured(), Pass(9999)], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), misconfigured(), Reload], ["refresh", "refresh"]),
        (&[Refuse(Imap), misconfigured(), RetryNow], ["refresh", "refresh"]),
        (&[Refuse(Imap), Refresh, Reload, misconfigured()], ["refresh", "refresh"]),
        (&[Refuse(Imap), ended(), Pass(9999)], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), ended(), Reload], ["authorization-ended", "authorization-ended"]),
        (&[Refuse(Imap), ended(), RetryNow], ["refresh", "refresh"]),
        (&[ended()], ["send", "send"]),
        // A new token that is refused before it ever worked: a loop. Another mailbox may still accept it.
        (&[Refuse(Imap), Renew, Refuse(Imap)], ["token-refused", "send"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Pass(59)], ["token-refused", "send"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Pass(60)], ["refresh", "send"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), Reload], ["refresh", "send"]),
        (&[Refuse(Imap), Renew, Refuse(Imap), RetryNow], ["refresh", "send"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Refuse(Imap), Pass(119)], ["token-refused", "send"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Refuse(Imap), Pass(120)], ["refresh", "send"]),
        (&[Renew, Refuse(Imap), Pass(60), Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        // No loop: a token that has worked, however soon it ends, and one that is no longer new.
        (&[Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Renew, Accept(Imap), Refuse(Imap), Renew, Accept(Imap), Refuse(Imap)], ["refresh", "refresh"]),
        (&[Renew, Pass(59), Refuse(Imap)], ["token-refused", "send"]),
        (&[Renew, Pass(60), Refuse(Imap)], ["refresh", "refresh"]),
        // Its server has a problem, which may mean its end: nobody sends it while it is replaced; if that fails, it is sent.
        (&[Trouble(Imap), Refresh], ["wait", "wait"]),
        (&[Trouble(Imap), Refresh, Renew], ["send", "send"]),
        (&[Trouble(Imap), down()], ["send", "send"]),
    ];
    for (row, (events, expected)) in table.iter().enumerate() {
        let scenario = Scenario::new(events);
        assert_eq!([Imap, Smtp].map(|protocol| scenario.next(protocol, Left::Enough)), *expected, "row {row}");
    }
}

#[test]
fn a_token_that_expires_soon_is_replaced_and_used_if_that_fails() {
    let next = |events: &[Event], left| Scenario::new(events).next(Imap, left);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[], left)), ["refresh"; 2]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[Refresh], left)), ["wait"; 2]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[down()], left)), ["send", "unavailable"]);
    assert_eq!([Left::Little, Left::Nothing].map(|left| next(&[ended()], left)), ["send", "authorization-ended"]);
    assert_eq!(next(&[Refuse(Imap), down()], Left::Little), "unavailable");
}

#[test]
fn a_server_problem_costs_a_mailbox_one_token_until_a_login_succeeds() {
    let may_have_ended = |events: &[Event]| {
        let mut scenario = Scenario::new(events);
        scenario.state.troubled(&mailbox(Imap), scenario.generation, scenario.now)
    };
    assert!(may_have_ended(&[]), "a token from the vault may be old");
    assert!(
        may_have_ended(&[Renew, Pass(600)]) && !may_have_ended(&[Renew, Pass(599)]),
        "a young one has hardly ended"
    );
    assert!(!may_have_ended(&[Trouble(Imap), Renew, Pass(9999)]), "an outage");
    assert!(may_have_ended(&[Trouble(Imap), down()]), "no new token was tried yet");
    assert!(may_have_ended(&[Trouble(Imap), Renew, Accept(Imap), Pass(600)]), "the outage is over");
    assert!(may_have_ended(&[Trouble(Smtp), Renew, Accept(Imap), Pass(600)]), "another server's problem");
    let mut scenario = Scenario::new(&[Renew]);
    assert!(scenario.state.troubled(&mailbox(Imap), 1, scenario.now), "there is a newer one already");
}

#[test]
fn a_renewal_gets_a_newer_token_without_sending_it() {
    let renewal = |events: &[Event], than| {
        let scenario = Scenario::new(events);
        match scenario.state.renewal(than, scenario.now) {
            Next::Answer(refusal) => Next::Answer(Refusal { text: String::new(), ..refusal }),
            next => next,
        }
    };
    let answer = |reason| Next::Answer(Refusal::new(reason, ""));
    for (events, than, expected) in [
        (&[][..], 1, Next::Refresh),
        (&[][..], 0, Next::Send),
        (&[Renew], 1, Next::Send),
        (&[Renew], 2, Next::Refresh),
        (&[Refresh], 1, Next::Wait),
        (&[Renew, Refresh], 1, Next::Send),
        (&[down()], 1, answer(Reason::Unavailable)),
        (&[down(), Pass(61)], 1, Next::Refresh),
        (&[ended(), Pass(9999)], 1, answer(Reason::AuthorizationEnded)),
    ] {
        assert_eq!(renewal(events, than), expected);
    }
}

#[test]
fn a_refresh_is_under_way_until_it_ends() {
    let is_refreshing = |events: &[Event]| Scenario::new(events).state.is_refreshing();
    assert_eq!(
        [&[][..], &[Refresh], &[Refresh, Renew], &[Refresh, down()]].map(is_refreshing),
        [false, true, false, false]
    );
    let is_refused = |events: &[Event]| Scenario::new(events).state.is_refused();
    assert_eq!(
        [&[][..], &[Accept(Imap)], &[Refuse(Imap)], &[Refuse(Imap), Renew]].map(is_refused),
        [false, false, true, false]
    );
}

/// A secret that could not be read may be readable in a minute; one that the server refuses stays wrong.
#[test]
fn a_failure_before_the_request_counts_for_a_minute() {
    for (was_sent, after_a_minute) in [(false, "refresh"), (true, "authorization-ended")] {
        let mut scenario = Scenario::new(&[Refuse(Imap), Refresh]);
        let failure = Failure::Misconfigured("no secret".into());
        let refusal = Refusal::new(Reason::AuthorizationEnded, "no secret");
        scenario.state.failed(scenario.ticket.take().unwrap(), &failure, refusal, was_sent, (Moment(1), scenario.now));
        scenario.state.end();
        scenario.happen(&Pass(59));
        assert_eq!(scenario.next(Imap, Left::Enough), "authorization-ended");
        scenario.happen(&Pass(1));
        assert_eq!(scenario.next(Imap, Left::Enough), after_a_minute);
    }
}

#[test]
fn the_fifth_refusal_without_a_reason_means_an_end() {
    let mut scenario = Scenario::new(&[]);
    let five = |scenario: &mut Scenario| [(); 5].map(|()| scenario.state.count_unexplained());
    assert_eq!(five(&mut scenario), [false, false, false, false, true]);
    assert!(scenario.state.count_unexplained(), "and so does each further one");
    for event in [Renew, RetryNow] {
        scenario.happen(&event);
        assert_eq!(
            five(&mut scenario),
            [false, false, false, false, true],
            "they are counted from the beginning again"
        );
    }
}

/// Whether a login sends its token, in a word.
fn decision(scenario: &mut Scenario, generation: u64, seen: &mut Option<u64>) -> &'static str {
    match scenario.state.may_login_send(&mailbox(Imap), generation, seen, scenario.now) {
        SendDecision::First(_) => "first",
        SendDecision::Follow => "follow",
        SendDecision::Wait(_) => "wait",
        SendDecision::Stale => "stale",
    }
}

#[test]
fn one_login_sends_a_token_and_the_others_wait_for_its_answer() {
    let mut scenario = Scenario::new(&[Accept(Imap)]);
    let mut seen = [None; 4];
    assert_eq!([0, 1, 2].map(|who| decision(&mut scenario, 1, &mut seen[who])), ["first", "wait", "wait"]);
    scenario.happen(&Accept(Imap));
    assert_eq!(decision(&mut scenario, 1, &mut seen[3]), "first", "a later login was not there when it was accepted");
    assert_eq!([1, 2].map(|who| decision(&mut scenario, 1, &mut seen[who])), ["follow"; 2]);
    scenario.happen(&Refuse(Imap));
    assert_eq!(decision(&mut scenario, 1, &mut None), "stale");
    scenario.happen(&Renew);
    assert_eq!([1, 2].map(|generation| decision(&mut scenario, generation, &mut None)), ["stale", "first"]);
}

#[test]
fn after_a_login_without_an_answer_or_a_slow_one_the_next_sends_the_token() {
    let mut scenario = Scenario::new(&[]);
    let SendDecision::First(probe) = scenario.state.may_login_send(&mailbox(Imap), 1, &mut None, scenario.now) else {
        panic!("another login is first")
    };
    assert_eq!(decision(&mut scenario, 1, &mut None), "wait");
    scenario.state.unanswered(probe);
    assert_eq!(decision(&mut scenario, 1, &mut None), "first");
    scenario.state.unanswered(TokenProbe { begun: scenario.now + SLOW, ..probe });
    assert_eq!(decision(&mut scenario, 1, &mut None), "wait", "that was another probe");
    scenario.happen(&Pass(SLOW.as_secs()));
    assert_eq!([(); 2].map(|()| decision(&mut scenario, 1, &mut None)), ["first", "wait"]);
}

#[test]
fn each_mechanism_is_tried_before_a_new_token_counts_as_refused() {
    let mut scenario = Scenario::new(&[]);
    let offered = [OAuthBearer, XOAuth2];
    let next = |scenario: &mut Scenario| {
        let first = scenario.state.mechanism(&mailbox(Imap), &offered).unwrap();
        scenario.mechanisms =
            if first == OAuthBearer { vec![OAuthBearer, XOAuth2] } else { vec![XOAuth2, OAuthBearer] };
        first
    };
    scenario.happen(&Renew);
    assert_eq!(next(&mut scenario), OAuthBearer);
    scenario.happen(&Refuse(Imap));
    assert_eq!((next(&mut scenario), scenario.next(Imap, Left::Enough)), (XOAuth2, "refresh"));
    assert!(!scenario.state.works(&mailbox(Imap), XOAuth2), "it is only the next to try");
    scenario.happen(&Renew);
    scenario.happen(&Accept(Imap));
    assert_eq!(next(&mut scenario), XOAuth2, "what has worked is remembered");
    scenario.state.recall(mailbox(Smtp), OAuthBearer);
    for (protocol, mechanism, works) in
        [(Imap, XOAuth2, true), (Imap, OAuthBearer, false), (Smtp, OAuthBearer, true), (Smtp, XOAuth2, false)]
    {
        assert_eq!(scenario.state.works(&mailbox(protocol), mechanism), works, "{protocol} {mechanism:?}");
    }
    for _ in 0..2 {
        scenario.happen(&Refuse(Imap));
        assert_eq!(next(&mut scenario), XOAuth2, "a token that has ended says nothing about the mechanism");
        scenario.happen(&Renew);
        scenario.happen(&Accept(Imap));
    }
    scenario.happen(&Renew);
    scenario.happen(&Refuse(Imap));
    assert_eq!((next(&mut scenario), scenario.next(Imap, Left::Enough)), (OAuthBearer, "token-refused"));
}

#[test]
fn a_mechanism_that_the_server_refuses_costs_no_token() {
    let mut scenario = Scenario::new(&[]);
    scenario.state.recall(mailbox(Imap), XOAuth2);
    assert_eq!(scenario.state.mechanism(&mailbox(Imap), &[OAuthBearer, XOAuth2]), Some(XOAuth2));
    assert_eq!(
        scenario.state.mechanism(&mailbox(Imap), &[OAuthBearer]),
        Some(OAuthBearer),
        "the other one is not offered any more"
    );
    scenario.state.mechanism_refused(&mailbox(Imap), XOAuth2);
    assert_eq!(scenario.state.mechanism(&mailbox(Imap), &[OAuthBearer, XOAuth2]), Some(OAuthBearer));
    assert_eq!(scenario.state.mechanism(&mailbox(Imap), &[]), None);
    assert_eq!(scenario.next(Imap, Left::Enough), "send");
}

#[test]
fn people_see_what_is_needed_and_the_last_login_failure_until_they_are_over() {
    assert_eq!(Scenario::new(&[down()]).state.needed(), None);
    let mut scenario = Scenario::new(&[misconfigured(), Reload]);
    assert_eq!(scenario.state.needed(), Some("no token"));
    let past = scenario.state.past_failure().unwrap();
    assert!(past.at == Moment(1) && past.why.contains("the secret is wrong"), "{past:?}");
    scenario.happen(&Renew);
    assert_eq!(scenario.state.needed(), None);
    scenario.state.note_login_failure(&mailbox(Imap), Moment(1), "IMAP says no");
    scenario.state.note_login_failure(&mailbox(Smtp), Moment(2), "SMTP says no");
    assert_eq!(scenario.state.login_failure().map(|failure| failure.why.as_str()), Some("SMTP says no"));
    scenario.happen(&Accept(Smtp));
    assert_eq!(scenario.state.login_failure().map(|failure| failure.why.as_str()), Some("IMAP says no"));
    scenario.happen(&Accept(Imap));
    assert_eq!(scenario.state.login_failure(), None);
}

#[test]
fn a_failure_counts_longer_the_more_come_in_a_row() {
    let between = |cause, in_a_row, from, to| {
        let pause = pause_after(cause, in_a_row).as_secs_f64();
        assert!((from..=to).contains(&pause), "{cause:?} for the {in_a_row}th time counts {pause} s");
    };
    for cause in [TemporaryCause::Faulty, TemporaryCause::Lost, TemporaryCause::Lasting(None)] {
        between(cause, 1, 3.75, 5.0);
        between(cause, 2, 7.5, 10.0);
        between(cause, 5, 45.0, 60.0);
        between(cause, u32::MAX, 45.0, 60.0);
    }
    between(TemporaryCause::Unreachable, 100, 5.0, 5.0);
    between(TemporaryCause::Lasting(Some(Duration::from_secs(1))), 1, 3.75, 5.0);
    between(TemporaryCause::Lasting(Some(Duration::from_secs(120))), 1, 120.0, 120.0);
    between(TemporaryCause::Lasting(Some(Duration::MAX)), 1, 3600.0, 3600.0);
}

/// The log has a failure once, and again after anything else.
#[test]
fn the_same_failure_is_recognized_until_something_else_happens() {
    let failure = |why: &str| Failure::Temporary(TemporaryCause::Unreachable, why.to_owned());
    let fail = |why: &str| Fail(failure(why));
    let is_known = |events: &[Event]| Scenario::new(events).state.has_failed_like(&failure("no network"));
    assert!(!is_known(&[]));
    assert!(is_known(&[fail("no network"), Pass(600)]) && is_known(&[fail("no network"), fail("no network")]));
    assert!(!is_known(&[fail("no network"), fail("no name")]));
    assert!(!is_known(&[fail("no network"), Refresh, Renew]) && !is_known(&[fail("no network"), RetryNow]));
}
