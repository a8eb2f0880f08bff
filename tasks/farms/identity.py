"""Which farm a feature is, and what it is called.

A feature that brings a valid `external_farm_id` is that farm. Any other gets a UUID made from two things alone: the
*dataset* it came from (the name of the file, and of its layer where a file can have several; not its folder) and the
id it has there. So the same feature gets the same farm however often, from wherever and in whatever order it is read.
"""

from __future__ import annotations

import hashlib
import numbers
import shlex
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely

from models.errors import BadInput
from models.texts import clean_text

SWATH_NAMESPACE = uuid.UUID("5d0c4f0e-2f5b-4f5e-9a57-1d1c5f6f7a10")
"""Never change it: every identity made here would change with it."""

OWN_ID = "external_farm_id"
ID_FIELDS = (
    *("farm_id", "field_id", "parcel_id", "id", "uid", "uuid", "guid", "globalid"),
    *("objectid", "ogc_fid", "fid", "gid", "gis_id"),
)
NAME_FIELDS = ("name", "farm_name", "field_name", "parcel_name", "label", "title")
USER_FIELD = "external_user_id"

MIN_DISTINCT_FRACTION = 0.5
"""A field is taken for an id of its own accord when at least this share of the features has a value of its own in it.

Not "when all have": one id given twice by mistake would otherwise change how every farm of the file is identified.
Less than half is what a field looks like that names something else, such as the holding a parcel belongs to.
"""

MAX_MOVED_FRACTION = 0.5
"""A file that puts more of the farms it is about to change than this somewhere else is taken for another source.

Two owners' `fields.geojson` with ids from 1 on look like one dataset, and the second would move the first one's farms.
Fields are redrawn, split and renumbered, but not most of them at once to where they never were.
"""

_SHAPE_DECIMALS = 7
"""About a centimetre: a feature without any id is told by its shape, rounded to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The fields of a file that say who a farm is; the rest is not read."""

    own_id: str | None
    """Field that holds `external_farm_id`."""
    ids: tuple[str, ...]
    """Fields that may be the source's id, best first; exactly one when the user named it."""
    is_named: bool
    """The user named the id field: it is used as it is."""
    name: str | None
    user: str | None

    @property
    def all(self) -> list[str]:
        """Every field that is read, each once."""
        chosen = [self.own_id, *self.ids, self.name, self.user]
        return list(dict.fromkeys(each for each in chosen if each is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The fields that the user named; None leaves the choice to us."""

    id_field: str | None = None
    name_field: str | None = None
    user_field: str | None = None

    def among(self, available: Sequence[str]) -> Columns:
        """Choose the columns to read of those that a file has, upper or lower case.

        Raises:
            BadInput: when a field that the user named is not there.
        """
        named_id = _named("id-field", self.id_field, available)
        return Columns(
            own_id=_first((OWN_ID,), available),
            ids=(named_id,) if named_id else tuple(_present(ID_FIELDS, available)),
            is_named=named_id is not None,
            name=_named("name-field", self.name_field, available) or _first(NAME_FIELDS, available),
            user=_named("user-field", self.user_field, available) or _first((USER_FIELD,), available),
        )


def _present(names: Sequence[str], available: Sequence[str]) -> list[str]:
    by_name = {each.casefold(): each for each in reversed(available)}
    return [by_name[name] for name in names if name in by_name]


def _first(names: Sequence[str], available: Sequence[str]) -> str | None:
    return next(iter(_present(names, available)), None)


def _named(option: str, name: str | None, available: Sequence[str]) -> str | None:
    if name is None:
        return None
    found = name if name in available else _first((name.casefold(),), available)
    if found is None:
        listed = ", ".join(sorted(available)[:50]) or "the file has no fields"
        raise BadInput(option, f"the file has no field {name[:100]!r}", allowed=listed)
    return found


def is_identifying(values: Sequence[str | None]) -> bool:
    """Whether a field looks like an id: enough features have a value of their own in it."""
    return len({each for each in values if each is not None}) >= MIN_DISTINCT_FRACTION * len(values) > 0


def text_of(value: object) -> str | None:
    """Return a field's value as text, the same whether the format kept it as 7, 7.0 or "7"; None when it says nothing.

    Raises:
        BadInput: when the text is too long or cannot be stored.
    """
    if isinstance(value, bytes) and len(value) == 16:  # as Parquet keeps a UUID
        return str(uuid.UUID(bytes=value))
    if isinstance(value, bytes | list | tuple | dict | np.ndarray):
        raise BadInput("text", "is not one value", allowed="text or a number")
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return None
    if isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_) and float(value).is_integer():
        return str(int(float(value))) if isinstance(value, float | np.floating) else str(value)
    return clean_text(str(value))


def own_id(text: str) -> uuid.UUID:
    """Read an `external_farm_id`.

    Raises:
        BadInput: when it is not a UUID.
    """
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise BadInput(OWN_ID, f"{text[:60]!r} is not a UUID", allowed=f"a UUID, or --id-field {OWN_ID}") from error


def made_id(dataset: str, source_id: str) -> uuid.UUID:
    """Make the UUID of a feature from its dataset and its id there."""
    return uuid.uuid5(SWATH_NAMESPACE, f"{dataset}\n{source_id}")


def shape_id(wkb: bytes) -> str:
    """Return an id made of a canonical boundary alone, blind to the last centimetre, to order and to first vertices."""
    rounded = shapely.transform(shapely.from_wkb(wkb), lambda places: np.round(places, _SHAPE_DECIMALS) + 0.0)
    return "shape:" + hashlib.sha256(shapely.to_wkb(shapely.normalize(rounded), byte_order=1)).hexdigest()


def check_same_source(
    dataset: str, *, stored: Iterable[tuple[uuid.UUID, bytes]], given: Mapping[uuid.UUID, bytes]
) -> None:
    """Refuse a file that is another source than the one whose farms it would change.

    Args:
        dataset: name of the source as the file has it.
        stored: farms that are there already, with their boundaries.
        given: boundaries of the farms of the file whose identity was made of the dataset and an id in it.

    Raises:
        BadInput: when most of the farms that are in both lie where they did not lie before.
    """
    known = moved = 0
    for identity, boundary in stored:
        if identity in given:
            known += 1
            new = given[identity]
            moved += boundary != new and not shapely.intersects(shapely.from_wkb(boundary), shapely.from_wkb(new))
    if moved > MAX_MOVED_FRACTION * known:
        raise BadInput(
            "--dataset",
            f"{moved:,} of {known:,} farms that are known from {dataset!r} would move to where they never were, "
            "so this looks like another source with the same name; nothing was changed",
            allowed=f"a name of its own for this source, or --dataset {shlex.quote(dataset)} when it is the same",
        )
