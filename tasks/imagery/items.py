"""What the properties of a STAC item say, in the words of each catalog: when, where, by which satellite."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Any

Item = Mapping[str, Any]

_PLATFORM = re.compile(r"(?i)^s(?:entinel)?[-_ ]?2([a-d])(?![a-z])")
_CONSTELLATION = re.compile(r"(?i)^s(?:entinel)?[-_ ]?2$")
_TILE = re.compile(r"^(0?[1-9]|[1-5]\d|60)([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])$")
_TILE_IN_NAME = re.compile(r"(?:^|_)T?(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=_|\.|$)")
_BASELINE = re.compile(r"^(\d{1,2})\.(\d{2})$")
_BASELINE_IN_NAME = re.compile(r"_N(\d{2})\.?(\d{2})(?=_|\.SAFE|$)")
_TAKE_IN_DATATAKE = re.compile(r"^GS2[A-D]_(\d{8}T\d{6})_\d+")
_TAKE_IN_PRODUCT = re.compile(r"^S2[A-D]_MSIL2A_(\d{8}T\d{6})_")
_STRIP_IN_DATASTRIP = re.compile(r"_(S\d{8}T\d{6})(?=_|$)")
_STRIP_IN_C1_ID = re.compile(r"^S2[A-D]_T\w{5}_(\d{8}T\d{6})_L2A$")
_FIRST_LAUNCH = dt.datetime(2015, 6, 23, tzinfo=dt.UTC)
_NOT_YET = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
# Not a version but a mark of test and on-demand processing; it says nothing about the offset.
_NO_BASELINE = (99, 99)


def is_plain(text: str, *, longest: int) -> bool:
    """Whether a text is short and printable: without control characters and halves of letters, which no store takes."""
    return len(text) <= longest and text.isprintable()


def texts(item: Item, *names: str) -> Iterator[str]:
    """The values of these properties that are texts, in this order."""
    for name in names:
        value = item["properties"].get(name)
        if isinstance(value, str) and value:
            yield value


def instant(text: object) -> dt.datetime | None:
    """Read an RFC 3339 time as an aware time in UTC; None when it is not one. Without a zone it means UTC."""
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def acquired_at(item: Item) -> dt.datetime | None:
    """When the sensor looked, UTC: `datetime`, or the start of the interval where that is null.

    Earth Search tells the time of the tile; Planetary Computer and CDSE tell the start of the datatake, up to some
    minutes earlier.
    """
    moments = (instant(item["properties"].get(name)) for name in ("datetime", "start_datetime"))
    return next((moment for moment in moments if moment is not None and _FIRST_LAUNCH <= moment < _NOT_YET), None)


def platform(item: Item) -> str | None:
    """`sentinel-2a` to `sentinel-2d`, plain `sentinel-2` where the letter is not told, None for other missions."""
    named = next(texts(item, "platform"), None)
    if named is not None and not (_PLATFORM.match(named) or _CONSTELLATION.match(named)):
        return None
    for name in (named or "", str(item["id"]), *texts(item, "s2:product_uri", "sentinel2:product_title")):
        if match := _PLATFORM.match(name):
            return f"sentinel-2{match[1].lower()}"
    constellation = next(texts(item, "constellation"), named or str(item["id"])[:2])
    return "sentinel-2" if _CONSTELLATION.match(constellation) else None


def is_surface_reflectance(item: Item) -> bool:
    """False when the item says that it is another product than L2A; True when it says so or does not say."""
    kinds = [*texts(item, "s2:product_type", "sentinel2:product_type", "product:type"), str(item.get("collection", ""))]
    return not any(re.search(r"(?i)MSI1|l1[abc]\b", kind) for kind in kinds)


def tile(item: Item) -> str | None:
    """MGRS tile without prefix and with two digits of zone, e.g. `01WCR`."""
    properties = item["properties"]
    parts = [properties.get(f"mgrs:{part}", "") for part in ("utm_zone", "latitude_band", "grid_square")]
    told = [text.removeprefix("MGRS-") for text in texts(item, "grid:code", "s2:mgrs_tile")]
    told += ["".join(str(part) for part in parts), *texts(item, "tileId")]
    for code in told:
        if match := _TILE.match(code.strip().upper().removeprefix("T")):
            return f"{int(match[1]):02d}{match[2]}"
    match = _TILE_IN_NAME.search(str(item["id"]))
    return match[1] if match else None


def processing_baseline(item: Item) -> str | None:
    """The processing baseline as `05.09`, from the property or, failing that, from the names of the product."""
    named = (item["properties"].get(f"{prefix}:processing_baseline") for prefix in ("s2", "eopf", "sentinel2"))
    for value in (*named, item["properties"].get("processing:version")):
        text = f"{value:05.2f}" if isinstance(value, float) else str(value)
        if match := _BASELINE.match(text.strip()):
            return f"{int(match[1]):02d}.{match[2]}"
    # The datatake keeps the baseline of an earlier level at times, so it is not asked.
    names = texts(item, "s2:product_uri", "sentinel2:product_title", "s2:datastrip_id", "eopf:datastrip_id")
    for name in (*names, str(item["id"])):
        if match := _BASELINE_IN_NAME.search(name):
            return f"{match[1]}.{match[2]}"
    return None


def baseline_number(baseline: str | None) -> tuple[int, int] | None:
    """The baseline as numbers that compare, None when it is unknown."""
    match = _BASELINE.match(baseline or "")
    number = (int(match[1]), int(match[2])) if match else None
    return None if number == _NO_BASELINE else number


def pass_id(item: Item, *, satellite: str, day: dt.date) -> str:
    """The acquisition key that every catalog, tile and processing of one pass shares.

    For instance `sentinel-2a/20230815T095031`. It is the satellite and the start of the datatake, which the datatake
    id and the product name tell alike. Where neither is told, the solar day and, if known, the relative orbit stand in.
    """
    for name in texts(item, "s2:datatake_id", "eopf:datatake_id"):
        if match := _TAKE_IN_DATATAKE.match(name):
            return f"{satellite}/{match[1]}"
    for name in (*texts(item, "s2:product_uri", "sentinel2:product_title"), str(item["id"])):
        if match := _TAKE_IN_PRODUCT.match(name):
            return f"{satellite}/{match[1]}"
    orbits = (item["properties"].get(name) for name in ("sat:relative_orbit", "sentinel2:relative_orbit_number"))
    orbit = next((value for value in orbits if isinstance(value, int)), None)
    return f"{satellite}/{day}" + (f"/R{orbit:03d}" if orbit is not None else "")


def datastrip(item: Item, *, acquired: dt.datetime) -> str:
    """When the datastrip began, e.g. `S20230815T095630`; the time of the tile where no datastrip is told."""
    for name in texts(item, "s2:datastrip_id", "eopf:datastrip_id"):
        if match := _STRIP_IN_DATASTRIP.search(name):
            return match[1]
    match = _STRIP_IN_C1_ID.match(str(item["id"]))
    return f"S{match[1]}" if match else f"S{acquired:%Y%m%dT%H%M%S}"


def updated(item: Item) -> str | None:
    """When the catalog last changed the item, as it says; None where that is not a time."""
    told = next(texts(item, "updated"), None)
    return told if told is not None and is_plain(told, longest=64) and instant(told) is not None else None
