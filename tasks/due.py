"""What is due: the plan held against the ledger, and what earlier runs left behind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import Connection

from models.domain import Scene, SceneWork
from models.ledger import known_scenes, left_behind, pending_farms, plan_work, release_farms, scenes_of_passes
from models.observations import observed_inputs
from models.retries import awake, given_up_items, hold, resting
from models.selection import Plot, Selection, outlines, plots_among, selected_hulls, selected_plots
from tasks.bench import Bench
from tasks.imagery.boxes import Box, part_boxes, search_boxes
from tasks.imagery.catalogs import Catalog
from tasks.imagery.passes import choose_catalog
from tasks.indices.reach import Outlines, Plots
from tasks.observe import INDEX
from tasks.plan import Planner

log = structlog.get_logger(__name__)

Days = tuple[dt.date, dt.date]


def boxes_to_search(bench: Bench, selection: Selection) -> tuple[Box, ...]:
    """Boxes that together hold all selected farms, for searching catalogs."""
    with bench.stores.engine.connect() as connection:
        hulls, large = selected_hulls(connection, selection)
    return search_boxes([*hulls, *part_boxes(large)])


def find_due(
    bench: Bench, catalogs: Sequence[Catalog], selection: Selection, days: Days, *, now: dt.datetime | None = None
) -> list[SceneWork]:
    """Plan the passes of these days, and every older or newer one in which some of the farms wait for another try.

    The work is noted in the ledger, its farms as pending. Scenes that failed of late rest, and those that were given
    up are left alone, unless their imagery has changed or somebody asked for these very days.
    """
    now = now or dt.datetime.now(dt.UTC)
    order = [catalog.name for catalog in catalogs]
    method = {"index": INDEX, "mask_policy": bench.settings.mask_policy.name}
    with bench.stores.engine.begin() as connection:
        works = _in_days(bench, connection, order, selection, days)
        others = _left_behind(bench, connection, order, selection, days, now=now, but={work.pass_id for work in works})
        watched = others if bench.is_asked_for else works + others
        asleep = resting(connection, {work.pass_id for work in watched}, now=now, **method)
        due, later = awake(watched, asleep)
        due = works + due if bench.is_asked_for else due
        plan_work(connection, due, run_id=bench.run_id, **method)
        hold(connection, later, **method)
    log.info("planned", scenes=len(due), resting=len(later))
    return due


def _in_days(
    bench: Bench, connection: Connection, order: Sequence[str], selection: Selection, days: Days
) -> list[SceneWork]:
    works, waiting = due_in_scenes(bench, connection, order, selection, known_scenes(connection, *days))
    if waiting:
        known = plots_among(connection, selection, set().union(*waiting.values()))
        _release(bench, connection, known, works, waiting)
    return works


def due_in_scenes(
    bench: Bench, connection: Connection, order: Sequence[str], selection: Selection, scenes: Sequence[Scene]
) -> tuple[list[SceneWork], dict[str, set[int]]]:
    """The work that these scenes make, less what was observed, and who waits in their passes; writes nothing.

    Args:
        bench: of the run.
        connection: of the ledger.
        order: names of the catalogs, best first.
        selection: farms whose observations are wanted; read by area, some thousands at a time.
        scenes: of all catalogs.
    """
    given_up = given_up_items(connection, {scene.pass_id for scene in scenes})
    pieces = choose_catalog(scenes, order, given_up=given_up)
    policy = bench.settings.mask_policy.name
    passes = sorted({pass_id for pass_id, _ in pieces})
    waiting = pending_farms(connection, passes, index=INDEX, mask_policy=policy)

    def observed(pass_id: str, farm_ids: Sequence[int]) -> Mapping[tuple[int, int], str]:
        """What was observed from which inputs, but for farms that wait for another look. One pass at a time: a
        season over many farms would fill the memory."""
        found = observed_inputs(connection, [pass_id], index=INDEX, mask_policy=policy, farm_ids=farm_ids)
        done = found.get(pass_id, {})
        for key in _asked_again(bench, connection, pass_id, done) if pass_id in waiting else ():
            del done[key]
        return done

    planner = Planner(pieces, method=bench.method.name)
    if pieces:
        for plots in selected_plots(connection, selection):
            planner.add(Plots.of(plots), _outlines(connection, plots), None if bench.is_again else observed)
    return planner.works(), waiting


def _outlines(connection: Connection, plots: Sequence[Plot]) -> Outlines:
    """Gives the outlines of those farms of a list that the planner asks for, by their positions."""

    def read(places: Sequence[int]) -> dict[int, bytes]:
        asked = {plots[place].farm_id: place for place in places}
        versions = {plots[place].farm_id: plots[place].boundary_version for place in places}
        return {asked[farm_id]: wkb for farm_id, wkb in outlines(connection, versions).items()}

    return read


def _left_behind(
    bench: Bench,
    connection: Connection,
    order: Sequence[str],
    selection: Selection,
    days: Days,
    *,
    now: dt.datetime,
    but: set[str],
) -> list[SceneWork]:
    """Work outside of the days, and of the passes in `but`, in which farms wait since a run failed or was cut short."""
    policy = bench.settings.mask_policy.name
    waiting = left_behind(connection, *days, now=now, index=INDEX, mask_policy=policy)
    given_up = given_up_items(connection, waiting)
    works: list[SceneWork] = []
    for pass_id, scenes in scenes_of_passes(connection, set(waiting) - but).items():
        own = plots_among(connection, selection, waiting[pass_id])
        planner = Planner(choose_catalog(scenes, order, given_up=given_up), method=bench.method.name)
        planner.add(Plots.of(own), _outlines(connection, own))
        found = planner.works()
        ids = [plot.farm_id for plot in own]
        done = observed_inputs(connection, [pass_id], index=INDEX, mask_policy=policy, farm_ids=ids)
        _asked_again(bench, connection, pass_id, done.get(pass_id, {}))
        _release(bench, connection, own, found, {pass_id: waiting[pass_id]})
        works += found
    return works


def _asked_again(
    bench: Bench, connection: Connection, pass_id: str, done: Mapping[tuple[int, int], str]
) -> list[tuple[int, int]]:
    """Note which of the farms that were observed wait all the same: a run was to observe them again and did not.

    Who waits is read after what was observed. The other way round, a farm that another run answers in between would
    seem to be both, and be observed twice.
    """
    method = {"index": INDEX, "mask_policy": bench.settings.mask_policy.name}
    waiting = pending_farms(connection, [pass_id], **method).get(pass_id, set())
    again = [key for key in done if key[0] in waiting]
    bench.asked_again.update((pass_id, farm_id) for farm_id, _ in again)
    return again


def _release(
    bench: Bench,
    connection: Connection,
    plots: Sequence[Plot],
    works: Sequence[SceneWork],
    waiting: Mapping[str, set[int]],
) -> None:
    """Let go of farms that wait in a pass that does not touch them any more, such as after a new boundary."""
    known = {plot.farm_id for plot in plots}
    planned: dict[str, set[int]] = {}
    for work in works:
        planned.setdefault(work.pass_id, set()).update(work.farm_ids)
    gone = {pass_id: (ids & known) - planned.get(pass_id, set()) for pass_id, ids in waiting.items()}
    release_farms(
        connection,
        {pass_id: ids for pass_id, ids in gone.items() if ids},
        index=INDEX,
        mask_policy=bench.settings.mask_policy.name,
    )
