"""Logs tell what happened, and keep secrets to themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from infra.telemetry import redact, set_up_logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no address here: user@example.org, 12:30", "no address here: user@example.org, 12:30"),
        ("postgresql://me:hunter2@db:5432/swath", "postgresql://me:***@db:5432/swath"),
        (
            "postgresql+psycopg://me:hunter2@db/swath?sslmode=require",
            "postgresql+psycopg://me:***@db/swath?sslmode=require",
        ),
        ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
        ("rediss://app:hunt@er2@cache/0", "rediss://app:***@cache/0"),
        ("postgresql://me:hunt/er2@db/swath", "postgresql://me:***@db/swath"),
        ("'redis://:one@a/0' and 'redis://:two@b/0'", "'redis://:***@a/0' and 'redis://:***@b/0'"),
        ("http://127.0.0.1:8080/a?mail=me@example.org", "http://127.0.0.1:8080/a?mail=me@example.org"),
        ("postgresql://db/swath?user=me&password=hunter2", "postgresql://db/swath?user=me&password=***"),
        (
            "https://x.blob.core.windows.net/a.tif?se=2026&sig=hunter2&sp=rl",
            "https://x.blob.core.windows.net/a.tif?se=2026&sig=***&sp=rl",
        ),
        (
            "https://s3/a.tif?X-Amz-Credential=AKIA&X-Amz-Date=20260101&X-Amz-Security-Token=hunter2&X-Amz-Signature=ff00",
            "https://s3/a.tif?X-Amz-Credential=***&X-Amz-Date=20260101&X-Amz-Security-Token=***&X-Amz-Signature=***",
        ),
        ("https://api.example.org/v1?apikey=hunter2", "https://api.example.org/v1?apikey=***"),
        ("https://api.example.org/v1?ACCESS_TOKEN=hunter2 (503)", "https://api.example.org/v1?ACCESS_TOKEN=*** (503)"),
    ],
)
def test_secrets_are_taken_out_of_addresses_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    level = logging.getLogger("rasterio").level
    yield
    structlog.reset_defaults()
    logging.getLogger("rasterio").setLevel(level)


@pytest.mark.parametrize("as_json", [True, False])
def test_events_and_tracebacks_come_without_secrets(
    logging_as_before: None, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    set_up_logs("INFO", as_json=as_json)
    log = structlog.get_logger("test")
    log.debug("too fine")
    log.info("imagery not read", url="https://files/a.tif?sig=hunter2", status=503)
    try:
        raise ConnectionError("postgresql://me:hunter2@db/swath is gone")
    except ConnectionError as error:
        log.error("scene failed", exc_info=error)
    out, written = capsys.readouterr()
    assert out == ""
    assert "hunter2" not in written
    assert "too fine" not in written
    assert all(word in written for word in ("imagery not read", "sig=***", "Traceback", "://me:***@db"))
    if as_json:
        first, second = map(json.loads, written.splitlines())
        assert (first["event"], first["level"], first["status"]) == ("imagery not read", "info", 503)
        assert "ConnectionError" in second["exception"]
