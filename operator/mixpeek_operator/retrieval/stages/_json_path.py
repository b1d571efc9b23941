"""JSONPath (RFC 9535) as a parameter: compiled once, bounded when it is read."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import jsonpath
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mixpeek_operator.core.errors import RefusedError

_MAX_MATCHES: Final = 10_000
_ENVIRONMENT: Final = jsonpath.JSONPathEnvironment(strict=True)
# They run patterns of Python's own engine, which can take forever on a text that does not match.
for _name in ("match", "search"):
    del _ENVIRONMENT.function_extensions[_name]


class JsonPath:
    """A compiled path."""

    __slots__ = ("_path", "source")

    def __init__(self, source: str) -> None:
        """Raises ValueError saying what is wrong."""
        self.source = source
        try:
            path = _ENVIRONMENT.compile(source)
        except jsonpath.JSONPathError as error:
            raise ValueError(f"{source!r} is no JSONPath: {str(error).splitlines()[0]}") from None
        if not isinstance(path, jsonpath.JSONPath):
            raise ValueError(f"{source!r} is more than one JSONPath")
        if source.count("..") > 1:
            raise ValueError(f"{source!r} descends more than once; that is too much work")
        self._path = path

    def read(self, value: Any) -> Any:
        """Return the one match, or the list of matches of a path that may have several.

        Raises RefusedError when a path for one place matches nothing.
        """
        found = [match.value for match in islice(self._path.finditer(value), _MAX_MATCHES)]
        if not self._path.singular_query():
            return found
        if not found:
            raise RefusedError(f"the answer has nothing at {self.source}", code="response_path_missing")
        return found[0]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> JsonPath:
            return value if isinstance(value, cls) else cls(str(value))

        return core_schema.no_info_plain_validator_function(check)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A JSONPath."}
