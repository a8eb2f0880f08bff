"""Bodies and query strings of requests, read within limits."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serving.faults import ApiError, FieldError, invalid
from serving.principal import Headers

MOST_NESTED = 32
"""Brackets within brackets of a JSON body; a MultiPolygon of a farm in a list has nine."""

READ_TIMEOUT_S = 30.0
"""Longest wait for a whole body."""

MOST_PARAMETERS = 50


async def read_body(receive: Receive, headers: Headers, *, most_bytes: int) -> bytes:
    """Read a request's body.

    Raises:
        ApiError: 413, it is larger than `most_bytes`; 408, it did not come in time.
        ClientDisconnect: the caller went away.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    parts, size, is_more = [], 0, True
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            while is_more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                parts.append(part)
                is_more = message.get("more_body", False)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {READ_TIMEOUT_S:.0f} s") from None
    return b"".join(parts)


def _too_large(most_bytes: int) -> ApiError:
    allowed = f"at most {most_bytes:,} bytes"
    return ApiError(413, f"body: is too large; allowed: {allowed}", [FieldError("body", "is too large", allowed)])


def read_json(body: bytes, headers: Headers) -> Any:
    """Read JSON.

    Raises:
        ApiError: 400, it is not JSON; 415, it says to be something else; 422, it is nested too deeply.
    """
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        error = FieldError("header.content-type", "is not JSON", "application/json")
        raise ApiError(415, "header.content-type: is not JSON", [error])
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})" if body else "is empty"
        raise ApiError(400, f"body: {message}", [FieldError("body", message, "JSON in UTF-8")]) from None
    if not is_flat_enough(body, MOST_NESTED):
        raise invalid([FieldError("body", "is nested too deeply", f"at most {MOST_NESTED} levels")])
    return value


_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(each for each in range(256) if each not in b"[]{}")


def is_flat_enough(json: bytes, most: int) -> bool:
    """Whether valid JSON has at most so many brackets within brackets; as quick as the search for a byte."""
    brackets = _STRINGS.sub(b"", json).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(most):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def read_query(query: bytes) -> dict[str, str]:
    """Read the parameters of a query string.

    Raises:
        ApiError: 422, a parameter is given twice or is not UTF-8, or there are too many.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except ValueError:
        problem, allowed = "cannot be read", f"UTF-8, at most {MOST_PARAMETERS} parameters"
        raise invalid([FieldError("query", problem, allowed)]) from None
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise invalid([FieldError(f"query.{name}", "is given more than once", "once") for name in twice])
    return found
