"""An observation as a row of its table, and what makes two of them identical."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from hashlib import blake2b

from models.domain import Observation

_NUMBERS = ("mean", "std", "min", "max", "median", "p10", "p25", "p75", "p90")
_INNER = ("inner_mean", "inner_median", "inner_pixel_count", "pixel_count", "clear_area_ha", "clipped_count")
_STATISTICS = (*_NUMBERS, "histogram", *_INNER)

KEY = ("farm_id", "boundary_version", "acquired_at", "index", "mask_policy")
"""What makes an observation the same one."""

_SINGLE_ROUNDING = 2.0**-24
"""Most by which a number changes, as a share of it, when it is stored in single precision."""

_TOLD = (
    *("pass_id", "day", "status", "ndvi", "rule", "clear_fraction", *_STATISTICS, "class_counts", "item_ids"),
    *("processing_baseline", "catalog", "rescale_rule"),
)

STORED = (*KEY, *_TOLD, "inputs", "software_version", "content")
"""Columns that are written; the store adds revision and time."""


def content_of(observation: Observation) -> str:
    """Digest of what a reader is told of an observation: two that have the same one are identical.

    Numbers count to nine decimals, because the last bits of a sum depend on its order. Who it is about, the inputs
    and the version of the software do not count.

    Raises:
        ValueError, OverflowError: a number is not finite.
    """
    return _digest(_told(observation))


def differences(stored: Mapping[str, object], observation: Observation) -> dict[str, tuple[object, object]]:
    """Everything told of an observation that is not the same to the last bit as in a stored row: (stored, now) by name.

    Histograms are compared in single precision, in which they are stored.
    """
    now = dict(zip(_TOLD, _told(observation), strict=True))
    return {name: (stored[name], value) for name, value in now.items() if not _is_same(name, stored[name], value)}


def _is_same(name: str, stored: object, now: object) -> bool:
    if not (isinstance(stored, list | tuple) and isinstance(now, list | tuple)):
        return stored == now
    if name != "histogram":
        return list(stored) == list(now)
    # Not by rounding `now` as well: a number half way between two (coverage fractions often are) goes either way.
    return len(stored) == len(now) and all(
        abs(one - other) <= _SINGLE_ROUNDING * abs(other) for one, other in zip(array("f", stored), now, strict=True)
    )


def row_of(observation: Observation) -> tuple[object, ...]:
    """An observation in the order of `STORED`, as COPY takes it.

    Raises:
        ValueError, OverflowError: a number is not finite.
    """
    told = _told(observation)
    identity = (getattr(observation, name) for name in KEY)
    plain = (_array(value) if isinstance(value, tuple) else value for value in told)
    return (*identity, *plain, observation.inputs, observation.software_version, _digest(told))


def _told(each: Observation) -> tuple[object, ...]:
    """What is told, in the order of `_TOLD`; tuples are of numbers, lists of text."""
    statistics = each.statistics
    return (
        *(each.pass_id, each.day, each.status.value, each.ndvi, each.rule and each.rule.value, each.clear_fraction),
        *(None if statistics is None else getattr(statistics, name) for name in _STATISTICS),
        *(each.class_counts, list(each.item_ids)),
        *(each.processing_baseline, each.catalog, each.rescale_rule),
    )


def _digest(told: tuple[object, ...]) -> str:
    return blake2b(repr([_counted(value) for value in told]).encode(), digest_size=16).hexdigest()


def _counted(value: object) -> object:
    """Numbers in billionths, the rest as it is."""
    if isinstance(value, int | float):
        return round(value * 1e9)
    return [round(each * 1e9) for each in value] if isinstance(value, tuple) else value


def _array(numbers: tuple[object, ...]) -> str:
    """Numbers as Postgres writes an array: five times quicker than through the driver, which looks at each."""
    return f"{{{','.join(map(str, numbers))}}}"
