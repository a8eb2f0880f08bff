"""The running sandbox: its file server, its STAC API, and how they end."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.sandbox import Sandbox, sandbox
from infra.sandbox.files import serve_files
from infra.sandbox.stac import serve_items
from infra.settings import load_settings
from models.errors import BadInput, ServerTrouble
from tests.support.other_process import Program

CONTENT = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "served").mkdir()
    (folder / "served" / "B04.tif").write_bytes(CONTENT)
    (folder / "secret.txt").write_text("not for you")
    (folder / "served" / "link.txt").symlink_to(folder / "secret.txt")
    with serve_files(folder / "served") as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox(tmp_path_factory.mktemp("sandbox"), start=dt.date(2024, 6, 1), end=dt.date(2024, 6, 10)) as running:
        yield running


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-99", CONTENT[:100]),
        ("bytes=500-", CONTENT[500:]),
        ("bytes=-16", CONTENT[-16:]),
        ("bytes=25000-99999", CONTENT[25000:]),
    ],
)
def test_a_range_is_answered_with_exactly_these_bytes(files: httpx.Client, asked: str, expected: bytes) -> None:
    answer = files.get("/B04.tif", headers={"Range": asked})
    first = CONTENT.rindex(expected) if asked == "bytes=-16" else int(asked[6:].split("-")[0])
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(CONTENT)}"


def test_several_ranges_come_as_parts_of_one_answer(files: httpx.Client) -> None:
    answer = files.get("/B04.tif", headers={"Range": "bytes=0-9, 1000-1009"})
    assert answer.status_code == 206
    assert answer.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert answer.content.count(b"Content-Range: bytes ") == 2
    assert CONTENT[1000:1010] in answer.content


def test_a_head_request_says_size_and_ranges_and_sends_nothing(files: httpx.Client) -> None:
    answer = files.head("/B04.tif")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["Content-Length"], answer.headers["Accept-Ranges"]) == (str(len(CONTENT)), "bytes")


def test_a_range_past_the_end_is_416_and_says_the_size(files: httpx.Client) -> None:
    answer = files.get("/B04.tif", headers={"Range": "bytes=99999-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"].endswith(f"*/{len(CONTENT)}")


@pytest.mark.parametrize("path", ["/%2e%2e/secret.txt", "/..%2fsecret.txt", "/link.txt", "/", "/none.tif"])
def test_nothing_but_the_files_below_the_folder_is_served(files: httpx.Client, path: str) -> None:
    assert files.get(path).status_code == 404


def test_nothing_can_be_written(files: httpx.Client) -> None:
    assert [files.request(verb, "/B04.tif").status_code for verb in ("PUT", "POST", "DELETE")] == [405] * 3


def test_small_answers_do_not_wait_for_acknowledgements(files: httpx.Client) -> None:
    started = time.monotonic()
    for number in range(20):
        files.get("/B04.tif", headers={"Range": f"bytes={number}-{number + 9000}"})
    assert time.monotonic() - started < 20 * 0.03


def test_a_search_gives_every_item_of_a_collection_page_by_page(world: Sandbox) -> None:
    for collection in world.collections:
        asked = {"collections": [collection], "limit": 3}
        found: list[str] = []
        with httpx.Client() as client:
            page = client.post(f"{world.stac_url}/search", json=asked).json()
            while page["features"]:
                found += [item["id"] for item in page["features"]]
                onward = next((link for link in page["links"] if link["rel"] == "next"), None)
                if onward is None:
                    break
                page = client.post(onward["href"], json=onward["body"]).json()
        assert sorted(found) == sorted(item["id"] for item in world.items if item["collection"] == collection)


def test_a_search_finds_by_place_and_time(world: Sandbox) -> None:
    asked = {"collections": ["sentinel-2-l2a"], "datetime": "2024-06-04T00:00:00Z/2024-06-04T23:59:59Z", "limit": 50}
    west_of_the_overlap = {**asked, "bbox": [20.90, 45.50, 20.92, 45.55]}
    found = httpx.post(f"{world.stac_url}/search", json=west_of_the_overlap).json()["features"]
    assert [item["properties"]["grid:code"] for item in found] == ["MGRS-34TDR"]


def test_its_settings_lead_swath_to_its_weather(world: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.settings.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    addresses = {settings.open_meteo_url, settings.open_meteo_archive_url, settings.nasa_power_url, settings.stac_url}
    assert len(addresses) == 3
    given = {"latitude": "45.5", "longitude": "21", "daily": "temperature_2m_max"}
    day = {"start_date": "2024-06-01", "end_date": "2024-06-01"}
    for url in (
        f"{settings.open_meteo_archive_url}/v1/archive",
        f"{settings.open_meteo_historical_forecast_url}/v1/forecast",
    ):
        [told] = httpx.get(url, params=given | day).json()["daily"]["temperature_2m_max"]
        assert told == pytest.approx(world.weather.truth.day(45.5, 21, dt.date(2024, 6, 1))["temperature_max_c"], abs=1)


def test_the_items_lead_to_the_pixels(world: Sandbox) -> None:
    with httpx.Client() as client:
        for asset in (asset for item in world.items for asset in item["assets"].values()):
            assert asset["href"].startswith(world.files_url)
            assert client.head(asset["href"]).status_code == 200
    assert len(json.loads(world.farms_file.read_text())["features"]) == len(world.truth.farms)


def test_both_servers_end_with_the_context(tmp_path: Path) -> None:
    before = threading.active_count()
    with sandbox(tmp_path, start=dt.date(2024, 6, 7), end=dt.date(2024, 6, 7)) as running:
        addresses = running.stac_url, running.files_url
    for address in addresses:
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
    assert threading.active_count() == before


def test_the_stac_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    items, address = tmp_path / "items.json", tmp_path / "address"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": [_any_item()]}))
    code = """
import sys, time
from pathlib import Path
from infra.sandbox.stac import serve_items
from infra.settings import load_settings
with serve_items(Path(sys.argv[1])) as url:
    Path(sys.argv[2]).write_text(url)
    print("serving", flush=True)
    time.sleep(60)
"""
    with Program(code, items, address) as program:
        assert program.says("serving")
        assert httpx.get(address.read_text()).status_code == 200
        program.kill()
        deadline = time.monotonic() + 5
        while _answers(address.read_text()):
            assert time.monotonic() < deadline, "the server outlived its parent"
            time.sleep(0.05)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "items.json"
    broken.write_text("not items")
    with pytest.raises(ServerTrouble, match="did not start"), serve_items(broken):
        pass


@pytest.mark.parametrize(
    ("start", "end", "seed"),
    [
        (dt.date(2024, 6, 10), dt.date(2024, 6, 1), 7),
        (dt.date(2020, 1, 1), dt.date(2024, 1, 1), 7),
        (dt.date(2024, 6, 1), dt.date(2024, 6, 10), -1),
    ],
)
def test_dates_and_seeds_that_make_no_world_are_refused(
    tmp_path: Path, start: dt.date, end: dt.date, seed: int
) -> None:
    with pytest.raises(BadInput), sandbox(tmp_path, start=start, end=end, seed=seed):
        pass
    assert not list(tmp_path.iterdir())


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def _any_item() -> dict[str, object]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "one",
        "collection": "any",
        "geometry": {"type": "Point", "coordinates": [21.0, 45.5]},
        "bbox": [21.0, 45.5, 21.0, 45.5],
        "properties": {"datetime": "2024-06-01T00:00:00Z"},
        "links": [],
        "assets": {},
    }
