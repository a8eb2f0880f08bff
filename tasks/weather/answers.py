"""The text of an answer as JSON, and what is not JSON told apart."""

from __future__ import annotations

import json
import re
from typing import Any

_STRING_OR_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:nan|inf|infinity)\b', re.IGNORECASE)


class NotJson(ValueError):
    """An answer that is no JSON. Services under load answer so for a while; the message says what came instead."""


def json_object_or_list(body: bytes) -> Any:
    """The JSON document of an answer, an object or a list; `nan` and infinities in it are None.

    A bare `nan` is no JSON, but Open-Meteo has sent it for missing values.

    Raises:
        NotJson: the body is empty, cut short, HTML, or some other text.
    """
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise NotJson("the answer is not text") from None
    if not text:
        raise NotJson("the answer is empty")
    if text.startswith("<"):
        raise NotJson(f"the answer is a page of HTML or XML, not JSON: {excerpt(text)}")
    document = _parsed(text)
    if not isinstance(document, dict | list):
        raise NotJson(f"the answer is neither an object nor a list: {excerpt(text)}")
    return document


def excerpt(text: str, length: int = 160) -> str:
    """The words at the start of a text, in one line, without markup."""
    words = " ".join(re.sub(r"<[^>]*>", " ", text[: 20 * length]).split())
    return words if len(words) <= length else words[:length] + "..."


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_nothing)
    except RecursionError:
        raise NotJson("the answer is nested too deeply") from None
    except ValueError:
        pass
    # Slower, so only tried when the strict reading failed.
    patched = _STRING_OR_NO_NUMBER.sub(lambda found: found[0] if found[0].startswith('"') else "null", text)
    try:
        return json.loads(patched, parse_constant=_nothing)
    except (ValueError, RecursionError) as error:
        raise NotJson(f"the answer is cut short or broken JSON: {error}") from None


def _nothing(_: str) -> None:
    return None
