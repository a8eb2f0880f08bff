"""Farms for a planner: which ones, by area, some at a time, and outlines apart."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import shapely
from redis import Redis
from sqlalchemy import Connection, Engine, event, text

from flows.wanted import wanted_farms
from infra.settings import Settings
from infra.stores import Stores
from models.domain import FarmDraft
from models.errors import BadInput
from models.farms import upsert_farms
from models.ledger import record_scenes
from models.selection import (
    Selection,
    count_selected,
    outlines,
    plots_among,
    selected_hulls,
    selected_ids,
    selected_plots,
    unknown_farms,
)
from tasks.bench import Bench
from tasks.due import boxes_to_search, find_due
from tasks.imagery.catalogs import KNOWN_CATALOGS
from tests.support.facts import engine_for
from tests.support.scenes import made_scene, tile_grid
from tests.support.shapes import draft, field

KENYA, SLOVENIA, FIJI = (36.8, -1.3), (15.5, 45.6), (179.9999, -16.7)
EVERYBODY = Selection()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Six farms: 1 to 4 from north to south in Slovenia, 5 in Kenya, 6 across the antimeridian; and 7, not active."""
    drafts = [draft(number, field(lon=SLOVENIA[0], lat=SLOVENIA[1] - number / 100)) for number in range(1, 5)]
    drafts += [draft(5, field(lon=KENYA[0], lat=KENYA[1])), draft(6, field(lon=FIJI[0], lat=FIJI[1], width_m=300))]
    drafts += [draft(7, field(lon=KENYA[0], lat=KENYA[1]))]
    with engine.begin() as connection:
        upsert_farms(connection, drafts)
        connection.execute(text("UPDATE farms SET is_active = false WHERE name = 'Farm 7'"))
    with engine.connect() as connection:
        yield connection


def names(connection: Connection, ids: list[int]) -> list[int]:
    """The numbers that the drafts of these farms had."""
    rows = connection.execute(text("SELECT id, external_farm_id FROM farms")).all()
    numbers = {row.id: row.external_farm_id.int for row in rows}
    return [numbers[farm_id] for farm_id in ids]


def test_farms_come_zone_by_zone_from_south_to_north_some_at_a_time(connection: Connection) -> None:
    parts = [[plot.farm_id for plot in part] for part in selected_plots(connection, EVERYBODY, at_once=2)]
    assert [names(connection, part) for part in parts] == [[4, 3], [2, 1], [5, 6]]
    assert count_selected(connection, EVERYBODY) == len(selected_ids(connection, EVERYBODY)) == 6


def test_a_selection_is_by_name_by_box_or_by_both(connection: Connection) -> None:
    named = frozenset(uuid.UUID(int=number) for number in (2, 5, 7))
    balkans, pacific = (10.0, 40.0, 20.0, 50.0), (170.0, -20.0, -170.0, 0.0)
    expected = {
        Selection(external_ids=named): {2, 5},
        Selection(bbox=balkans): {1, 2, 3, 4},
        Selection(bbox=pacific): {6},
        Selection(external_ids=named, bbox=balkans): {2},
    }
    for selection, numbers in expected.items():
        assert set(names(connection, selected_ids(connection, selection))) == numbers
        assert count_selected(connection, selection) == len(numbers)
        assert not selection.is_all
    everybody = selected_ids(connection, EVERYBODY)
    among = plots_among(connection, Selection(bbox=balkans), [*everybody, 10_000])
    assert set(names(connection, [plot.farm_id for plot in among])) == {1, 2, 3, 4}
    assert unknown_farms(connection, named) == {uuid.UUID(int=7)}


def test_outlines_are_those_of_the_versions_asked_for(connection: Connection) -> None:
    [part] = selected_plots(connection, EVERYBODY)
    found = outlines(connection, {plot.farm_id: plot.boundary_version for plot in part[:3]} | {part[3].farm_id: 9})
    assert set(found) == {plot.farm_id for plot in part[:3]}
    for plot in part[:3]:
        assert shapely.from_wkb(found[plot.farm_id]).bounds == tuple(plot[2:])
    assert outlines(connection, {}) == {}


def test_near_farms_share_a_hull_and_one_across_the_antimeridian_comes_with_its_outline(connection: Connection) -> None:
    hulls, large = selected_hulls(connection, EVERYBODY)
    assert len(hulls) == 2
    assert len(large) == 1
    assert shapely.from_wkb(large[0]).geom_type == "MultiPolygon"
    for part in selected_plots(connection, EVERYBODY):
        for _, _, west, south, east, north in part:
            assert west > east or any(w <= west and s <= south and e >= east and n >= north for w, s, e, n in hulls)


def test_who_is_wanted_is_checked_and_counted(connection: Connection) -> None:
    assert wanted_farms(connection, None, None) == (EVERYBODY, 6)
    one = [uuid.UUID(int=5)]
    assert wanted_farms(connection, one, None) == (Selection(external_ids=frozenset(one)), 1)
    for field_name, ids, bbox in (
        ("farm", [uuid.UUID(int=7)], None),
        ("bbox", None, [0.0, 0.0, 1.0]),
        ("bbox", None, [0.0, 0.0, 1.0, 1.0]),
        ("bbox", None, [0.0, 9.0, 1.0, -9.0]),
    ):
        with pytest.raises(BadInput) as told:
            wanted_farms(connection, ids, bbox)
        assert told.value.field == field_name


def planned(engine: Engine, redis_url: str) -> tuple[list[int], list[str]]:
    """Farms of the one scene that is due, and the statements that it took to find out."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    stores = Stores(engine, Redis.from_url(redis_url), "", "")
    bench = Bench(Settings(), stores, lambda tasks: tasks, is_again=False, is_for_some=False)
    try:
        day = made_scene("33TWL", tile_grid()).day
        assert len(boxes_to_search(bench, EVERYBODY)) == 1
        [work] = find_due(bench, [KNOWN_CATALOGS["earth-search-c1"]], EVERYBODY, (day, day))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return list(work.farm_ids), statements


def plot(number: int) -> FarmDraft:
    """A field well inside of the tile."""
    west, south = 15.1 + number / 2_000, 45.5
    return draft(number, shapely.box(west, south, west + 0.0004, south + 0.0004))


def test_planning_asks_as_often_for_many_farms_as_for_few_and_reads_no_outline_of_those_well_inside(
    engine: Engine, redis_url: str
) -> None:
    asked = []
    for count in (3, 300):
        with engine.begin() as connection:
            upsert_farms(connection, [plot(number) for number in range(1, count + 1)])
            record_scenes(connection, [made_scene("33TWL", tile_grid())], [])
            connection.execute(text("DELETE FROM work"))  # nobody waits since an earlier plan
        due, statements = planned(engine, redis_url)
        assert len(due) == count
        assert not any("unnest" in each and "farm_boundaries" in each for each in statements)
        asked.append(len([each for each in statements if each.lstrip().startswith(("SELECT", "WITH"))]))
    assert asked[0] == asked[1] <= 15
