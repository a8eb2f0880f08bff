"""An observation as a row of its table, and what makes two of them identical."""

from __future__ import annotations

from hashlib import blake2b

from models.domain import Observation, Statistics

_NUMBERS = ("mean", "std", "min", "max", "median", "p10", "p25", "p75", "p90")
_INNER = ("inner_mean", "inner_median", "inner_pixel_count", "pixel_count", "clear_area_ha", "clipped_count")
_STATISTICS = (*_NUMBERS, "histogram", *_INNER)

KEY = ("farm_id", "boundary_version", "acquired_at", "index", "mask_policy")
"""What makes an observation the same one."""

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
    """
    return _digest(_told(observation))


def row_of(observation: Observation) -> tuple[object, ...]:
    """An observation in the order of `STORED`."""
    told = _told(observation)
    identity = (getattr(observation, name) for name in KEY)
    return (*identity, *told, observation.inputs, observation.software_version, _digest(told))


def _told(each: Observation) -> tuple[object, ...]:
    """What is told, in the order of `_TOLD`."""
    return (
        *(each.pass_id, each.day, each.status.value, each.ndvi, each.rule and each.rule.value, each.clear_fraction),
        *_statistics_row(each.statistics),
        *(list(each.class_counts), list(each.item_ids)),
        *(each.processing_baseline, each.catalog, each.rescale_rule),
    )


def _statistics_row(statistics: Statistics | None) -> tuple[object, ...]:
    if statistics is None:
        return (None,) * len(_STATISTICS)
    values = (getattr(statistics, name) for name in _STATISTICS)
    return tuple(list(value) if isinstance(value, tuple) else value for value in values)


def _digest(told: tuple[object, ...]) -> str:
    return blake2b(repr([_rounded(value) for value in told]).encode(), digest_size=16).hexdigest()


def _rounded(value: object) -> object:
    if isinstance(value, (int, float)):
        return round(float(value), 9) + 0.0  # adding zero takes the sign from a negative one
    return [_rounded(each) for each in value] if isinstance(value, list) else value
