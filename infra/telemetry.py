"""Logs: events with fields, on standard error, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from infra.settings import Settings
from infra.unknown_settings import words_of_unknown_settings

# Up to the last @, because people write passwords with @ and / in them without escaping these. A port is no password.
_PASSWORD = re.compile(r"(://[^/\s:@]*:)(?!\d{1,5}[/?#])\S+@")
# Also the long names: X-Amz-Signature, X-Amz-Security-Token, subscription-key, access_token.
_SECRET = re.compile(r"([?&][\w.-]*(?:sig|signature|token|key|password|secret|credential)=)[^&\s\"']+", re.IGNORECASE)


def redact(text: str) -> str:
    """Take passwords and signatures out of the addresses in a text."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def _redact_event(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def ensure_logs(settings: Settings) -> None:
    """Set logs up as the settings say, unless that was done: a flow runs in a process of Prefect or in a command's.

    A process of Prefect is then told of variables that look like settings and are none; commands do that themselves.
    """
    if not structlog.is_configured():
        set_up_logs(settings.log_level, as_json=settings.log_json)
        for words in words_of_unknown_settings():
            structlog.get_logger(__name__).warning(words)


def set_up_logs(level: str, *, as_json: bool) -> None:
    """Write log events of this process to standard error, so that standard output is for answers alone."""
    number = logging.getLevelNamesMapping()[level]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # before secrets are taken out: tracebacks hold addresses too
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # looked up for each logger: it may be replaced
        cache_logger_on_first_use=False,
    )
    # GDAL's own words for a failed read; we say it once, with the address and what follows from it.
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
