"""The demo's API key, and two commands to ask the API with, which work."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from rich.console import Console
from rich.markup import escape

from infra.secret_key import load_master_keys
from infra.settings import Settings
from infra.stores import Stores
from models.clients import create_client, list_clients, rotate_key
from models.farms import stored_farms
from models.principals import API, READ, announce

CLIENT = "demo"
SHOWN = 60
"""Characters of an answer that are shown."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to ask the API for."""

    url: str
    headers: Mapping[str, str]

    @property
    def command(self) -> str:
        """The same for a shell."""
        headers = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in self.headers.items())
        return f"curl -sS {headers} {shlex.quote(self.url)}"


def demo_key(stores: Stores, settings: Settings) -> str:
    """Return a new API key of the demo's client; the one of an earlier demo ends."""
    masters = load_master_keys(settings)
    with stores.engine.begin() as connection:
        if CLIENT not in {each.name for each in list_clients(connection)}:
            [key] = create_client(connection, CLIENT, scopes=[READ], masters=masters)
            return key.secret
        key, outdated = rotate_key(connection, CLIENT, kind=API, overlap=dt.timedelta(0), masters=masters)
    announce(stores.redis, outdated)
    return key.secret


def examples(stores: Stores, url: str, key: str, *, days: tuple[dt.date, dt.date]) -> list[Example]:
    """Two things to ask for of the demo's first farm."""
    with stores.engine.connect() as connection:
        farm = f"{url}/api/v1/farms/{next(iter(stored_farms(connection))).external_farm_id}"
    headers = {"X-API-Key": key}
    return [
        Example(f"{farm}/state", headers),
        Example(f"{farm}/ndvi?start={days[0]}&end={days[1]}", headers | {"Accept": "text/csv"}),
    ]


def show_examples(console: Console, given: list[Example], *, is_asked: bool) -> bool:
    """Print the commands, each with the answer where we ask ourselves; return whether all were answered."""
    answers = []
    for each in given:
        console.print(f"  {escape(each.command)}", soft_wrap=True)
        if is_asked:
            answer = httpx.get(each.url, headers=dict(each.headers), trust_env=False, timeout=30)
            answers.append(answer.is_success)
            told = answer.text.splitlines()
            console.print(f"    {answer.status_code}  {escape(told[0][:SHOWN])}…  ({len(told)} lines)", soft_wrap=True)
    return all(answers)
