"""`${{ secrets.NAME }}` as a whole value of a spec: a secret's place, never its value."""

from __future__ import annotations

import re

_SECRET = re.compile(r"\s*\$\{\{\s*secrets\s*\.\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}\s*")


def secret_of(value: str) -> str | None:
    """Return the name of the secret that a value is a placeholder of, None for plain text."""
    found = _SECRET.fullmatch(value)
    return found.group(1) if found else None
