"""What pymongo leaves behind: it drops a socket that is still connecting when its client is closed, and nothing of ours
can close it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def sockets_of_closed_clients() -> Iterator[None]:
    """Collect them here, so that no later test is blamed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
