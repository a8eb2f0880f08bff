"""The command line: starts, migrates, inspects; may import anything.

Exit codes: 0 done, 1 some of the work failed or a server is in trouble, 2 bad input, 130 and 143 interrupted.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from infra.cli.backfill import backfill
from infra.cli.clients import app as clients_app
from infra.cli.demo import demo
from infra.cli.deploy import deploy
from infra.cli.explain import explain
from infra.cli.export import app as export_app
from infra.cli.farms import app as farms_app
from infra.cli.interrupts import EXIT_CODES, end_soon_when_told
from infra.cli.ndvi import app as ndvi_app
from infra.cli.serve import serve
from infra.cli.status import status
from infra.cli.up import up
from infra.cli.weather import app as weather_app
from infra.settings import load_settings
from infra.telemetry import redact, set_up_logs
from infra.unknown_settings import words_of_unknown_settings
from models.errors import BadInput, SwathError

app = typer.Typer(
    name="swath",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Every farm, every day: NDVI from Sentinel-2 by scene, answers by farm.",
)
app.add_typer(farms_app, name="farms")
app.add_typer(ndvi_app, name="ndvi")
app.add_typer(weather_app, name="weather")
app.add_typer(export_app, name="export")
app.add_typer(clients_app, name="clients")
app.command("backfill")(backfill)
app.command("status")(status)
app.command("explain")(explain)
app.command("demo")(demo)
app.command("serve")(serve)
app.command("deploy")(deploy)
app.command("up")(up)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"swath {version('swath')}")
        raise typer.Exit


@app.callback()
def _global(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del show_version
    for words in words_of_unknown_settings():
        sys.stderr.write(f"swath: {words}\n")
    settings = load_settings()
    # A person at a terminal wants the answer; what flows log by default is asked for by naming the level.
    level = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    set_up_logs(level, as_json=settings.log_json)


def _write_all_letters() -> None:
    """Write UTF-8 to files and programs; for what a terminal cannot show write a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def main() -> None:
    """Run the command line; every error that a user can act on is one sentence on standard error."""
    end_soon_when_told()
    _write_all_letters()
    try:
        app()
    except BadInput as error:
        sys.stderr.write(f"swath: {redact(str(error))}\n")
        sys.exit(2)
    except SwathError as error:
        sys.stderr.write(f"swath: {redact(str(error))}\n")
        sys.exit(1)
    except OperationalError as error:
        sys.stderr.write(f"swath: the database does not answer any more: {redact(str(error.orig))}\n")
        sys.exit(1)
    except OSError as error:
        sys.stderr.write(f"swath: {redact(str(error))}\n")  # such as a full disk, or a file that may not be read
        sys.exit(1)
    except SystemExit as end:
        if end.code in EXIT_CODES.values():
            sys.stderr.write("swath: interrupted; what was saved stays, the rest is done at the next run\n")
        raise
