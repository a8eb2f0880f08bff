from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
import pytest
import shapely
from shapely.geometry import MultiPolygon, box

from models.boundaries import centroid, geojson
from models.domain import FarmDraft
from models.errors import BadInput
from models.farm_sync import OPERATOR, Outcome, Ownership, Synced, sync_farms
from models.registry import Changed, Changes, StoredFarm, Wanted, change_farm, page_query, stored_farm
from tasks.farms.boundaries import boundary_from
from tests.support.shapes import ANY_AREA, draft, field

Made = TypeVar("Made")
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
def owners(database_url: str) -> tuple[Ownership, Ownership]:
    """Two clients."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in ("one", "two"):
            connection.execute("INSERT INTO clients (name, scopes) VALUES (%s, '{}')", [name])
        ids = [row[0] for row in connection.execute("SELECT id FROM clients ORDER BY id")]
    return Ownership(client_id=ids[0]), Ownership(client_id=ids[1])


@asynccontextmanager
async def transaction(database_url: str) -> AsyncIterator[Connection]:
    connection = await psycopg.AsyncConnection.connect(database_url)
    async with connection, connection.transaction():
        yield connection


def within(database_url: str, work: Callable[[Connection], Awaitable[Made]]) -> Made:
    async def run() -> Made:
        async with transaction(database_url) as connection:
            return await work(connection)

    return asyncio.run(run())


def sync(database_url: str, *drafts: FarmDraft, ownership: Ownership, only_new: bool = False) -> list[Synced]:
    return within(database_url, lambda each: sync_farms(each, drafts, ownership=ownership, only_new=only_new))


def outcomes(synced: list[Synced]) -> list[str]:
    return [each.outcome.value for each in synced]


def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query.encode()).fetchall()


def everything(database_url: str) -> list[list[tuple[Any, ...]]]:
    return [rows(database_url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("farms", "farm_boundaries")]


class TestSync:
    def test_each_farm_is_told_what_became_of_it_in_the_order_given(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        one, two = owners
        sync(database_url, draft(1), draft(2), draft(3, user="u"), ownership=one)
        sync(database_url, draft(4), ownership=two)
        given = [draft(5), draft(4, name="Mine"), draft(3, user="u"), draft(2, field()), draft(1, name="New")]
        synced = sync(database_url, *given, ownership=one)
        assert outcomes(synced) == ["created", "conflict", "unchanged", "updated", "updated"]
        assert [each.has_new_boundary for each in synced] == [True, False, False, True, False]
        assert [each.boundary_version for each in synced] == [1, None, 1, 2, 1]
        assert [each.external_farm_id.int for each in synced] == [5, 4, 3, 2, 1]

    def test_of_somebody_elses_farm_nothing_is_told_and_nothing_changes(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        one, two = owners
        sync(database_url, draft(1), ownership=one)
        before = everything(database_url)
        [told] = sync(database_url, draft(1, field(), name="Stolen"), ownership=two)
        assert (told.outcome, told.farm_id, told.revision, told.is_active) == (Outcome.CONFLICT, None, None, None)
        assert everything(database_url) == before

    def test_the_operators_farms_are_nobodys_to_sync(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        sync(database_url, draft(1), ownership=OPERATOR)
        assert outcomes(sync(database_url, draft(1), ownership=owners[0])) == ["conflict"]
        assert outcomes(sync(database_url, draft(1), ownership=Ownership(client_id=None))) == ["conflict"]

    def test_who_may_change_all_leaves_farms_with_their_owner(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        one, two = owners
        sync(database_url, draft(1), ownership=one)
        admin = Ownership(client_id=two.client_id, may_change_all=True)
        assert outcomes(sync(database_url, draft(1, name="New"), draft(2), ownership=admin)) == ["updated", "created"]
        assert rows(database_url, "SELECT client_id FROM farms ORDER BY id") == [(one.client_id,), (two.client_id,)]

    def test_farms_of_nobody_become_the_clients_that_takes_them(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        sync(database_url, draft(1), ownership=OPERATOR)
        taker = replace(owners[0], takes_unowned=True)
        assert outcomes(sync(database_url, draft(1), ownership=taker)) == ["updated"]
        assert outcomes(sync(database_url, draft(1), ownership=taker)) == ["unchanged"]
        assert rows(database_url, "SELECT client_id FROM farms") == [(owners[0].client_id,)]

    def test_the_same_again_changes_nothing_at_all(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        given = [draft(number, user="u") for number in range(1, 6)]
        sync(database_url, *given, ownership=owners[0])
        before = everything(database_url)
        assert outcomes(sync(database_url, *given[::-1], ownership=owners[0])) == ["unchanged"] * 5
        assert everything(database_url) == before

    def test_what_should_be_new_leaves_what_is_there(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        sync(database_url, draft(1), draft(2), ownership=owners[0])
        before = everything(database_url)
        given = [draft(1), draft(2, name="New")]
        assert outcomes(sync(database_url, *given, ownership=owners[0], only_new=True)) == ["unchanged", "exists"]
        assert outcomes(sync(database_url, draft(1), ownership=owners[1], only_new=True)) == ["conflict"]
        assert everything(database_url) == before

    def test_a_farm_stays_deactivated_until_it_is_said_to_be_active(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        one = owners[0]
        sync(database_url, draft(1), ownership=one)
        for wanted, is_active, outcome in (
            (False, False, "updated"),
            (None, False, "unchanged"),
            (True, True, "updated"),
        ):
            [told] = sync(database_url, replace(draft(1), is_active=wanted), ownership=one)
            assert (told.is_active, told.outcome) == (is_active, outcome)

    def test_a_farm_given_twice_is_refused(self, database_url: str, owners: tuple[Ownership, Ownership]) -> None:
        with pytest.raises(BadInput, match="given twice"):
            sync(database_url, draft(1), draft(1), ownership=owners[0])

    def test_two_clients_that_claim_the_same_ids_at_once_get_each_farm_once(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        given = [draft(number) for number in range(1, 30)]

        async def claim(ownership: Ownership) -> list[Synced]:
            async with transaction(database_url) as connection:
                return await sync_farms(connection, given, ownership=ownership)

        async def both() -> list[list[Synced]]:
            return await asyncio.gather(*(claim(each) for each in owners))

        assert sorted(set(outcomes(each)) for each in asyncio.run(both())) in (
            [{"created"}, {"conflict"}],
            [{"conflict"}, {"created"}],
        )

    def test_more_changed_boundaries_than_are_compared_at_once_are_all_compared(
        self, database_url: str, owners: tuple[Ownership, Ownership], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("models.farm_sync.COMPARED_AT_ONCE", 2)
        given = [draft(number, field(lon=number, turned_deg=20)) for number in range(1, 6)]
        sync(database_url, *given, ownership=owners[0])
        moved = [
            draft(number, shapely.transform(field(lon=number, turned_deg=20), lambda at: at + 4e-10))
            for number in range(1, 6)
        ]
        assert outcomes(sync(database_url, *moved, ownership=owners[0])) == ["unchanged"] * 5


class TestChange:
    def change(self, database_url: str, changes: Changes, *, ownership: Ownership, number: int = 1) -> Changed | None:
        return within(database_url, lambda each: change_farm(each, uuid.UUID(int=number), changes, ownership=ownership))

    def test_only_what_is_given_changes(self, database_url: str, owners: tuple[Ownership, Ownership]) -> None:
        given = draft(1, user="u")
        sync(database_url, given, ownership=owners[0])
        changed = self.change(database_url, Changes(name="New"), ownership=owners[0])
        assert changed is not None
        farm = changed.stored.farm
        assert (farm.name, farm.external_user_id, farm.boundary, farm.boundary_version, farm.is_active) == (
            *("New", "u", given.boundary, 1, True),
        )
        assert changed.synced.outcome is Outcome.UPDATED
        again = self.change(database_url, Changes(name="New"), ownership=owners[0])
        assert again is not None
        assert (again.synced.outcome, again.stored) == (Outcome.UNCHANGED, changed.stored)

    def test_another_boundary_is_a_new_version_with_its_box_and_area(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        sync(database_url, draft(1), ownership=owners[0])
        new = boundary_from(field(width_m=300), limits=ANY_AREA)
        changes = Changes(boundary=new.wkb, bbox=new.bbox, area_ha=new.area_ha)
        changed = self.change(database_url, changes, ownership=owners[0])
        assert changed is not None
        farm = changed.stored.farm
        assert (farm.boundary, farm.bbox, farm.area_ha, farm.boundary_version) == (new.wkb, new.bbox, new.area_ha, 2)
        assert changed.synced.has_new_boundary

    def test_somebody_elses_farm_is_as_one_that_is_not_there(
        self, database_url: str, owners: tuple[Ownership, Ownership]
    ) -> None:
        sync(database_url, draft(1), ownership=owners[0])
        before = everything(database_url)
        assert self.change(database_url, Changes(name="New"), ownership=owners[1]) is None
        assert self.change(database_url, Changes(name="New"), ownership=owners[1], number=77) is None
        assert everything(database_url) == before


BOXES: dict[tuple[float, float, float, float], list[int]] = {
    (9, 49, 11, 51): [1],
    (9, 45, 16, 51): [1, 2],
    (-180, -90, 180, 90): [1, 2, 4],
    (179.95, -17, 179.99, -16): [4],
    (-179.95, -17, -179.94, -16): [4],
    (179, -17, -179, -16): [4],
    (170, -17, 14.9, 90): [1, 4],
    (-170, -18, 170, -16): [],
    (16, 45, 9, 47): [],
}


class TestPages:
    @pytest.fixture
    def stored(self, database_url: str, owners: tuple[Ownership, Ownership]) -> str:
        across = MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.9, -16.9)])
        places = [field(lon=10, lat=50), field(lon=15, lat=46), field(lon=15.5, lat=46), across]
        drafts = []
        for number, place in enumerate(places, 1):
            made = boundary_from(place, limits=ANY_AREA)
            named = draft(number, user="even" if number % 2 == 0 else "odd")
            drafts.append(replace(named, boundary=made.wkb, bbox=made.bbox, area_ha=made.area_ha))
        drafts[2] = replace(drafts[2], is_active=False)
        sync(database_url, *drafts, ownership=owners[0])
        sync(database_url, draft(9), ownership=owners[1])
        return database_url

    def page(self, database_url: str, wanted: Wanted) -> list[StoredFarm]:
        query, values = page_query(wanted)
        with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as connection:
            return [stored_farm(row) for row in connection.execute(query.encode(), values)][: wanted.limit]

    def numbers(self, database_url: str, wanted: Wanted) -> list[int]:
        return [each.farm.external_farm_id.int for each in self.page(database_url, wanted)]

    def test_a_client_sees_its_own_active_farms(self, stored: str, owners: tuple[Ownership, Ownership]) -> None:
        one, two = (owner.client_id for owner in owners)
        assert self.numbers(stored, Wanted(client_id=one, sees_all=False)) == [1, 2, 4]
        assert self.numbers(stored, Wanted(client_id=two, sees_all=False)) == [9]
        assert self.numbers(stored, Wanted(client_id=None, sees_all=False)) == []
        assert self.numbers(stored, Wanted(client_id=None, sees_all=True)) == [1, 2, 4, 9]

    def test_filters_narrow_the_list(self, stored: str, owners: tuple[Ownership, Ownership]) -> None:
        mine = Wanted(client_id=owners[0].client_id, sees_all=False)
        assert self.numbers(stored, replace(mine, external_user_id="even")) == [2, 4]
        assert self.numbers(stored, replace(mine, is_active=False)) == [3]
        assert self.numbers(stored, replace(mine, is_active=None, external_user_id="odd")) == [1, 3]

    def test_a_box_finds_the_farms_that_touch_it(self, stored: str, owners: tuple[Ownership, Ownership]) -> None:
        mine = Wanted(client_id=owners[0].client_id, sees_all=False)
        found = {bbox: self.numbers(stored, replace(mine, bbox=bbox)) for bbox in BOXES}
        assert found == BOXES

    def test_pages_follow_each_other(self, stored: str, owners: tuple[Ownership, Ownership]) -> None:
        first = self.page(stored, Wanted(client_id=owners[0].client_id, sees_all=False, limit=2))
        after = first[-1].farm.id
        assert self.numbers(stored, Wanted(client_id=owners[0].client_id, sees_all=False, limit=2, after=after)) == [4]

    def test_a_page_of_large_boundaries_ends_early_and_never_empty(
        self, stored: str, owners: tuple[Ownership, Ownership], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("models.registry.MOST_PAGE_BYTES", 100)
        assert self.numbers(stored, Wanted(client_id=owners[0].client_id, sees_all=False)) == [1, 2]

    def test_a_boundary_is_told_as_geojson_to_the_last_bit(self, stored: str) -> None:
        for each in self.page(stored, Wanted(client_id=None, sees_all=True, is_active=None)):
            assert (
                shapely.to_wkb(shapely.geometry.shape(geojson(each.farm.boundary)), byte_order=1) == each.farm.boundary
            )


def test_the_centre_of_area_is_that_of_the_shape() -> None:
    hollow = field(width_m=500, height_m=300, turned_deg=20).difference(field(lon=15.001, width_m=50, height_m=50))
    made = boundary_from(hollow, limits=ANY_AREA)
    assert centroid(made.wkb, crosses_antimeridian=False) == pytest.approx(
        (hollow.centroid.x, hollow.centroid.y), abs=1e-9
    )
    across = boundary_from(MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.7, -16.9)]), limits=ANY_AREA)
    assert centroid(across.wkb, crosses_antimeridian=True) == pytest.approx((-179.9, -16.95))
