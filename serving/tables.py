"""Answers as tables, and the way to their next page."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode


def csv_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV in UTF-8, with a line of names; lists by spaces, instants as RFC 3339, nothing for what is absent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        value = " ".join(map(str, value))
    # A spreadsheet runs a cell that begins like a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def next_link(raw_path: str, cursor: str | None, *, name: str = "cursor") -> dict[str, str]:
    """The `Link` header to the next page of a list, for readers of what has no place for a cursor."""
    if cursor is None:
        return {}
    path, _, query = raw_path.partition("?")
    kept = [(each, value) for each, value in parse_qsl(query, keep_blank_values=True) if each != name]
    return {"link": f'<{path}?{urlencode([*kept, (name, cursor)])}>; rel="next"'}
