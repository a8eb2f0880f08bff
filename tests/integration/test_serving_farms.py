from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pyogrio
import pytest
import shapely
from redis import Redis
from shapely.geometry import mapping, shape
from sqlalchemy import Engine, create_engine, make_url

from infra.local.postgres import PostgresServer
from infra.local.valkey import ValkeyServer
from models.farms import upsert_farms
from models.state import state_key
from tests.support.api import Api, CountingPrefect, counting_prefect, key_of, serving
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.shapes import draft, field

FARMS = "/api/v1/farms/"
SYNC = "/api/v1/farms/sync"
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where the tests of this module meet: one worker, and one database that is theirs alone."""

    api: Api
    engine: Engine
    prefect: CountingPrefect
    redis: Redis
    database_url: str

    def client(self, *scopes: str) -> httpx.Client:
        """Somebody new."""
        key = key_of(self.engine, f"client-{next(_numbers)}", *scopes)
        # No TLS here, and reading the certificates of authorities takes longer than most tests.
        return httpx.Client(
            base_url=self.api.url, headers={"x-api-key": key}, trust_env=False, verify=False, timeout=30
        )


@pytest.fixture(scope="module")
def place(postgres_server: PostgresServer, valkey_server: ValkeyServer) -> Iterator[Place]:
    with (
        fresh_database(postgres_server, template=TEMPLATE) as url,
        Redis.from_url(valkey_server.url) as redis,
        counting_prefect() as prefect,
    ):
        redis.flushall()
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with serving(url, valkey_server.url, settings={"PREFECT_API_URL": prefect.url}) as api:
            yield Place(api, engine, prefect, redis, url)
        engine.dispose()


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    with place.client() as client:
        yield client


@pytest.fixture
def other(place: Place) -> Iterator[httpx.Client]:
    with place.client() as client:
        yield client


@pytest.fixture
def admin(place: Place) -> Iterator[httpx.Client]:
    with place.client("admin") as client:
        yield client


def farm(geometry: Any = None, **changes: Any) -> dict[str, Any]:
    drawn = json.loads(json.dumps(mapping(geometry if geometry is not None else field())))
    made = {"external_farm_id": str(uuid.uuid4()), "external_user_id": "u-1", "name": "Home field", "geometry": drawn}
    return {name: value for name, value in (made | changes).items() if value is not None}


def created(client: httpx.Client, *farms: dict[str, Any]) -> list[str]:
    for each in farms:
        assert client.post(FARMS, json=each).status_code == 201
    return [each["external_farm_id"] for each in farms]


def data(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"status", "message", "data", "errors"}
    return body["data"]


def fields(answer: httpx.Response, status: int = 422) -> list[str]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["status"] == "error"
    assert answer.headers["x-request-id"]
    return [error["field"] for error in body["errors"]]


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestCreate:
    def test_a_farm_is_created_and_read_as_it_was_drawn(self, client: httpx.Client) -> None:
        drawn = field(turned_deg=30)
        given = farm(drawn, name="  Upper\tfield ")
        answer = client.post(FARMS, json=given)
        made = data(answer, 201)
        assert answer.headers["location"] == FARMS + given["external_farm_id"]
        assert made["name"] == "Upper field"
        assert (made["external_farm_id"], made["external_user_id"]) == (given["external_farm_id"], "u-1")
        assert (made["is_active"], made["boundary_version"], made["repairs"]) == (True, 1, [])
        assert shape(made["geometry"]).equals(drawn)
        assert made["area_ha"] == pytest.approx(1, rel=1e-3)
        assert shape(made["centroid"]).distance(drawn.centroid) < 1e-9
        assert {**data(client.get(answer.headers["location"])), "repairs": []} == made

    def test_a_box_alone_makes_a_rectangle(self, client: httpx.Client) -> None:
        given = {name: value for name, value in farm(bbox=[15, 46, 15.01, 46.01]).items() if name != "geometry"}
        made = data(client.post(FARMS, json=given), 201)
        assert shape(made["geometry"]).equals(shapely.box(15, 46, 15.01, 46.01))

    def test_the_same_farm_again_changes_nothing_and_another_is_a_conflict(self, client: httpx.Client) -> None:
        given = farm()
        made = data(client.post(FARMS, json=given), 201)
        assert data(client.post(FARMS, json=given), 200) == made
        assert fields(client.post(FARMS, json=given | {"name": "New"}), 409) == ["body.external_farm_id"]
        assert data(client.get(FARMS + given["external_farm_id"]))["name"] == "Home field"

    def test_repairs_are_said(self, client: httpx.Client) -> None:
        given = farm()
        given["geometry"]["coordinates"][0].pop()
        [said] = data(client.post(FARMS, json=given), 201)["repairs"]
        assert "closed a ring" in said

    def test_a_first_look_is_asked_for_once(self, place: Place, client: httpx.Client) -> None:
        given = farm()
        created(client, given)

        def asked() -> list[Any]:
            wanted = given["external_farm_id"]
            return [each for each in place.prefect.asked if wanted in each["parameters"]["external_farm_ids"]]

        eventually(lambda: len(asked()) == 1)
        client.post(FARMS, json=given)
        client.post(SYNC, json=given)
        client.patch(FARMS + given["external_farm_id"], json={"name": "New"})
        created(client, farm())
        assert len(asked()) == 1


class TestSync:
    def test_each_farm_is_told_what_became_of_it(self, client: httpx.Client, other: httpx.Client) -> None:
        known, foreign, wrong = farm(), farm(), farm(name="")
        created(client, known)
        created(other, foreign)
        wrong["geometry"]["coordinates"][0][2] = [500_000, 5_000_000]
        swapped = farm()
        swapped["geometry"]["coordinates"][0][2] = [46.0, 115.0]
        given = [known | {"name": "New"}, wrong, farm(), foreign, swapped]
        answer = client.post(SYNC, json={"farms": given})
        told = data(answer, 207)
        assert [each["outcome"] for each in told["farms"]] == ["updated", "rejected", "created", "conflict", "rejected"]
        assert (told["created"], told["updated"], told["unchanged"], told["rejected"], told["conflict"]) == (
            1,
            1,
            0,
            2,
            1,
        )
        assert [error["field"] for error in answer.json()["errors"]] == [
            "body.farms[1].name",
            "body.farms[3].external_farm_id",
            "body.farms[4].geometry.coordinates[0][2]",
        ]
        assert "look swapped" in told["farms"][4]["errors"][0]["problem"]
        again = data(client.post(SYNC, json=[given[0], given[2]]))
        assert (again["unchanged"], [each["outcome"] for each in again["farms"]]) == (2, ["unchanged"] * 2)

    def test_one_farm_is_a_list_of_one(self, client: httpx.Client) -> None:
        given = farm()
        assert [each["outcome"] for each in data(client.post(SYNC, json=given))["farms"]] == ["created"]
        assert fields(client.post(SYNC, json=given | {"colour": 1})) == ["body.colour"]

    def test_when_none_is_taken_the_answer_is_an_error_and_tells_of_each(
        self, client: httpx.Client, other: httpx.Client
    ) -> None:
        foreign = farm()
        created(other, foreign)
        answer = client.post(SYNC, json=[foreign])
        assert fields(answer, 409) == ["body[0].external_farm_id"]
        assert answer.json()["data"]["farms"][0]["boundary_version"] is None
        answer = client.post(SYNC, json=[foreign, {}])
        assert fields(answer)[0] == "body[0].external_farm_id"
        assert answer.json()["data"]["rejected"] == 1

    def test_a_farm_given_twice_is_refused_wherever_it_stands(self, client: httpx.Client) -> None:
        same = farm()
        answer = client.post(SYNC, json=[same, farm(), same | {"name": "Other"}])
        assert [each["outcome"] for each in data(answer, 207)["farms"]] == ["rejected", "created", "rejected"]
        assert [each["problem"] for each in answer.json()["errors"]] == [
            "is also the id of body[2]",
            "is also the id of body[0]",
        ]
        assert client.get(FARMS + same["external_farm_id"]).status_code == 404

    def test_a_thousand_farms_are_one_request_and_one_run(self, place: Place, client: httpx.Client) -> None:
        given = [farm(shapely.box(east, 46, east + 0.001, 46.001)) for east in np.arange(10, 20, 0.01)]
        assert data(client.post(SYNC, json=given))["created"] == 1_000
        wanted = {each["external_farm_id"] for each in given}
        eventually(lambda: any(set(each["parameters"]["external_farm_ids"]) == wanted for each in place.prefect.asked))
        assert place.redis.exists(*(state_key(uuid.UUID(each)) for each in wanted)) == 1_000
        assert data(client.post(SYNC, json=given))["unchanged"] == 1_000

    @pytest.mark.parametrize("wrap", [lambda farms: farms, lambda farms: {"farms": farms}])
    def test_more_than_a_thousand_or_none_are_refused(self, client: httpx.Client, wrap: Callable[[Any], Any]) -> None:
        one = farm()
        for farms in ([one] * 1_001, []):
            answer = client.post(SYNC, json=wrap(farms))
            assert fields(answer)[0] in {"body", "body.farms"}
            assert "1 to 1,000" in answer.json()["errors"][0]["allowed"]


class TestRead:
    def test_a_reader_that_has_it_gets_no_body(self, client: httpx.Client) -> None:
        [identity] = created(client, farm())
        for path in (FARMS + identity, FARMS):
            for accept in ("application/json", "application/geo+json"):
                answer = client.get(path, headers={"accept": accept})
                same = client.get(path, headers={"accept": accept, "if-none-match": answer.headers["etag"]})
                assert (same.status_code, same.content) == (304, b"")
        tag = client.get(FARMS + identity).headers["etag"]
        client.patch(FARMS + identity, json={"name": "New"})
        assert client.get(FARMS + identity, headers={"if-none-match": tag}).status_code == 200

    def test_pages_follow_each_other_to_the_end(self, client: httpx.Client) -> None:
        identities = created(client, *(farm(field(lon=10 + number)) for number in range(5)))
        found, path = [], f"{FARMS}?limit=2"
        for _ in range(3):
            answer = client.get(path)
            page = data(answer)
            found += [each["external_farm_id"] for each in page["farms"]]
            if page["next_cursor"]:
                path = answer.links["next"]["url"]
                assert page["next_cursor"] in path
        assert (found, page["next_cursor"]) == (identities, None)

    def test_filters_narrow_the_list(self, client: httpx.Client) -> None:
        across = shapely.MultiPolygon([shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.9, -16.9)])
        first, second, third = created(
            client, farm(field(lon=10)), farm(across, external_user_id="u-2"), farm(field(lon=12))
        )
        client.delete(FARMS + third)

        def listed(query: str) -> list[str]:
            return [each["external_farm_id"] for each in data(client.get(FARMS + query))["farms"]]

        assert listed("") == [first, second]
        assert listed("?active=false") == [third]
        assert listed("?active=all") == [first, second, third]
        assert listed("?external_user_id=u-2") == [second]
        assert listed("?bbox=9,45,11,47") == [first]
        assert listed("?bbox=179.95,-18,-179.95,-16") == [second]
        assert listed("?bbox=-179.95,-18,-179.92,-16") == [second]
        assert listed("?bbox=20,-18,30,-16") == []

    def test_a_gis_opens_the_list(self, client: httpx.Client, tmp_path: Path) -> None:
        hollow = field(lon=16, width_m=500, height_m=500).difference(field(lon=16, width_m=50, height_m=50))
        given = {each["external_farm_id"]: each for each in (farm(name="Žito"), farm(hollow))}
        created(client, *given.values())
        answer = client.get(FARMS, headers={"accept": "application/geo+json"})
        assert answer.headers["content-type"] == "application/geo+json"
        path = tmp_path / "farms.geojson"
        path.write_bytes(answer.content)
        frame = pyogrio.read_dataframe(path)
        assert frame.crs.to_epsg() == 4326
        assert list(frame["external_farm_id"]) == list(given)
        assert list(frame["name"]) == ["Žito", "Home field"]
        for drawn, each in zip(frame.geometry, given.values(), strict=True):
            assert drawn.equals(shape(each["geometry"]))
        one = client.get(FARMS + next(iter(given)), headers={"accept": "application/geo+json"})
        path.write_bytes(one.content)
        assert list(pyogrio.read_dataframe(path)["name"]) == ["Žito"]

    def test_a_cursor_of_another_list_is_refused(self, client: httpx.Client) -> None:
        created(client, farm(), farm())
        cursor = data(client.get(f"{FARMS}?limit=1"))["next_cursor"]
        assert fields(client.get(f"{FARMS}?limit=1&active=all&cursor={cursor}")) == ["query.cursor"]
        for garbage in ("x", "", cursor[:-2], "AAAA"):
            assert fields(client.get(f"{FARMS}?cursor={garbage}")) == ["query.cursor"]


class TestChange:
    def test_only_what_is_given_changes(self, client: httpx.Client) -> None:
        given = farm()
        [identity] = created(client, given)
        changed = data(client.patch(FARMS + identity, json={"name": "New"}))
        assert (changed["name"], changed["external_user_id"], changed["boundary_version"]) == ("New", "u-1", 1)

    def test_another_boundary_is_a_new_version_that_somebody_looks_at(self, place: Place, client: httpx.Client) -> None:
        [identity] = created(client, farm())
        eventually(lambda: any(identity in str(each) for each in place.prefect.asked))
        new = farm(field(width_m=250))["geometry"]
        changed = data(client.patch(FARMS + identity, json={"geometry": new}))
        assert (changed["boundary_version"], changed["area_ha"]) == (2, pytest.approx(2.5, rel=1e-3))
        eventually(lambda: sum(identity in str(each) for each in place.prefect.asked) == 2)
        body = json.loads(place.redis.hget(state_key(uuid.UUID(identity)), "body"))
        assert (body["boundary_version"], body["revision"]) == (2, changed["revision"])

    def test_deactivating_again_changes_nothing_and_it_can_be_taken_back(self, client: httpx.Client) -> None:
        given = farm()
        [identity] = created(client, given)
        gone = data(client.delete(FARMS + identity))
        assert gone["is_active"] is False
        assert data(client.delete(FARMS + identity)) == gone
        assert data(client.post(SYNC, json=given))["farms"][0]["is_active"] is False
        assert data(client.patch(FARMS + identity, json={"is_active": True}))["is_active"] is True

    def test_a_change_of_what_has_changed_since_is_refused(self, client: httpx.Client) -> None:
        [identity] = created(client, farm())
        tag = client.get(FARMS + identity).headers["etag"]
        changed = client.patch(FARMS + identity, json={"name": "A"}, headers={"if-match": tag, "if-none-match": "*"})
        assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
        assert client.patch(FARMS + identity, json={"name": "B"}, headers={"if-match": tag}).status_code == 412
        assert data(client.get(FARMS + identity))["name"] == "A"


class TestTwoClients:
    """Whatever one does, nothing of the other's farms is told, and nothing of them changes."""

    def test_by_id_a_farm_of_another_is_as_one_that_is_not_there(
        self, client: httpx.Client, other: httpx.Client
    ) -> None:
        [identity] = created(client, farm())
        nowhere = str(uuid.uuid4())
        for method, body in (("GET", None), ("PATCH", {"name": "Stolen"}), ("DELETE", None)):
            for accept in ("application/json", "application/geo+json") if method == "GET" else ("application/json",):
                told = [
                    other.request(method, FARMS + each, json=body, headers={"accept": accept})
                    for each in (identity, nowhere)
                ]
                assert [each.status_code for each in told] == [404, 404]
                assert told[0].text.replace(identity, nowhere) == told[1].text
        tag = client.get(FARMS + identity).headers["etag"]
        assert other.get(FARMS + identity, headers={"if-none-match": tag}).status_code == 404
        assert other.delete(FARMS + identity, headers={"if-match": "*"}).status_code == 404
        assert data(client.get(FARMS + identity))["name"] == "Home field"

    def test_lists_cursors_and_geojson_hold_ones_own_alone(self, client: httpx.Client, other: httpx.Client) -> None:
        mine = created(client, farm(), farm(field(lon=16)))
        theirs = created(other, farm(), farm(field(lon=16)))
        for own, who in ((mine, client), (theirs, other)):
            assert [each["external_farm_id"] for each in data(who.get(f"{FARMS}?active=all"))["farms"]] == own
            collection = who.get(
                f"{FARMS}?external_user_id=u-1&bbox=-180,-90,180,90", headers={"accept": "application/geo+json"}
            )
            assert [each["id"] for each in collection.json()["features"]] == own
        cursor = data(client.get(f"{FARMS}?limit=1"))["next_cursor"]
        carried = data(other.get(f"{FARMS}?limit=1&cursor={cursor}"))["farms"]
        assert {each["external_farm_id"] for each in carried} <= set(theirs)

    def test_creating_and_syncing_an_id_of_another_says_only_that_it_is_taken(
        self, place: Place, client: httpx.Client, other: httpx.Client
    ) -> None:
        given = farm(name="Secret name")
        [identity] = created(client, given)
        for answer in (other.post(FARMS, json=given), other.post(SYNC, json=given), other.post(SYNC, json=[given])):
            assert fields(answer, 409)[0].endswith("external_farm_id")
            assert "Secret" not in answer.text
        with psycopg.connect(place.database_url) as connection:
            [row] = connection.execute("SELECT name FROM farms WHERE external_farm_id = %s", [identity]).fetchall()
        assert row == ("Secret name",)

    def test_an_admin_sees_and_changes_all_and_they_stay_with_their_owner(
        self, client: httpx.Client, admin: httpx.Client, other: httpx.Client
    ) -> None:
        [identity] = created(client, farm())
        assert data(admin.patch(FARMS + identity, json={"name": "By admin"}))["name"] == "By admin"
        assert data(client.get(FARMS + identity))["name"] == "By admin"
        assert other.get(FARMS + identity).status_code == 404

    def test_the_operators_own_farms_are_for_admins(
        self, place: Place, client: httpx.Client, admin: httpx.Client
    ) -> None:
        own = draft(77)
        with place.engine.begin() as connection:
            upsert_farms(connection, [own])
        assert client.get(f"{FARMS}{own.external_farm_id}").status_code == 404
        assert data(admin.get(f"{FARMS}{own.external_farm_id}"))["name"] == "Farm 77"

    def test_reading_does_not_allow_to_write_and_nobody_does_anything(self, place: Place) -> None:
        given = farm()
        with place.client("read") as reader, place.api.client() as nobody:
            identity = given["external_farm_id"]
            for who, status in ((reader, 403), (nobody, 401)):
                for method, path in (
                    ("POST", FARMS),
                    ("POST", SYNC),
                    ("PATCH", FARMS + identity),
                    ("DELETE", FARMS + identity),
                ):
                    answer = who.request(method, path, json=given if method != "DELETE" else None)
                    assert answer.status_code == status
            assert reader.get(FARMS).status_code == 200
            assert nobody.get(FARMS).status_code == 401


def _with(**changes: Any) -> dict[str, Any]:
    return farm() | changes


BAD: list[tuple[bytes | dict[str, Any] | list[Any], int, str]] = [
    (b"", 400, "body"),
    (b"{", 400, "body"),
    (b'{"name": NaN}', 400, "body"),
    (b'{"bbox": [0, 0, Infinity, 1]}', 400, "body"),
    (b'"\xff"', 400, "body"),
    (b"[" * 200 + b"]" * 200, 422, "body"),
    (b"1", 422, "body"),
    (b"null", 422, "body"),
    (_with(external_farm_id="not-a-uuid"), 422, "body.external_farm_id"),
    (_with(external_farm_id=7), 422, "body.external_farm_id"),
    (_with(external_farm_id="urn:uuid:00000000-0000-0000-0000-000000000001"), 422, "body.external_farm_id"),
    (_with(external_farm_id=f"{1:032x}"), 422, "body.external_farm_id"),
    (_with(name=7), 422, "body.name"),
    (_with(name="nul\x00byte"), 422, "body.name"),
    (_with(name="x" * 201), 422, "body.name"),
    (_with(external_user_id=None), 422, "body.external_user_id"),
    (_with(colour="green"), 422, "body.colour"),
    (_with(is_active="yes"), 422, "body.is_active"),
    (_with(geometry=None), 422, "body.geometry"),
    (_with(geometry={"type": "Polygon", "coordinates": []}), 422, "body.geometry.coordinates"),
    (_with(geometry={"type": "Point", "coordinates": [15, 46]}), 422, "body.geometry.type"),
    (
        _with(geometry={"type": "Polygon", "coordinates": [[[15, 46], [91, 181], [15, 47]]]}),
        422,
        "body.geometry.coordinates[0][1]",
    ),
    (_with(bbox=[46, 115, 46.01, 115.01]), 422, "body.bbox[1]"),
    (_with(bbox=[20, 46, 20.1, 46.1]), 422, "body.bbox"),
    (_with(centroid=[46, 15]), 422, "body.centroid"),
]


class TestBadInput:
    @pytest.mark.parametrize(("body", "status", "name"), BAD)
    def test_the_field_is_named(
        self, client: httpx.Client, body: bytes | dict[str, Any], status: int, name: str
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        for path in (FARMS, SYNC):
            answer = client.post(path, content=content, headers={"content-type": "application/json"})
            assert name in fields(answer, status)

    def test_a_patch_is_checked_as_well(self, client: httpx.Client) -> None:
        [identity] = created(client, farm())
        for body, name in (
            ({}, "body"),
            ({"centroid": [15, 46]}, "body"),
            ({"name": None}, "body.name"),
            ({"external_farm_id": str(uuid.uuid4())}, "body.external_farm_id"),
            ({"bbox": [1, 2]}, "body.bbox"),
            ({"geometry": {"type": "Polygon"}}, "body.geometry.coordinates"),
        ):
            assert name in fields(client.patch(FARMS + identity, json=body))

    def test_a_path_that_is_no_farm_names_it(self, client: httpx.Client) -> None:
        for method in ("GET", "PATCH", "DELETE"):
            body = {"name": "x"} if method == "PATCH" else None
            assert fields(client.request(method, f"{FARMS}seven", json=body)) == ["path.external_farm_id"]

    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ("bbox=1,2,3", "query.bbox"),
            ("bbox=46,115,47,116", "query.bbox"),
            ("bbox=1,2,nan,4", "query.bbox"),
            ("active=maybe", "query.active"),
            ("limit=0", "query.limit"),
            ("limit=1001", "query.limit"),
            ("limit=ten", "query.limit"),
            ("external_user_id=%00", "query.external_user_id"),
            ("colour=green", "query.colour"),
            ("limit=1&limit=2", "query.limit"),
        ],
    )
    def test_a_query_names_its_parameter(self, client: httpx.Client, query: str, name: str) -> None:
        assert fields(client.get(f"{FARMS}?{query}"))[0].startswith(name)

    def test_a_body_that_is_too_large_is_refused_before_it_is_read(self, client: httpx.Client) -> None:
        assert fields(client.post(SYNC, content=b" " * (8 * 1024**2 + 1)), 413) == ["body"]

    def test_an_area_out_of_reach_is_refused(self, client: httpx.Client) -> None:
        answer = client.post(FARMS, json=_with(geometry=mapping(shapely.box(0, 0, 30, 30))))
        assert fields(answer) == ["body.geometry"]
        assert "has an area of" in answer.json()["message"]


def test_what_redis_did_not_take_is_published_when_it_is_back(place: Place, client: httpx.Client) -> None:
    [identity] = created(client, farm())
    key = state_key(uuid.UUID(identity))
    place.redis.execute_command("CLIENT", "PAUSE", 1_200, "ALL")
    changed = data(client.patch(FARMS + identity, json={"bbox": [15, 46, 15.01, 46.01]}))
    assert changed["boundary_version"] == 2
    eventually(lambda: json.loads(place.redis.hget(key, "body"))["revision"] == changed["revision"])
