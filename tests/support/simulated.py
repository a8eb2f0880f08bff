"""The simulated archive behind a file server that counts and fails as it is told, and what a run made of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from infra.sandbox.archive import write_passes
from infra.sandbox.fields import farms_geojson
from infra.sandbox.items import COLLECTIONS
from infra.sandbox.world import Truth, World
from models.domain import MaskPolicy
from models.farms import upsert_farms
from models.observations import export_observations
from tasks.farms.boundaries import AreaLimits
from tasks.farms.files import read_farms
from tests.support.archives import with_asset_addresses
from tests.support.facts import engine_for
from tests.support.file_server import FileServer, file_server
from tests.support.stac_server import stac_server

SEED = 7
C1, L2A = (f"127.0.0.1/{collection}" for collection in COLLECTIONS)
"""Names of the two collections as catalogs."""

Row = dict[str, Any]
Rows = dict[tuple[uuid.UUID, dt.date], Row]


@dataclass(frozen=True)
class Season:
    """Passes that were drawn, and the truth behind them."""

    folder: Path
    truth: Truth
    items: list[dict[str, Any]]
    """As STAC items, addresses of their files relative to the folder."""
    farms_file: Path

    def farm_id(self, name: str) -> uuid.UUID:
        """The farm of this name."""
        [found] = [farm.external_farm_id for farm in self.truth.farms if farm.name == name]
        return found


@dataclass(frozen=True)
class Served:
    """A running archive."""

    files: FileServer
    stac_url: str

    @property
    def environment(self) -> dict[str, str]:
        """Settings of somebody who reads this archive, and is not patient."""
        return {
            "SWATH_STAC_URL": self.stac_url,
            "SWATH_STAC_COLLECTION": ",".join(COLLECTIONS),
            "SWATH_HTTP_RETRIES": "1",
            "SWATH_HTTP_RETRY_DELAY_S": "0.05",
            "SWATH_SCENE_RETRY_DELAY_S": "0.1",
        }


def draw_season(folder: Path, start: dt.date, end: dt.date) -> Season:
    """Draw all passes from one day to another into a folder."""
    truth = Truth(World(SEED), start, end)
    items = write_passes(truth.world, truth.passes, folder / "archive")
    farms_file = folder / "farms.geojson"
    farms_file.write_text(farms_geojson(truth.world.farms))
    return Season(folder / "archive", truth, items, farms_file)


@contextlib.contextmanager
def served(folder: Path, items: Sequence[dict[str, Any]]) -> Iterator[Served]:
    """Serve the files of a folder and the items that describe them."""
    with file_server(folder) as files, stac_server([with_asset_addresses(item, files.url) for item in items]) as url:
        yield Served(files, url)


@contextlib.contextmanager
def database(url: str) -> Iterator[sa.Engine]:
    """Connections to a database."""
    engine = engine_for(url)
    try:
        yield engine
    finally:
        engine.dispose()


def import_farms(url: str, file: Path) -> int:
    """Store the farms of a file and return how many there are."""
    found = read_farms(file, limits=AreaLimits(min_ha=0.001, max_ha=100_000))
    with database(url) as engine, engine.begin() as connection:
        return upsert_farms(connection, found.drafts).created


def stored_rows(url: str) -> Rows:
    """All observations as an export has them, by farm and day; no farm has two on one day in these archives."""
    rows: Rows = {}
    with database(url) as engine, engine.connect() as connection:
        for row in export_observations(connection, start=None, end=None, mask_policy=MaskPolicy().name):
            assert (row["external_farm_id"], row["day"]) not in rows, "observed twice"
            rows[row["external_farm_id"], row["day"]] = row
    return rows


def without_revisions(rows: Rows) -> Rows:
    """The same without what depends on the order in which they were written."""
    return {key: {name: value for name, value in row.items() if name != "revision"} for key, row in rows.items()}


def query(url: str, words: str) -> list[tuple[Any, ...]]:
    """The rows that a query gives."""
    with database(url) as engine, engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(words))]


def execute(url: str, words: str) -> None:
    """Run statements, separated by nothing but their own semicolons."""
    with database(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql(words)
