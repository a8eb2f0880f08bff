"""The one shape of every JSON answer: `{"status", "message", "data", "errors"}`.

Finished bytes go in as they are: a read model is never parsed on its way to a reader.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

Word = Literal["success", "processing", "error"]


def dumps(value: Any) -> bytes:
    """A value as JSON; instants in UTC, days and UUIDs as text."""
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a key that is no plain text; to allow for such takes a third longer
        return orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def envelope(
    word: Word, message: str, *, data: bytes = b"null", errors: Sequence[Mapping[str, Any]] | None = None
) -> bytes:
    """Put the envelope around data that is JSON already."""
    tail = b',"errors":null}' if errors is None else b',"errors":' + dumps(list(errors)) + b"}"
    return _head(word, message) + data + tail


@functools.lru_cache(maxsize=512)
def _head(word: Word, message: str) -> bytes:
    return b'{"status":"%b","message":%b,"data":' % (word.encode(), orjson.dumps(message))
