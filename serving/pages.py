"""The contract for programs and for people: `/openapi.json`, and `/docs`, which needs nothing from anywhere else."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import orjson

from serving.docs_page import CONTENT_SECURITY_POLICY, page
from serving.endpoints import JSON, Answer, Call, Endpoint, etag_of

COMMITTED = Path(__file__).with_name("openapi.json")
"""The contract. See `serving.openapi`, which makes it."""

HTML = "text/html"

KEPT = "public, max-age=300"
"""`Cache-Control`: it changes with the software."""

PlainCall = Call[None, None, None]


@functools.cache
def _document() -> tuple[bytes, str]:
    """The document as it was committed, and its tag."""
    body = orjson.dumps(orjson.loads(COMMITTED.read_bytes()))
    return body, etag_of(body)


@functools.cache
def _page() -> tuple[bytes, str]:
    body = page(orjson.loads(COMMITTED.read_bytes())).encode()
    return body, etag_of(body)


async def openapi(_call: PlainCall) -> Answer:
    """Give this document."""
    body, etag = _document()
    return Answer(body=body, etag=etag, cache_control=KEPT, has_envelope=False)


async def docs(_call: PlainCall) -> Answer:
    """Give this document as a page for people."""
    body, etag = _page()
    return Answer(
        body=body,
        media_type=f"{HTML}; charset=utf-8",
        etag=etag,
        cache_control=KEPT,
        has_envelope=False,
        headers={"content-security-policy": CONTENT_SECURITY_POLICY},
    )


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=openapi,
        summary="This contract for programs",
        tag="operation",
        scope=None,
        answers={200: None},
        documents={JSON: dict[str, Any]},
    ),
    Endpoint(
        method="GET",
        path="/docs",
        handler=docs,
        summary="This contract for people",
        tag="operation",
        scope=None,
        answers={200: None},
        documents={HTML: None},
        media_types=(HTML,),
    ),
)
