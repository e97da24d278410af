"""What may happen to a login while something fails, and what may not."""

import re
from collections import Counter
from dataclasses import dataclass

# How long after an answer of the authorization server a killed replica may not have stored it yet, in seconds: 0.06 at the usual load,
# but 0.25 was seen while thousands of logins waited for an outage to end.
STORING = 0.3

# How long after a kill the authorization server may begin with a request that was under way.
ARRIVING = 0.1

# A replica that finds another's interrupted refresh uses the old token only after 15 seconds, counted from when it was found. Two can
# find it one after the other. What is left is for the pause between two tries.
SETTLING = 2 * 15 + 10

# How long a login may take while nothing fails.
LONGEST = 10


@dataclass(frozen=True)
class Disturbance:
    """Something that was made to fail, and when."""

    kind: str
    begun: float
    ended: float

    def explains(self, one, seconds):
        """Whether a try was under way meanwhile, or so many seconds afterwards."""
        return one["at"] <= self.ended + seconds and one["at"] + one["seconds"] >= self.begun


@dataclass(frozen=True)
class Reason:
    """Why a try may fail: what it was told, and how many seconds after the end of which failures it may still be told that."""

    name: str
    outcome: str
    words: str
    after: dict


REASONS = (
    Reason("its connection ended", "cut", "", {"kill": 1, "suspend": 1, "upgrade": 1}),
    Reason("a replica was stopping", "temporary", r"is stopping", {"upgrade": 1}),
    # Reconnecting takes up to 5 s, and a refusal counts for 5 s.
    Reason("the database was away", "temporary", r"cannot be used", {"cut": 10, "database": 10, "suspend": 10}),
    # The lock of a replica that is cut off or suspended.
    Reason("another replica had the lock", "temporary", r"another replica is refreshing", {"cut": 5, "database": 5, "suspend": 5}),
    # An interrupted refresh is only found when somebody logs in.
    Reason("a refresh was interrupted", "temporary", r"was interrupted while it refreshed",
           {"kill": 120, "cut": 120, "database": 120, "suspend": 120}),
)
INTERRUPTED = REASONS[-1]


def reason_of(one, disturbances):
    """What explains a try that failed; None if nothing does."""
    for reason in REASONS:
        if reason.outcome == one["outcome"] and re.search(reason.words, one["words"]):
            if any(each.explains(one, reason.after[each.kind]) for each in disturbances if each.kind in reason.after):
                return reason
    return None


def failed_tries(logins):
    """All tries that failed, each with its login."""
    return [(login, one) for login in logins for one in login["tries"] if one["outcome"] != "ok"]


def unexplained(logins, disturbances):
    """The tries that no failure explains, also because they came too long after it."""
    first = {}  # when an account's interrupted refresh was found
    wrong = []
    for login, one in sorted(failed_tries(logins), key=lambda pair: pair[1]["at"]):
        reason, address = reason_of(one, disturbances), login["address"]
        if reason is INTERRUPTED:
            # One that is found much later is another one.
            if one["at"] - first.get(address, 0) > 2 * SETTLING:
                first[address] = one["at"]
            if one["at"] - first[address] > SETTLING:
                reason = None
        if reason is None:
            wrong.append((login, one))
    return wrong


def is_slow(one, disturbances):
    """Whether a try that worked took too long although nothing failed. What could not log in during an outage queues afterwards, for
    as long as the outage took if there is twice as much room as the load needs."""
    return one["outcome"] == "ok" and one["seconds"] > LONGEST and not any(
        each.explains(one, LONGEST + each.ended - each.begun) for each in disturbances if each.kind != "kill")


@dataclass(frozen=True)
class Kill:
    """A replica was killed between these times."""

    replica: str
    sent: float
    ended: float


def in_flight(report, kills):
    """The accounts whose answer was on its way to a replica when that was killed, each with how long before the kill the server answered,
    in ms. Nobody can prevent their loss. Negative is after the kill."""
    found = {}
    for entry in report["twice"]:
        use = entry["first"]
        for kill in kills:
            answered = use["answered"] or kill.sent
            if kill.replica == use["replica"] and use["begun"] <= kill.ended + ARRIVING and kill.sent <= answered + STORING:
                found[entry["address"]] = round((kill.sent - answered) * 1000)
    return found


def percentile(values, share):
    """The value below which this share of the values lies."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def figures(logins, report, disturbances, lost):
    """The figures, line by line."""
    first = [login["tries"][0]["seconds"] for login in logins if login["tries"][0]["outcome"] == "ok"]
    outcomes = Counter(one["outcome"] for login in logins for one in login["tries"])
    again = [login["tries"] for login in logins if len(login["tries"]) > 1]
    soon = sum(len(tries) == 2 and tries[1]["outcome"] == "ok" for tries in again)
    longest = max((tries[-1]["at"] - tries[0]["at"] for tries in again), default=0)
    yield f"{len(logins)} logins, {sum(report['refreshes'].values())} refreshes"
    yield (f"a login that worked at once: median {percentile(first, 0.5) * 1000:.0f} ms, p99 {percentile(first, 0.99) * 1000:.0f} ms, "
           f"longest {max(first, default=0):.1f} s")
    yield (f"tries: {outcomes['ok']} ok, {outcomes['temporary']} refused temporarily, {outcomes['cut']} cut, "
           f"{outcomes['permanent']} refused for good")
    reasons = Counter(getattr(reason_of(one, disturbances), "name", "unexplained") for login, one in failed_tries(logins)
                      if login["address"] not in lost)
    for name, count in reasons.items():
        yield f"  {count} tries: {name}"
    yield f"{len(again)} logins tried again: {soon} were right at the next try, the others later, at most {longest:.0f} s"
    yield f"tokens used twice: {len(report['twice'])}, of these {len(lost)} with the answer on the wire at a kill"
    if lost:
        yield f"  the answer was sent so many ms before the kill: {', '.join(map(str, sorted(lost.values())))}"
        refused = sum(login["address"] in lost and one["outcome"] == "permanent" for login, one in failed_tries(logins))
        yield f"  {refused} logins to these accounts were refused for good"


def judge(logins, report, disturbances, kills, used, tell=print):
    """What is wrong, in words. `used` has the numbers of the access tokens that have opened a mailbox and came with a refresh token that
    was used twice. Tells the figures first."""
    lost = in_flight(report, kills)
    for line in figures(logins, report, disturbances, lost):
        tell(f"    {line}")
    wrong = [f"used twice: {entry}" for entry in report["twice"] if entry["address"] not in lost]
    wrong += [f"in use before it was stored: {entry}" for entry in report["twice"] if entry["first"]["number"] in used]
    if report["unknown"]:
        wrong.append(f"{report['unknown']} refresh tokens that were never issued")
    others = [login for login in logins if login["address"] not in lost]
    wrong += [f"unexplained: {login['protocol']} {login['address']}: {one}" for login, one in unexplained(others, disturbances)]
    wrong += [f"never worked: {login}" for login in others if login["tries"][-1]["outcome"] in ("temporary", "cut")]
    wrong += [f"too slow: {login}" for login in others if any(is_slow(one, disturbances) for one in login["tries"])]
    return wrong
