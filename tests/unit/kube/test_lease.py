"""The lease, as laws over any number of candidates, clocks and losses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.kube.lease import Move, Seen, decide, look, released, written
from mixpeek_operator.ports.leases import Lease

DURATION = 15.0


@dataclass
class Candidate:
    """Acts as the election does, with a clock of its own and messages that come late or never."""

    name: str
    offset: float
    seen: Seen | None = None
    until: float = float("-inf")
    pending: tuple[float, Lease] | None = None

    def clock(self, now: float) -> float:
        return now + self.offset

    def holds(self, now: float) -> bool:
        return self.clock(now) < self.until


@dataclass
class Server:
    lease: Lease = field(default_factory=Lease)
    writes: int = 0

    def write(self, lease: Lease) -> Lease | None:
        if lease.version != self.lease.version:
            return None
        self.writes += 1
        self.lease = replace(lease, version=str(self.writes))
        return self.lease


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0, 9),
        st.sampled_from(["turn", "turn", "turn", "read", "send", "arrive", "lost answer", "release", "restart"]),
    ),
    max_size=80,
)


@settings(max_examples=400)
@given(steps=STEPS, offsets=st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_at_no_moment_two_hold_it(steps: list[tuple[int, float, str]], offsets: list[float]) -> None:
    server, now = Server(), 0.0
    candidates = [Candidate(f"replica-{number}", offset) for number, offset in enumerate(offsets)]
    for who, passed, act in steps:
        now += passed
        candidate = candidates[who]
        if act in ("turn", "read", "send", "lost answer"):
            if act != "send":
                candidate.seen = look(candidate.seen, server.lease, candidate.clock(now))
            if act != "read" and candidate.seen is not None:
                move = decide(candidate.seen, candidate.name, candidate.clock(now))
                record = written(candidate.seen.lease, candidate.name, DURATION)
                if move is Move.WAIT:
                    candidate.until = float("-inf")
                elif act == "send":
                    # It is under way: it arrives at any later time, and counts from now.
                    candidate.pending = (candidate.clock(now), record)
                else:
                    after = server.write(record)
                    if after is not None and act != "lost answer":
                        candidate.seen = Seen(after, candidate.clock(now))
                        candidate.until = candidate.clock(now) + DURATION
        elif act == "arrive" and candidate.pending is not None:
            began, record = candidate.pending
            after = server.write(record)
            if after is not None:
                candidate.until = began + DURATION
                candidate.seen = Seen(after, candidate.clock(now))
            candidate.pending = None
        elif act == "release" and candidate.holds(now) and candidate.seen is not None:
            candidate.until = float("-inf")
            server.write(released(candidate.seen.lease))
        elif act == "restart":
            candidates[who] = Candidate(f"{candidate.name}'", candidate.offset)
        assert sum(one.holds(now) for one in candidates) <= 1


@given(since=st.floats(0, 1e6), waited=st.floats(0, 100), duration=st.floats(1, 60))
def test_an_abandoned_lease_is_taken_exactly_when_its_time_is_over(
    since: float, waited: float, duration: float
) -> None:
    seen = Seen(Lease(holder="other", duration_s=duration, version="7"), since)
    now = since + waited
    assert decide(seen, "me", now) is (Move.TAKE if now >= since + duration else Move.WAIT)


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    lease = released(written(Lease(version="1"), "other", DURATION))
    assert decide(Seen(lease, 0.0), "me", 0.0) is Move.TAKE
    assert written(lease, "me", DURATION).transitions == 2


def test_reading_the_same_version_again_does_not_start_the_wait_anew() -> None:
    lease = Lease(holder="other", version="4")
    first = look(None, lease, 10.0)
    assert look(first, lease, 20.0).since == 10.0
    assert look(first, replace(lease, version="5"), 20.0).since == 20.0
