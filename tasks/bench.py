"""What the steps of one run share: settings, connections, Dask, and how far each scene has come."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from infra.dask import Compute, dask_compute
from infra.settings import Settings
from infra.stores import Stores, open_stores
from models.domain import FarmFailure, Scene, SceneWork, SkippedItem, Status
from models.errors import BadInput
from tasks.imagery.boxes import Box
from tasks.imagery.catalogs import Catalog, catalogs_from
from tasks.imagery.reader import HttpLimits
from tasks.imagery.scenes import scene_from
from tasks.imagery.search import SearchOptions, search_items
from tasks.indices.footprints import FootprintCache
from tasks.look import Method

SOFTWARE_VERSION = version("swath")


@dataclass(slots=True)
class Progress:
    """How far one scene has come in this run; a further try asks only for what is not answered."""

    answered: dict[int, Status] = field(default_factory=dict)
    failures: dict[int, FarmFailure] = field(default_factory=dict)
    saved: int = 0
    warnings: tuple[str, ...] = ()
    is_elsewhere: bool = False
    outlook: str | None = None

    def fail(self, farm_ids: Iterable[int], *, problem: str) -> None:
        """Note farms of which nothing else is known as failed."""
        for farm_id in farm_ids:
            self.failures[farm_id] = FarmFailure(farm_id=farm_id, problem=problem, is_retryable=False)


class Bench:
    """What the steps of one run share: settings, connections, Dask, footprints made so far, progress by scene.

    Not a dataclass: Prefect walks through dataclasses among a task's arguments.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        compute: Compute,
        *,
        is_again: bool,
        is_for_some: bool,
        is_asked_for: bool = False,
    ) -> None:
        self.settings = settings
        self.stores = stores
        self.compute = compute
        self.is_again = is_again
        """Observe also what is answered already from the same scenes."""
        self.is_for_some = is_for_some
        """Asked for some farms only: named ones, or those in a box."""
        self.is_asked_for = is_asked_for
        """Somebody asked for these days: failed scenes of them are tried at once, also those that were given up."""
        self.run_id: uuid.UUID | None = None
        """Under which the run is known to be at work, if it is."""
        self.asked_again: set[tuple[str, int]] = set()
        """Passes and farms that an earlier run was to observe again and did not."""
        self.cache = FootprintCache()
        self._progress: dict[tuple[str, str], Progress] = {}

    def progress(self, work: SceneWork) -> Progress:
        """How far this scene has come."""
        return self._progress.setdefault((work.pass_id, work.tile_set), Progress())

    def forget(self, work: SceneWork) -> None:
        """Let go of the progress of a scene that is reported."""
        self._progress.pop((work.pass_id, work.tile_set), None)

    @property
    def method(self) -> Method:
        """How scenes are observed in this run."""
        return Method(
            policy=self.settings.mask_policy,
            software_version=SOFTWARE_VERSION,
            compute=self.compute,
            inner_margin_m=self.settings.inner_margin_m,
            min_inner_pixels=self.settings.min_inner_pixels,
            http=http_limits(self.settings),
        )


@contextlib.contextmanager
def open_bench(
    settings: Settings, *, is_again: bool = False, is_for_some: bool = False, is_asked_for: bool = False
) -> Iterator[Bench]:
    """Open the stores and Dask for one run."""
    with open_stores(settings) as stores, dask_compute(settings) as compute:
        yield Bench(settings, stores, compute, is_again=is_again, is_for_some=is_for_some, is_asked_for=is_asked_for)


def catalogs_of(settings: Settings) -> tuple[Catalog, ...]:
    """The catalogs to ask, in order of preference.

    Raises:
        BadInput: naming the variable that cannot be used.
    """
    try:
        return catalogs_from(
            settings.catalogs,
            stac_url=settings.stac_url,
            stac_collection=settings.stac_collection,
            stac_profile=settings.stac_profile,
        )
    except BadInput as error:
        raise BadInput(f"SWATH_{error.field.upper()}", error.problem, allowed=error.allowed) from None


def search_scenes(
    settings: Settings, catalog: Catalog, boxes: Sequence[Box], days: tuple[dt.date, dt.date]
) -> tuple[list[Scene], list[SkippedItem]]:
    """Ask one catalog for the scenes of these days over the boxes: those that can be used, and those that cannot.

    Raises:
        UpstreamError: it does not answer as it should.
    """
    options = SearchOptions(
        connect_timeout_s=settings.http_connect_timeout_s,
        read_timeout_s=settings.http_timeout_s,
        retries=settings.http_retries,
        retry_delay_s=settings.http_retry_delay_s,
    )
    found = [scene_from(item, catalog) for item in search_items(catalog, boxes, *days, options=options)]
    scenes = [each for each in found if isinstance(each, Scene) and days[0] <= each.day <= days[1]]
    return scenes, [each for each in found if isinstance(each, SkippedItem)]


def http_limits(settings: Settings) -> HttpLimits:
    """Patience with file servers, from the settings."""
    return HttpLimits(
        timeout_s=settings.http_timeout_s,
        connect_timeout_s=settings.http_connect_timeout_s,
        retries=settings.http_retries,
        retry_delay_s=settings.http_retry_delay_s,
    )
