"""What a name, an owner or an id may be as text. Standard library alone, so that serving may load it."""

from __future__ import annotations

from models.errors import BadInput

MAX_TEXT = 200
"""Most characters of a name, an owner or an id."""

MAX_GIVEN = 10_000
"""Most characters that are looked at, white space included."""


def clean_text(text: str) -> str | None:
    """Return text as it is stored, each run of white space as one space; None when it says nothing.

    Raises:
        BadInput: when it is too long or has characters that nobody can see.
    """
    cleaned = " ".join(text[: MAX_GIVEN + 1].split())
    if not cleaned and len(text) <= MAX_GIVEN:
        return None
    if len(text) > MAX_GIVEN or len(cleaned) > MAX_TEXT or not cleaned.isprintable():
        raise BadInput("text", f"cannot be stored: {cleaned[:40]!r}", allowed=f"{MAX_TEXT} printable characters")
    return cleaned
