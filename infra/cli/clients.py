"""`swath clients`: who may call the API."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from redis.exceptions import RedisError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from infra.secret_key import load_master_keys
from infra.settings import load_settings
from infra.stores import Stores, open_stores
from models.clients import (
    Client,
    Key,
    NewKey,
    create_client,
    list_clients,
    revoke_client,
    revoke_key,
    rotate_key,
)
from models.principals import API, HMAC, READ, WRITE_FARMS, Outdated, announce

app = typer.Typer(no_args_is_help=True, help="Say who may call the API, and take it back.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(help="Name of the client: letters, digits, dots, dashes, underscores.")]


@app.command("create")
def create(
    name: Name,
    scopes: Annotated[
        str, typer.Option(help="What it may do, separated by commas: read, farms:write, admin.")
    ] = f"{READ},{WRITE_FARMS}",
    with_hmac: Annotated[
        bool, typer.Option("--hmac", help="Also make a signing key, for tokens by signed requests.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a client with a new API key, which is shown once and never again."""
    settings = load_settings()
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    masters = load_master_keys(settings)
    with open_stores(settings) as stores, stores.engine.begin() as connection:
        keys = create_client(connection, name, scopes=wanted, masters=masters, with_signing_key=with_hmac)
    if as_json:
        _print_json({"client": name, "scopes": wanted, "keys": [_new(key) for key in keys]})
        return
    Console(highlight=False).print(f"Client {name} may: {', '.join(wanted)}.")
    _show(keys)


@app.command("list")
def list_all(
    include_revoked: Annotated[bool, typer.Option("--all", help="Revoked clients and keys too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the clients and their keys, without the keys' secrets."""
    with open_stores(load_settings()) as stores, stores.engine.connect() as connection:
        found = list_clients(connection, include_revoked=include_revoked)
    if as_json:
        _print_json([asdict(client) for client in found])
        return
    table = Table("client", "may", "farms", "keys", box=SIMPLE_HEAD)
    table.columns[2].justify = "right"
    for client in found:
        table.add_row(_named(client), " ".join(client.scopes), f"{client.farms:,}", "\n".join(map(_told, client.keys)))
    Console(highlight=False).print(table)


@app.command("rotate")
def rotate(
    name: Name,
    is_hmac: Annotated[bool, typer.Option("--hmac", help="The signing key, instead of the API key.")] = False,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=2160, help="How long the keys of before go on; 0 ends them at once.")
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Make a new key; those of before go on for a while, so that nobody is cut off."""
    settings = load_settings()
    masters = load_master_keys(settings)
    overlap = dt.timedelta(hours=overlap_hours)
    with open_stores(settings) as stores:
        with stores.engine.begin() as connection:
            key, outdated = rotate_key(
                connection, name, kind=HMAC if is_hmac else API, overlap=overlap, masters=masters
            )
        _announce(stores, outdated)
    if as_json:
        _print_json({"client": name, "keys": [_new(key)], "overlap_hours": overlap_hours})
        return
    Console(highlight=False).print(
        f"Keys of before go on for {overlap_hours:g} hours." if overlap else "Keys of before have ended."
    )
    _show([key])


@app.command("revoke")
def revoke(
    name: Name,
    key: Annotated[str | None, typer.Option(help="Prefix of the one key to end; unset, the whole client.")] = None,
    as_json: AsJson = False,
) -> None:
    """End a client, or one of its keys, at once and for good; its farms stay."""
    with open_stores(load_settings()) as stores:
        with stores.engine.begin() as connection:
            outdated = revoke_client(connection, name) if key is None else revoke_key(connection, name, key)
        is_told = _announce(stores, outdated)
    if as_json:
        _print_json({"client": name, "key": key, "is_at_once": is_told})
        return
    Console(highlight=False).print(f"{name} is revoked." if key is None else f"That key of {name} is revoked.")


def _announce(stores: Stores, outdated: Outdated) -> bool:
    """Tell the workers; False, with a word on standard error, when Redis cannot carry it."""
    try:
        announce(stores.redis, outdated)
    except RedisError as error:
        sys.stderr.write(
            f"swath: stored, but Redis does not answer ({error}): workers that had asked may believe the old state "
            "for a minute after it is back\n"
        )
        return False
    return True


def _new(key: NewKey) -> dict[str, Any]:
    return {"kind": key.kind, "prefix": key.prefix, "key_id": key.key_id, "secret": key.secret}


def _show(keys: list[NewKey] | tuple[NewKey, ...]) -> None:
    """Print new keys, each on a line of its own so that it can be copied whole."""
    for key in keys:
        if key.kind == API:
            typer.echo(f"API key (X-API-Key):        {key.secret}")
        else:
            typer.echo(f"Signing key (X-Swath-Key):  {key.key_id}")
            typer.echo(f"Secret to sign with:        {key.secret}")
    typer.echo("Keep them now: no secret is stored, and none is shown again.")


def _named(client: Client) -> str:
    return client.name + (" (revoked)" if client.revoked_at else "")


def _told(key: Key) -> str:
    ends = f" until {key.expires_at:%Y-%m-%d %H:%M %Z}" if key.expires_at else ""
    return f"{key.kind} {key.prefix}" + (" revoked" if key.revoked_at else ends)


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())
