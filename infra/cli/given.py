"""What users give on the command line: days, farms, boxes and kinds of work."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

from models.errors import BadInput


def parse_day(text: str | None, *, field: str) -> dt.date | None:
    """A day as a user writes it.

    Raises:
        BadInput: it is not a day of the calendar.
    """
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(field, f"{text!r} is not a day", allowed="YYYY-MM-DD, such as 2024-05-14") from error


def parse_bbox(text: str | None, *, field: str = "--bbox") -> tuple[float, float, float, float] | None:
    """A box of west, south, east, north in degrees; west may be greater than east, across the antimeridian.

    Raises:
        BadInput: it is no such box.
    """
    if text is None:
        return None
    allowed = "WEST,SOUTH,EAST,NORTH in degrees, south <= north, such as 6.1,51.2,6.4,51.5"
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError as error:
        raise BadInput(field, f"{text!r} is not a box", allowed=allowed) from error
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise BadInput(field, f"{text!r} is out of range", allowed=allowed)
    return west, south, east, north


def parse_words(text: str, *, field: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Some of the allowed words, separated by commas, each once and in the order of `allowed`.

    Raises:
        BadInput: there is none, or another one.
    """
    given = {word.strip() for word in text.split(",")}
    if odd := sorted(given - set(allowed)):
        raise BadInput(field, f"{odd[0]!r} is not known", allowed=", ".join(allowed))
    return tuple(word for word in allowed if word in given)


def parse_farms(texts: list[str] | None, *, field: str = "--farm") -> list[uuid.UUID] | None:
    """External farm ids as a user writes them.

    Raises:
        BadInput: one is not a UUID.
    """
    return [_farm_id(text, field=field) for text in texts] if texts else None


def _farm_id(text: str, *, field: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        problem = f"{text!r} is not a UUID"
        raise BadInput(field, problem, allowed="external_farm_id, see `swath farms list`") from error


def output_file(path: Path, *, field: str = "--output") -> Path:
    """Where a file is to be written, links followed.

    What is there is replaced, so it must be a file: root would put one in the place of `/dev/null`.

    Raises:
        BadInput: something else than a file is there, or nobody may look.
    """
    allowed = "a file, in a folder that exists"
    try:
        found = path.resolve()
        is_other = found.exists() and not found.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # also a link to itself, or a name with a zero byte
        raise BadInput(field, f"{path} cannot be used: {error}", allowed=allowed) from error
    if is_other:
        raise BadInput(field, f"{path} is a folder" if found.is_dir() else f"{path} is no file", allowed=allowed)
    return found
