from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import shapely
from shapely.geometry import MultiPolygon, box
from sqlalchemy import Connection, Engine, create_engine, make_url, text

from models.domain import Farm, FarmDraft
from models.errors import BadInput
from models.farms import (
    ImportOutcome,
    count_farms,
    farms_by_id,
    list_farms,
    stored_farms,
    upsert_farms,
)
from models.revision import lock_revisions
from tasks.farms.boundaries import boundary_from
from tasks.farms.export import write_farms
from tasks.farms.files import read_farms
from tests.support.shapes import ANY_AREA, draft, field


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


def store(engine: Engine, *drafts: FarmDraft, reactivate: bool = False) -> ImportOutcome:
    with engine.begin() as connection:
        return upsert_farms(connection, drafts, reactivate=reactivate)


def rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def everything(engine: Engine) -> list[list[tuple[object, ...]]]:
    """Every column of every row, times and revisions included."""
    return [rows(engine, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("farms", "farm_boundaries")]


def numbers(outcome: ImportOutcome) -> tuple[int, int, int, int]:
    return (outcome.created, outcome.updated, outcome.unchanged, outcome.new_boundaries)


def deactivate(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        query = text("UPDATE farms SET is_active = false WHERE external_farm_id = :id")
        connection.execute(query, {"id": uuid.UUID(int=number)})


class TestUpsert:
    def test_new_farms_are_created_as_they_were_given(self, engine: Engine) -> None:
        given = [draft(1, user="u1"), draft(2, name="Élan")]
        assert numbers(store(engine, *given)) == (2, 0, 0, 0)
        with engine.connect() as connection:
            found = list(stored_farms(connection))
        for farm, each in zip(found, given, strict=True):
            assert farm == Farm(
                id=farm.id,
                external_farm_id=each.external_farm_id,
                name=each.name,
                external_user_id=each.external_user_id,
                boundary_version=1,
                boundary=each.boundary,
                bbox=each.bbox,
                area_ha=each.area_ha,
            )

    def test_the_same_again_changes_nothing_at_all(self, engine: Engine) -> None:
        given = [draft(number, user="u") for number in range(1, 6)]
        store(engine, *given)
        before = everything(engine)
        assert numbers(store(engine, *given[::-1])) == (0, 0, 5, 0)
        assert everything(engine) == before

    def test_a_boundary_that_differs_in_its_last_bits_changes_nothing(self, engine: Engine) -> None:
        drawn = field(turned_deg=20)
        store(engine, draft(1, drawn))
        before = everything(engine)
        moved = shapely.transform(drawn, lambda at: at + 4e-10)
        assert draft(1, moved).boundary != draft(1, drawn).boundary
        assert numbers(store(engine, draft(1, moved))) == (0, 0, 1, 0)
        assert everything(engine) == before

    def test_another_boundary_is_a_new_version_and_the_old_one_is_kept(self, engine: Engine) -> None:
        old, new = draft(1, field(width_m=100)), draft(1, field(width_m=200))
        store(engine, old, draft(2))
        [(first,)] = rows(engine, "SELECT max(revision) FROM farms")
        assert numbers(store(engine, new, draft(2))) == (0, 1, 1, 1)
        assert rows(engine, "SELECT version, wkb FROM farm_boundaries WHERE farm_id = 1 ORDER BY version") == [
            (1, old.boundary),
            (2, new.boundary),
        ]
        with engine.connect() as connection:
            [farm] = farms_by_id(connection, [1])
        assert (farm.boundary_version, farm.boundary, farm.bbox, farm.area_ha) == (
            2,
            new.boundary,
            new.bbox,
            new.area_ha,
        )
        assert rows(engine, f"SELECT id FROM farms WHERE revision > {first}") == [(1,)]

    def test_another_name_or_owner_updates_the_farm_and_not_its_boundary(self, engine: Engine) -> None:
        store(engine, draft(1, name="Old", user="u1"))
        assert numbers(store(engine, draft(1, name="New", user="u2"))) == (0, 1, 0, 0)
        assert rows(engine, "SELECT name, external_user_id, boundary_version FROM farms") == [("New", "u2", 1)]
        assert len(rows(engine, "SELECT 1 FROM farm_boundaries")) == 1

    def test_a_file_that_does_not_say_the_owner_does_not_erase_it(self, engine: Engine) -> None:
        store(engine, draft(1, user="u1"))
        assert numbers(store(engine, draft(1))) == (0, 0, 1, 0)
        assert rows(engine, "SELECT external_user_id FROM farms") == [("u1",)]

    def test_a_farm_that_was_deactivated_stays_so_until_asked_for(self, engine: Engine) -> None:
        store(engine, draft(1), draft(2))
        deactivate(engine, 1)
        outcome = store(engine, draft(1), draft(2))
        assert (outcome.unchanged, outcome.inactive, outcome.reactivated) == (2, 1, 0)
        outcome = store(engine, draft(1), draft(2), reactivate=True)
        assert (outcome.updated, outcome.inactive, outcome.reactivated) == (1, 0, 1)

    def test_all_land_or_none(self, engine: Engine) -> None:
        store(engine, draft(1, name="Old"))
        before = everything(engine)
        bad = replace(draft(3), area_ha=0.0)  # the table refuses it
        with pytest.raises(Exception, match="has_area"):
            store(engine, draft(1, name="New"), draft(2), bad)
        assert everything(engine) == before

    def test_a_farm_given_twice_is_refused(self, engine: Engine) -> None:
        with pytest.raises(BadInput, match="given twice"):
            store(engine, draft(1), draft(1))

    def test_nothing_given_is_nothing_done(self, engine: Engine) -> None:
        assert numbers(store(engine)) == (0, 0, 0, 0)

    def test_two_lists_in_one_transaction_both_land(self, engine: Engine) -> None:
        with engine.begin() as connection:
            upsert_farms(connection, [draft(1)])
            upsert_farms(connection, [draft(2)])
        assert len(rows(engine, "SELECT 1 FROM farms")) == 2

    def test_text_is_stored_as_it_is(self, engine: Engine) -> None:
        names = ["tab\there", r"back\slash \N", "quote ' \"", "Œuvre 農場"]
        store(engine, *(draft(number, name=name) for number, name in enumerate(names, 1)))
        assert [name for (name,) in rows(engine, "SELECT name FROM farms ORDER BY id")] == names

    def test_revisions_become_visible_in_order(self, engine: Engine) -> None:
        """A writer that waits for the lock draws its numbers after those of the one that held it."""
        done = threading.Event()

        def other() -> None:
            store(engine, draft(2))
            done.set()

        with engine.begin() as connection:
            lock_revisions(connection)
            writer = threading.Thread(target=other)
            writer.start()
            assert not done.wait(0.5)
            upsert_farms(connection, [draft(1)])
        writer.join(10)
        assert rows(engine, "SELECT external_farm_id FROM farms ORDER BY revision") == [
            (uuid.UUID(int=1),),
            (uuid.UUID(int=2),),
        ]

    def test_two_imports_of_the_same_farms_at_once_make_each_once(self, engine: Engine) -> None:
        given = [draft(number) for number in range(1, 40)]
        outcomes: list[ImportOutcome] = []
        writers = [threading.Thread(target=lambda: outcomes.append(store(engine, *given))) for _ in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        assert sorted(outcome.created for outcome in outcomes) == [0, 0, 39]
        assert len(rows(engine, "SELECT 1 FROM farm_boundaries")) == 39


class TestQueries:
    @pytest.fixture
    def stored(self, engine: Engine) -> Iterator[Connection]:
        across = MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.9, -16.9)])
        places = [field(lon=10, lat=50), field(lon=15, lat=46), field(lon=15.5, lat=46), across]
        boundaries = [boundary_from(place, limits=ANY_AREA) for place in places]
        store(
            engine,
            *(
                replace(draft(number), boundary=each.wkb, bbox=each.bbox, area_ha=each.area_ha)
                for number, each in enumerate(boundaries, 1)
            ),
        )
        deactivate(engine, 3)
        with engine.connect() as connection:
            yield connection

    def test_farms_are_found_by_id_in_order_active_or_not(self, stored: Connection) -> None:
        everyone = {farm.external_farm_id.int: farm.id for farm in list_farms(stored, include_inactive=True)}
        found = farms_by_id(stored, [everyone[3], everyone[1], everyone[1], 999_999])
        assert [(farm.external_farm_id.int, farm.is_active) for farm in found] == [(1, True), (3, False)]
        assert farms_by_id(stored, []) == []

    def test_active_farms_are_those_not_deactivated(self, stored: Connection) -> None:
        assert {farm.external_farm_id.int for farm in stored_farms(stored)} == {1, 2, 4}
        asked = [uuid.UUID(int=number) for number in (2, 3, 77)]
        assert [farm.external_farm_id.int for farm in stored_farms(stored, external_ids=asked)] == [2]
        assert list(stored_farms(stored, external_ids=[])) == []

    def test_streaming_does_not_keep_other_queries_from_the_connection(self, stored: Connection) -> None:
        assert all(farms_by_id(stored, [farm.id]) == [farm] for farm in stored_farms(stored))

    def test_counts(self, stored: Connection) -> None:
        assert (count_farms(stored), count_farms(stored, include_inactive=True)) == (3, 4)

    @pytest.mark.parametrize(
        ("bbox", "expected"),
        [
            ((9, 49, 11, 51), {1}),
            ((9, 45, 16, 51), {1, 2}),
            ((-180, -90, 180, 90), {1, 2, 4}),
            ((179.95, -17, 179.99, -16), {4}),
            ((-179.95, -17, -179.94, -16), {4}),
            ((179, -17, -179, -16), {4}),
            ((170, -17, 14.9, 90), {1, 4}),
            ((-170, -18, 170, -16), set()),
            ((16, 45, 9, 47), set()),
        ],
    )
    def test_a_box_finds_the_farms_that_touch_it(
        self, stored: Connection, bbox: tuple[float, float, float, float], expected: set[int]
    ) -> None:
        assert {farm.external_farm_id.int for farm in list_farms(stored, bbox=bbox)} == expected

    def test_pages_follow_each_other_to_the_end(self, stored: Connection) -> None:
        first = list_farms(stored, limit=2)
        second = list_farms(stored, limit=2, after=first[-1].id)
        assert [len(first), len(second)] == [2, 1]
        assert len({farm.id for farm in first + second}) == 3

    def test_limits_and_boxes_out_of_range_are_refused(self, stored: Connection) -> None:
        for limit in (0, 10_001):
            with pytest.raises(BadInput, match="limit"):
                list_farms(stored, limit=limit)
        for bbox in ((0, 10, 1, 9), (-181, 0, 0, 1), (0, 0, float("nan"), 1)):
            with pytest.raises(BadInput, match="bbox"):
                list_farms(stored, bbox=bbox)


class TestExport:
    @pytest.fixture
    def filled(self, engine: Engine) -> Engine:
        across = MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.9, -16.9)])
        hollow = field(lon=16, width_m=500, height_m=500).difference(field(lon=16, width_m=50, height_m=50))
        parts = MultiPolygon([field(lon=17), field(lon=17.01, turned_deg=33)])
        drawn = [across, hollow, parts, field(turned_deg=45)]
        drafts = []
        for number, each in enumerate(drawn, 1):
            boundary = boundary_from(each, limits=ANY_AREA)
            user = "u1" if number % 2 else None
            named = draft(number, name=f"Žito {number}", user=user)
            drafts.append(replace(named, boundary=boundary.wkb, bbox=boundary.bbox, area_ha=boundary.area_ha))
        store(engine, *drafts)
        return engine

    @pytest.mark.parametrize("ending", [".geojson", ".gpkg", ".parquet"])
    def test_importing_an_export_changes_nothing(self, filled: Engine, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"out{ending}"
        with filled.connect() as connection:
            assert write_farms(path, stored_farms(connection)) == 4
            stored = {farm.external_farm_id: farm.boundary for farm in stored_farms(connection)}
        before = everything(filled)
        file = read_farms(path, limits=ANY_AREA)
        assert file.rejected == ()
        assert {each.external_farm_id: each.boundary for each in file.drafts} == stored
        assert numbers(store(filled, *file.drafts)) == (0, 0, 4, 0)
        assert everything(filled) == before

    @pytest.mark.parametrize("ending", [".geojson", ".gpkg", ".parquet"])
    def test_an_export_of_no_farms_is_a_file_all_the_same(self, engine: Engine, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"out{ending}"
        with engine.connect() as connection:
            assert write_farms(path, stored_farms(connection)) == 0
        with pytest.raises(BadInput, match="has no features"):
            read_farms(path, limits=ANY_AREA)

    def test_an_export_replaces_the_file_whole_and_leaves_nothing_beside_it(
        self, filled: Engine, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.geojson"
        path.write_text("old")

        def breaking() -> Iterator[Farm]:
            with filled.connect() as connection:
                yield next(stored_farms(connection))
            raise ConnectionError("the database went away")

        with pytest.raises(ConnectionError, match="went away"):
            write_farms(path, breaking())
        assert path.read_text() == "old"
        with filled.connect() as connection:
            write_farms(path, stored_farms(connection))
        assert len(json.loads(path.read_bytes())["features"]) == 4
        assert list(tmp_path.iterdir()) == [path]

    def test_the_format_is_told_from_the_name_unless_it_is_given(self, filled: Engine, tmp_path: Path) -> None:
        with filled.connect() as connection:
            with pytest.raises(BadInput, match="allowed: geojson, gpkg, parquet"):
                write_farms(tmp_path / "out.csv", stored_farms(connection))
            write_farms(tmp_path / "out.dat", stored_farms(connection), format_name="parquet")
        assert (tmp_path / "out.dat").read_bytes()[:4] == b"PAR1"

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"nosuch/out\.geojson cannot be written: No such file or directory"):
            write_farms(tmp_path / "nosuch" / "out.geojson", [])


class TestClientsFarms:
    @pytest.fixture
    def clients(self, engine: Engine) -> tuple[int, int]:
        with engine.begin() as connection:
            made = connection.execute(
                text("INSERT INTO clients (name, scopes) VALUES ('a', '{}'), ('b', '{}') RETURNING id")
            )
            one, two = made.scalars()
        return one, two

    def test_farms_of_nobody_become_the_clients_and_stay_so(self, engine: Engine, clients: tuple[int, int]) -> None:
        store(engine, draft(1))
        with engine.begin() as connection:
            given = upsert_farms(connection, [draft(1), draft(2)], client_id=clients[0])
        assert numbers(given) == (1, 1, 0, 0)
        assert numbers(store(engine, draft(1), draft(2))) == (0, 0, 2, 0)
        assert rows(engine, "SELECT client_id FROM farms ORDER BY id") == [(clients[0],), (clients[0],)]

    def test_farms_of_another_client_are_not_taken_and_nothing_is_stored(
        self, engine: Engine, clients: tuple[int, int]
    ) -> None:
        with engine.begin() as connection:
            upsert_farms(connection, [draft(1)], client_id=clients[0])
        before = everything(engine)
        with pytest.raises(BadInput, match="belong to another one: 00000000"), engine.begin() as connection:
            upsert_farms(connection, [draft(1, name="New"), draft(2)], client_id=clients[1])
        assert everything(engine) == before
