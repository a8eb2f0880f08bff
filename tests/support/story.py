"""A day in the life of the API: every operation is asked something, on stores that hold the same each time.

What was asked and answered makes the examples of the contract: `python -m tests.support.story FILE` records them.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
from redis import Redis
from sqlalchemy import Engine, text

from infra.local.home import temporary_home
from infra.local.postgres import local_postgres
from infra.local.valkey import local_valkey
from infra.telemetry import set_up_logs
from models.clients import create_client
from models.keys import master_keys
from models.observations import save_observations
from models.readmodel import publish, read_models
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_store import save_readings
from serving.app import ENDPOINTS
from serving.openapi import operation_id
from tasks.weather.cells import nasa_power_cell, open_meteo_cell
from tests.support.api import counting_prefect
from tests.support.api_workers import SECRET, TOKEN_PATH, Worker, signed_headers, worker
from tests.support.databases import TEMPLATE, fresh_database, make_template
from tests.support.facts import POLICY, engine_for, observed, unseen
from tests.support.readings import daily, hourly, midnight

Told = dict[str, list[dict[str, Any]]]
"""Exchanges by operation id."""

FARM, OTHER = uuid.UUID("6f1f3f0e-4d0c-4b6e-9a53-0d7c7e0b9a11"), uuid.UUID("0b8a2a44-6f0f-4f6e-8a27-5a9a4f4c2d22")
RING = [[15.01, 46.0], [15.0126, 46.0], [15.0126, 46.0014], [15.0108, 46.0018], [15.01, 46.0]]
DAY = dt.date(2026, 6, 10)
NOON = dt.datetime(2026, 6, 10, 10, 6, 21, 24000, dt.UTC)

ALWAYS_ANOTHER: Mapping[str, Any] = {
    "created_at": "2026-06-01T08:00:00.250817Z",
    "updated_at": "2026-06-01T08:00:00.250817Z",
    "asked_at": "2026-06-11T06:30:00.113370Z",
    "expires_at": "2026-06-11T07:30:00Z",
    "expires_in": 3600,
    "run_id": "0190a6f2-5d3b-7c11-9f5e-8f2d1f6f4c33",
    "access_token": "eyJhbGciOiJIUzI1NiJ9.….…",
    "ms": 0.42,
}
"""What differs from time to time, and what is recorded in its place."""
NOW_FIELDS = {"at": "2026-06-11T06:00:00Z", "as_of": "2026-06-11T04:20:00Z"}


def steady(value: Any, put: Mapping[str, Any]) -> Any:
    """A value with what differs from time to time replaced."""
    if isinstance(value, list):
        return [steady(each, put) for each in value]
    if isinstance(value, dict):
        return {
            name: put[name] if name in put and each is not None else steady(each, put) for name, each in value.items()
        }
    return value


class Teller:
    """Asks one worker, and writes down what was asked and answered."""

    def __init__(self, one: Worker, key: str) -> None:
        self.told: Told = {}
        self._one = one
        self._key = key

    async def ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        farm: uuid.UUID | None = None,
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
        put: Mapping[str, Any] = ALWAYS_ANOTHER,
    ) -> httpx.Response:
        """Ask, write it down under a name, and return the answer."""
        endpoint = next(each for each in ENDPOINTS if (each.method, each.path) == (method, path))
        target = path.replace("{external_farm_id}", str(farm))
        given = {"x-api-key": self._key, "accept": accept} if headers is None else dict(headers)
        answer = await self._one.http.request(method, target, params=query, json=body, headers=given)
        media_type = answer.headers["content-type"].partition(";")[0]
        exchange = {
            "name": name,
            "parameters": {**({"external_farm_id": str(farm)} if farm else {}), **(query or {})},
            **({"body": body} if body is not None else {}),
            "status": answer.status_code,
            "media_type": media_type,
            "answer": answer.text if media_type == "text/csv" else steady(answer.json(), put),
        }
        self.told.setdefault(operation_id(endpoint), []).append(exchange)
        return answer


FARMS = "/api/v1/farms/"
ONE = "/api/v1/farms/{external_farm_id}"


def _farm(farm: uuid.UUID = FARM, name: str = "North field", **place: Any) -> dict[str, Any]:
    shape = place or {"geometry": {"type": "Polygon", "coordinates": [RING]}}
    return {"external_farm_id": str(farm), "external_user_id": "ana", "name": name, **shape}


async def _registry(teller: Teller) -> None:
    await teller.ask("A new farm", "POST", FARMS, body=_farm())
    await teller.ask("The same farm again", "POST", FARMS, body=_farm())
    await teller.ask("The id of another farm", "POST", FARMS, body=_farm(name="South field"))
    box = _farm(OTHER, "Lower meadow", bbox=[15.02, 46.0, 15.022, 46.001])
    await teller.ask("A farm that is known and a new one", "POST", f"{FARMS}sync", body={"farms": [_farm(), box]})
    swapped = _farm(uuid.UUID(int=7), "Hill", bbox=[15.02, 46.001, 15.022, 46.0])
    await teller.ask("One of two is wrong", "POST", f"{FARMS}sync", body=[box, swapped])
    await teller.ask("The only one is wrong", "POST", f"{FARMS}sync", body=swapped)
    await teller.ask("A page of two", "GET", FARMS, query={"limit": "2"})
    await teller.ask("For a map", "GET", FARMS, query={"limit": "2"}, accept="application/geo+json")
    await teller.ask("One farm", "GET", ONE, farm=FARM)
    await teller.ask("For a map", "GET", ONE, farm=FARM, accept="application/geo+json")
    await teller.ask("Another name", "PATCH", ONE, farm=OTHER, body={"name": "Lower meadow, east"})
    await teller.ask("No longer tended", "DELETE", ONE, farm=OTHER)


async def _unseen(teller: Teller) -> None:
    await teller.ask("Not looked at yet", "GET", f"{ONE}/state", farm=FARM)
    await teller.ask("Not looked at yet", "GET", f"{ONE}/ndvi/latest", farm=FARM)
    await teller.ask("A fresh look", "POST", f"{ONE}/ndvi/refresh", farm=FARM)
    await teller.ask("Nothing known yet", "GET", f"{ONE}/weather/current", farm=FARM)


async def _ndvi(teller: Teller) -> None:
    days = {"start": "2026-06-01", "end": "2026-06-30"}
    await teller.ask("Looked at", "GET", f"{ONE}/state", farm=FARM)
    await teller.ask("Clear enough", "GET", f"{ONE}/ndvi/latest", farm=FARM, query={"min_clear_fraction": "0.5"})
    await teller.ask(
        "A month, the cloudy passes too", "GET", f"{ONE}/ndvi", farm=FARM, query=days | {"with_empty": "true"}
    )
    await teller.ask("As a table", "GET", f"{ONE}/ndvi", farm=FARM, query=days, accept="text/csv")


async def _weather(teller: Teller) -> None:
    days = {"start": str(DAY), "end": str(DAY + dt.timedelta(days=1))}
    now = {**ALWAYS_ANOTHER, **NOW_FIELDS}
    await teller.ask("Now", "GET", f"{ONE}/weather/current", farm=FARM, put=now)
    await teller.ask("Of some days", "GET", f"{ONE}/weather/hourly", farm=FARM, query=days)
    await teller.ask("As a table", "GET", f"{ONE}/weather/hourly", farm=FARM, query=days, accept="text/csv")
    await teller.ask("Of some days", "GET", f"{ONE}/weather/daily", farm=FARM, query=days)
    await teller.ask("As a table", "GET", f"{ONE}/weather/daily", farm=FARM, query=days, accept="text/csv")
    await teller.ask(
        "For maize", "GET", f"{ONE}/weather/agronomy", farm=FARM, query=days | {"base": "10", "upper": "30"}
    )
    ts = f"{DAY}T10:20:00Z"
    there = {"lat": "46.0", "lon": "15.011"}
    await teller.ask("At a time", "GET", "/api/v1/weather/point", query={**there, "ts": ts})
    points = [{"lat": 46.0, "lon": 15.011, "ts": ts}, {"lat": -33.1, "lon": 18.9, "ts": ts}]
    await teller.ask("One that is known and one that is not", "POST", "/api/v1/weather/bulk", body={"points": points})


async def _told(database_url: str, redis_url: str, prefect_url: str) -> Told:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        scopes = ("read", "farms:write")
        masters = master_keys(SECRET)
        api, hmac = create_client(connection, "cooperative", scopes=scopes, masters=masters, with_signing_key=True)
    async with worker(database_url, redis_url, endpoints=ENDPOINTS, prefect_url=prefect_url) as one:
        teller = Teller(one, api.secret)
        for name, path in (("Alive", "/healthz"), ("All there", "/readyz")):
            await teller.ask(name, "GET", path)
        await _registry(teller)
        await _unseen(teller)
        _observe(engine, redis_url)
        await _ndvi(teller)
        _tell_weather(engine, redis_url)
        await _weather(teller)
        first = await teller.ask("From the beginning", "GET", "/api/v1/changes", query={"limit": "4"})
        rest = {"since": first.json()["data"]["next"], "limit": "6"}
        await teller.ask("From there on", "GET", "/api/v1/changes", query=rest)
        await teller.ask("A signed request", "POST", TOKEN_PATH, headers=signed_headers(hmac))
    engine.dispose()
    return teller.told


def _publish(engine: Engine, redis_url: str) -> None:
    with engine.connect() as connection, Redis.from_url(redis_url) as client:
        publish(client, read_models(connection, None, mask_policy=POLICY))


def _id(engine: Engine) -> int:
    with engine.connect() as connection:
        query = text("SELECT id FROM farms WHERE external_farm_id = :farm")
        return int(connection.execute(query, {"farm": FARM}).scalar_one())


def _observe(engine: Engine, redis_url: str) -> None:
    farm_id = _id(engine)
    item = {"mask_policy": POLICY, "processing_baseline": "05.12"}

    def seen(days: int, number: int) -> dict[str, Any]:
        at = NOON + dt.timedelta(days=days)
        name = f"S2B_33TWM_{at:%Y%m%d}_0_L2A"
        return {**item, "acquired_at": at, "day": at.date(), "pass_id": f"sentinel-2b/{number}", "item_ids": (name,)}

    with engine.begin() as connection:
        given = [
            observed(farm_id, ndvi=0.58, **seen(-5, 1)),
            observed(farm_id, ndvi=0.64, **seen(0, 2)),
            unseen(farm_id, **seen(5, 3)),
        ]
        save_observations(connection, given)
    _publish(engine, redis_url)


def _tell_weather(engine: Engine, redis_url: str) -> None:
    lon, lat = 15.0113, 46.0008
    cells = [open_meteo_cell(lon, lat), nasa_power_cell(lon, lat)]
    own, power = cells
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    warm = {"temperature_c": 21.4, "precipitation_mm": 0.0, "wind_speed_10m_m_s": 2.1, "et0_mm": 0.31}
    noon = midnight(DAY) + dt.timedelta(hours=10)
    day = {"temperature_min_c": 11.2, "temperature_max_c": 24.9, "precipitation_mm": 1.4, "et0_mm": 4.3}
    with engine.begin() as connection:
        at = [CellOfFarm(farm_id=_id(engine), boundary_version=1, cell=each) for each in cells]
        assign_cells(connection, at)
        readings = [hourly(own, now, values=warm), hourly(own, noon, values=warm)]
        readings += [hourly(own, noon + dt.timedelta(hours=1), values={**warm, "temperature_c": 22.3})]
        readings += [daily(own, DAY, values=day), daily(power, DAY, values={"relative_humidity_pct": 63.0})]
        readings += [daily(own, DAY + dt.timedelta(days=1), values={**day, "precipitation_mm": 0.0})]
        save_readings(connection, readings)
    _publish(engine, redis_url)


def tell(database_url: str, redis_url: str) -> Told:
    """Tell the story on empty stores, and return what was asked and answered."""
    with counting_prefect() as prefect:
        return asyncio.run(_told(database_url, redis_url, prefect.url))


def as_file(told: Told) -> bytes:
    """As it is kept."""
    return orjson.dumps(json.loads(json.dumps(told)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def main() -> None:
    """Record the story."""
    set_up_logs("ERROR", as_json=False)
    with (
        temporary_home() as home,
        local_postgres(home, durable=False) as postgres,
        local_valkey(home) as valkey,
    ):
        make_template(postgres)
        with fresh_database(postgres, template=TEMPLATE) as url:
            Path(sys.argv[1]).write_bytes(as_file(tell(url, valkey.url)))


if __name__ == "__main__":
    main()
