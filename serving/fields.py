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


class FarmPath(Strict):
    """Which farm."""

    external_farm_id: uuid.UUID
