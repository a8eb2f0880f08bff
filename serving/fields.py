"""Fields that several endpoints take."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from serving.endpoints import Strict

FIRST_DAY = dt.date(1972, 7, 23)
"""Landsat 1: nothing was observed from orbit before, nor can be stored here."""
LAST_DAY = dt.date(2100, 12, 31)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _as_day(value: Any) -> dt.date:
    """A day as `YYYY-MM-DD` and in no other way: pydantic takes `1` for one second after 1970."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError("day", "is no day of the calendar", {"allowed": "YYYY-MM-DD"}) from None
        if FIRST_DAY <= day <= LAST_DAY:
            return day
        raise PydanticCustomError("day", "is out of range", {"allowed": f"{FIRST_DAY} to {LAST_DAY}"})
    raise PydanticCustomError("day", "is not a day", {"allowed": "YYYY-MM-DD"})


Day = Annotated[dt.date, BeforeValidator(_as_day)]
Fraction = Annotated[float, Field(ge=0, le=1)]


_FARM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _as_farm_id(value: Any) -> uuid.UUID:
    """A farm's id in the one form that it is told in: pydantic takes it in braces, as a URN and without hyphens, too,
    and who compares addresses as text would know one farm by several names."""
    if isinstance(value, uuid.UUID):
        return value
    if isinstance(value, str) and _FARM_ID.fullmatch(value):
        return uuid.UUID(value)
    allowed = {"allowed": "32 hexadecimal digits as 8-4-4-4-12, such as 5f2b6a0e-8c1d-4e9a-9b57-3d2f1c0a7e64"}
    raise PydanticCustomError("farm_id", "is not a UUID", allowed)


FarmId = Annotated[uuid.UUID, BeforeValidator(_as_farm_id)]


class FarmPath(Strict):
    """Which farm."""

    external_farm_id: FarmId
