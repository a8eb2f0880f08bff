"""Opaque cursors: where a list goes on, in a form that callers hand back unread."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from serving.faults import ApiError, FieldError, invalid

LONGEST = 200


def to_cursor(kind: str, *place: Any) -> str:
    """Make a cursor of a list of this kind."""
    return base64.urlsafe_b64encode(orjson.dumps([kind, *place])).rstrip(b"=").decode()


def from_cursor(kind: str, cursor: str, *types: type, field: str = "cursor") -> list[Any]:
    """Read a cursor that `to_cursor` made of values of these types.

    Raises:
        ApiError: 422, it is not one of this list.
    """
    if len(cursor) <= LONGEST:
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            given = orjson.loads(raw)
        except (binascii.Error, ValueError):
            given = None
        if isinstance(given, list) and given[:1] == [kind] and [type(each) for each in given[1:]] == list(types):
            return given[1:]
    raise no_cursor(field)


def no_cursor(field: str = "cursor") -> ApiError:
    """The answer to a cursor that is none of this list."""
    return invalid([FieldError(f"query.{field}", "is no cursor of this list", "a cursor that an answer gave")])
