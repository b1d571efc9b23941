"""What a template raises: it does not parse, or it cannot be evaluated within its limits."""

from __future__ import annotations

from mixpeek_operator.core.errors import SpecError


class TemplateError(SpecError):
    """A template is wrong, or did not finish within its budget of steps, output and time."""

    default_code = "template_invalid"
