"""The judge, and the provider whose report it reads, with results that are made up: what is wrong must be found."""

from judge import LONGEST, SETTLING, STORING, Disturbance, Kill, judge
from process import Failure
from provider import Provider

AWAY = "a NO [UNAVAILABLE] Try later: PostgreSQL cannot be used: it did not answer in time; try again later."
INTERRUPTED = "a NO [UNAVAILABLE] Try later: another replica was interrupted while it refreshed the tokens, and may still store them."


def one(at, outcome="ok", words="", seconds=0.1):
    """A try of a login."""
    return {"at": at, "seconds": seconds, "outcome": outcome, "words": words}


def wrong_about(*tries, failures=(), twice=(), kills=(), used=(), unknown=0):
    """What the judge says about one login."""
    logins = [{"protocol": "imap", "address": "ann@example.test", "tries": list(tries)}] if tries else []
    report = {"twice": list(twice), "refreshes": {}, "unknown": unknown}
    return judge(logins, report, failures, list(kills), set(used), tell=lambda _: None)


def expect_right(what, *tries, **report):
    """The judge finds nothing."""
    if wrong := wrong_about(*tries, **report):
        raise Failure(f"{what}: {wrong}")


def expect_wrong(what, *tries, **report):
    """The judge finds one thing."""
    wrong = wrong_about(*tries, **report)
    if len(wrong) != 1 or what not in wrong[0]:
        raise Failure(f"{what} once, and not {wrong}")


def a_login_that_fails_without_a_reason_is_wrong():
    expect_right("at once", one(100))
    expect_wrong("unexplained", one(100, "temporary", AWAY), one(101))
    expect_wrong("unexplained", one(100, "cut"), one(101))
    expect_wrong("unexplained", one(100, "permanent", "a NO [AUTHENTICATIONFAILED]"))
    expect_wrong("never worked", one(100, "cut"), failures=[Disturbance("kill", 99, 101)])
    expect_wrong("too slow", one(100, seconds=LONGEST + 1))
    expect_right("slow behind an outage", one(100, seconds=LONGEST + 1), failures=[Disturbance("database", 80, 99)])
    expect_wrong("too slow", one(200, seconds=LONGEST + 1), failures=[Disturbance("database", 80, 99)])


def a_failure_explains_only_what_it_causes_and_only_for_a_while():
    away, killed = [Disturbance("database", 90, 100)], [Disturbance("kill", 99, 100)]
    expect_right("in the outage", one(95, "temporary", AWAY), one(96), failures=away)
    expect_right("just after the outage", one(109, "temporary", AWAY), one(110), failures=away)
    expect_wrong("unexplained", one(111, "temporary", AWAY), one(112), failures=away)
    expect_wrong("unexplained", one(100, "temporary", AWAY), one(101), failures=killed)
    expect_right("at the kill", one(99.5, "cut"), one(100), failures=killed)
    expect_wrong("unexplained", one(99.5, "cut"), one(100), failures=away)
    expect_wrong("unexplained", one(102, "cut"), one(103), failures=killed)


def an_interrupted_refresh_is_explained_until_others_may_go_on():
    killed = [Disturbance("kill", 99, 100)]
    expect_right("while the others wait", one(140, "temporary", INTERRUPTED), one(140 + SETTLING), failures=killed)
    expect_wrong("unexplained", one(140, "temporary", INTERRUPTED), one(141 + SETTLING, "temporary", INTERRUPTED), one(300),
                 failures=killed)


def a_token_that_is_used_twice_is_wrong_unless_its_answer_was_on_the_wire_at_a_kill():
    def twice(answered, replica="one"):
        use = {"replica": replica, "begun": 99, "spent": 99, "answered": answered, "number": 7}
        return [{"address": "ann@example.test", "first": use, "second": use}]

    kills = [Kill("one", 100, 100.01)]
    for answered in (None, 100 - STORING / 2, 100.02):
        expect_right(answered, twice=twice(answered), kills=kills)
    expect_right("the login that learns it", one(120, "permanent"), twice=twice(100), kills=kills)
    expect_wrong("used twice", twice=twice(100 - 2 * STORING), kills=kills)
    expect_wrong("used twice", twice=twice(100, "two"), kills=kills)
    expect_wrong("used twice", twice=twice(100))
    expect_wrong("in use before it was stored", twice=twice(100), kills=kills, used=[7])
    expect_wrong("never issued", unknown=1)


def the_provider_notices_a_second_use():
    provider = Provider({"secrets": {}, "secret": "s", "seconds": 60, "pause": 0})
    token = provider.grant(["ann@example.test"])["ann@example.test"]
    answers = [provider.refresh(token, {"replica": replica, "begun": 1})[0] for replica in ("one", "two")]
    report = provider.report()
    if answers != [200, 400] or [entry["address"] for entry in report["twice"]] != ["ann@example.test"] or not report["ended"]:
        raise Failure(f"the second use ends the grant, and not {answers}, {report}")


TESTS = [
    a_login_that_fails_without_a_reason_is_wrong, a_failure_explains_only_what_it_causes_and_only_for_a_while,
    an_interrupted_refresh_is_explained_until_others_may_go_on,
    a_token_that_is_used_twice_is_wrong_unless_its_answer_was_on_the_wire_at_a_kill, the_provider_notices_a_second_use,
]
