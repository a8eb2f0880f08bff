"""What users give on the command line: days and farms."""

from __future__ import annotations

import datetime as dt
import uuid

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
