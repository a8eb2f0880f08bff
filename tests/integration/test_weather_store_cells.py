from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from models.farms import upsert_farms
from models.weather import Cell, Source
from models.weather_cells import CellOfFarm, assign_cells, cells_of_active_farms, farms_without_cell
from tests.support.facts import engine_for, store_farms
from tests.support.readings import cell
from tests.support.shapes import draft, field

OM, POWER = Source.OPEN_METEO, Source.NASA_POWER


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def farm_ids(engine: Engine) -> list[int]:
    return store_farms(engine, 4)


def assign(engine: Engine, where: dict[int, Cell], *, version: int = 1) -> int:
    with engine.begin() as connection:
        given = [CellOfFarm(farm_id=farm, boundary_version=version, cell=each) for farm, each in where.items()]
        return assign_cells(connection, given)


def cells(engine: Engine, source: Source = OM) -> dict[Cell, tuple[int, ...]]:
    with engine.connect() as connection:
        return cells_of_active_farms(connection, source)


def without(engine: Engine, prefix: str = "om-0.1:") -> list[int]:
    with engine.connect() as connection:
        return farms_without_cell(connection, OM, key_prefix=prefix)


def revisions(engine: Engine) -> dict[int, int]:
    with engine.connect() as connection:
        return {row.farm_id: row.revision for row in connection.execute(text("SELECT * FROM farm_cells"))}


def test_each_cell_is_listed_once_with_its_active_farms(engine: Engine, farm_ids: list[int]) -> None:
    one, two, three, four = farm_ids
    assert assign(engine, {one: cell(1), two: cell(1), three: cell(2), four: cell(0)}) == 4
    assert assign(engine, {one: cell(9, POWER)}) == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE farms SET is_active = false WHERE id = :id"), {"id": four})
    assert cells(engine) == {cell(1): (one, two), cell(2): (three,)}
    assert cells(engine, POWER) == {cell(9, POWER): (one,)}


def test_assigning_again_changes_nothing(engine: Engine, farm_ids: list[int]) -> None:
    assign(engine, dict.fromkeys(farm_ids, cell(1)))
    before = revisions(engine)
    assert assign(engine, dict.fromkeys(farm_ids, cell(1))) == 0
    assert revisions(engine) == before


def test_a_moved_farm_gets_another_cell_and_a_new_revision(engine: Engine, farm_ids: list[int]) -> None:
    assign(engine, dict.fromkeys(farm_ids, cell(1)))
    before = revisions(engine)
    assert assign(engine, {farm_ids[0]: cell(2), farm_ids[1]: cell(1)}, version=2) == 1
    after = revisions(engine)
    assert [farm for farm in farm_ids if after[farm] != before[farm]] == [farm_ids[0]]
    assert assign(engine, {farm_ids[0]: cell(1)}, version=1) == 0, "an older boundary never wins"
    assert cells(engine)[cell(2)] == (farm_ids[0],)


def test_farms_wait_for_a_cell_when_new_moved_or_of_another_grid(engine: Engine, farm_ids: list[int]) -> None:
    assert without(engine) == farm_ids
    assign(engine, dict.fromkeys(farm_ids[1:], cell(1)))
    assert without(engine) == farm_ids[:1]
    with engine.begin() as connection:
        upsert_farms(connection, [draft(2, field(lon=20))])
    assert without(engine) == farm_ids[:2]
    assert without(engine, "om-0.25:") == farm_ids


def test_unknown_farms_are_left_out_and_two_cells_refused(engine: Engine, farm_ids: list[int]) -> None:
    assert assign(engine, {10**9: cell(1)}) == 0
    twice = [CellOfFarm(farm_id=farm_ids[0], boundary_version=1, cell=cell(number)) for number in (1, 2)]
    with pytest.raises(ValueError, match="two cells"), engine.begin() as connection:
        assign_cells(connection, twice)
