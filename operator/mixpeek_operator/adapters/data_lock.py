"""One process per data directory: the embedded stores have one writer."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from mixpeek_operator.core.errors import ConflictError


class DataLock:
    """Holds `<directory>/lock` while entered. ConflictError names the process that has it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._descriptor: int | None = None

    def __enter__(self) -> DataLock:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConflictError(
                f"the data directory {self._directory} is in use by process {holder}; stop it or use another --data",
                code="data_locked",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
