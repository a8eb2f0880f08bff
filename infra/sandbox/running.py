"""The whole sandbox as one context: archive, STAC API, file server and weather services, and the truth behind them."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.sandbox.archive import write_passes
from infra.sandbox.fields import farms_geojson
from infra.sandbox.files import serve_files
from infra.sandbox.items import COLLECTIONS
from infra.sandbox.passes import passes_between
from infra.sandbox.stac import serve_items
from infra.sandbox.weather_limits import Clock
from infra.sandbox.weather_services import WeatherServices, utc_now, weather_services
from infra.sandbox.world import Truth, World
from models.errors import BadInput

VERSION = 2
"""Raised when the same seed would draw another world, so that no archive of the old one is used again."""
MAX_DAYS = 800
DEFAULT_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A running sandbox."""

    stac_url: str
    """Root of the STAC API."""
    collections: tuple[str, ...]
    """Both collections, in the order in which a reader prefers them: offset left in the pixels, offset taken out."""
    files_url: str
    """Where the pixels lie."""
    farms_file: Path
    """The farms as GeoJSON, as a user would bring them."""
    folder: Path
    """Where this world is kept between runs."""
    items: tuple[dict[str, Any], ...]
    """All items that the API holds, as served."""
    truth: Truth
    weather: WeatherServices
    """Stand-ins for Open-Meteo and NASA POWER, and the weather's truth."""

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that lead Swath to this world, and nowhere else."""
        imagery = {"SWATH_STAC_URL": self.stac_url, "SWATH_STAC_COLLECTION": ",".join(self.collections)}
        return {**imagery, **self.weather.settings}


@contextlib.contextmanager
def sandbox(
    folder: Path, *, start: dt.date, end: dt.date, seed: int = DEFAULT_SEED, clock: Clock = utc_now
) -> Iterator[Sandbox]:
    """Run a simulated world with the passes from `start` to `end`, both included.

    What is drawn is kept below `folder` and used again by the same seed: a season of five months takes some 65 MB
    and 15 seconds the first time. Several processes may share a folder. All servers listen on loopback alone, and end
    with the context or with this process.

    Args:
        folder: Where the world is kept.
        start: First day of imagery.
        end: Last day of imagery, included.
        seed: Which world.
        clock: The present instant for the weather services, which know any day before it and forecast beyond.

    Raises:
        BadInput: the dates are in the wrong order or too far apart, or the seed is negative.
        ServerTrouble: a server did not start.
    """
    _check(start, end, seed)
    world = World(seed)
    truth = Truth(world, start, end)
    home = folder / f"world-{VERSION}-{seed}"
    archive = home / "archive"
    items = write_passes(world, truth.passes, archive)
    farms_file = home / "farms.geojson"
    _replace(farms_file, farms_geojson(world.farms))
    with contextlib.ExitStack() as stack:
        files_url = stack.enter_context(serve_files(archive))
        served = tuple(_with_addresses(item, files_url) for item in items)
        stac_url = stack.enter_context(_serve(served))
        weather = stack.enter_context(weather_services(seed, clock=clock))
        yield Sandbox(
            stac_url=stac_url,
            collections=COLLECTIONS,
            files_url=files_url,
            farms_file=farms_file,
            folder=home,
            items=served,
            truth=truth,
            weather=weather,
        )


def _check(start: dt.date, end: dt.date, seed: int) -> None:
    if seed < 0:
        raise BadInput("seed", f"{seed} is negative", allowed="0 and above")
    days = (end - start).days
    if days > MAX_DAYS:
        raise BadInput("start, end", f"{days} days are too many", allowed=f"up to {MAX_DAYS} days")
    if next(passes_between(start, end), None) is None:
        raise BadInput("start, end", f"no pass from {start} to {end}", allowed="five days or more, start first")


def _with_addresses(item: dict[str, Any], files_url: str) -> dict[str, Any]:
    assets = {key: {**asset, "href": f"{files_url}/{asset['href']}"} for key, asset in item["assets"].items()}
    return {**item, "assets": assets}


@contextlib.contextmanager
def _serve(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="swath-sandbox-") as scratch:
        items_file = Path(scratch) / "items.json"
        items_file.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
        with serve_items(items_file) as url:
            yield url


def _replace(file: Path, text: str) -> None:
    """Write the file in one step, so that no reader finds half of it."""
    if file.is_file() and file.read_text() == text:
        return
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(file)
