"""Ids that come with every request: unique, of letters that a URL takes, and of a secret of their own."""

from __future__ import annotations

import re
from collections import Counter

from mixpeek_operator.core import ids


def test_a_stream_makes_ids_that_never_come_twice() -> None:
    one, other = ids.Stream("exec"), ids.Stream("exec")
    made = [stream.next() for _ in range(5000) for stream in (one, other)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"exec_[0-9a-z]{16}", id) for id in made)


def test_its_letters_are_even() -> None:
    stream = ids.Stream("req", 32)
    counted = Counter("".join(stream.next().removeprefix("req_") for _ in range(4000)))
    assert len(counted) == 36
    # 128,000 letters: 3,500 of most, 4,000 of four, each with a standard deviation of about 60.
    assert all(3100 < count < 4400 for count in counted.values())
