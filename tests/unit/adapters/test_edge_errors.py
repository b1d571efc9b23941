"""Whatever the Edge binding raises is one of our errors when it leaves the adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixpeek_operator.adapters._edge_shard import translate
from mixpeek_operator.adapters.data_lock import DataLock
from mixpeek_operator.core.errors import (
    ConflictError,
    InternalError,
    MixpeekError,
    NotFoundError,
    SpecError,
    UnavailableError,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exception("Vector dimension error: expected dim: 4, got 2"), SpecError),
        (Exception("Not existing vector name error: zz"), SpecError),
        (Exception("No point with id 58865f0a"), NotFoundError),
        (Exception("Service runtime error: cannot load edge shard"), UnavailableError),
        (Exception("Validation failed: vector 'd2' already exists with different parameters"), ConflictError),
        (ValueError("failed to parse nouuid as UUID"), SpecError),
        (TypeError("failed to extract enum Helper\n- variant Bool"), SpecError),
        (OverflowError("int too big to convert"), SpecError),
        (OSError(28, "No space left on device"), UnavailableError),
        (Exception("something never seen"), InternalError),
        (Exception(), InternalError),
    ],
)
def test_errors_are_ours(error: Exception, expected: type[MixpeekError]) -> None:
    translated = translate(error)
    assert type(translated) is expected
    assert "\n" not in str(translated)


def test_a_data_directory_has_one_owner(tmp_path: Path) -> None:
    with (
        DataLock(tmp_path / "data"),
        pytest.raises(ConflictError, match="in use by process"),
        DataLock(tmp_path / "data"),
    ):
        pass
    with DataLock(tmp_path / "data"):
        pass
