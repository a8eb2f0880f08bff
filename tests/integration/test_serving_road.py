"""The one road from request to answer: every failure in the envelope, within limits, with an id to name it by."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from pydantic import Field

from serving.bodies import MOST_NESTED, is_flat_enough
from serving.endpoints import CSV, Answer, Call, Endpoint, Strict, etag_of
from serving.health import ENDPOINTS as HEALTH
from serving.negotiation import is_known, preferred
from tests.support.api_workers import Worker, worker


class Thing(Strict):
    name: Annotated[str, Field(min_length=2, max_length=20)]
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    parts: list[Any] = []


async def _make(call: Call[None, None, Thing]) -> Answer:
    return Answer.of({"name": call.body.name}, status=201)


async def _long(_call: Call[None, None, None]) -> Answer:
    answer = Answer.of(["the same again"] * 500)
    return answer.but(etag=etag_of(answer.body))


async def _broken(_call: Call[None, None, None]) -> Answer:
    raise ZeroDivisionError("a secret detail")


async def _either(call: Call[None, None, None]) -> Answer:
    if call.media_type == CSV:
        return Answer(body=b"a,b\r\n", media_type=CSV, has_envelope=False)
    return Answer.of([])


def _endpoint(method: Any, path: str, handler: Any, **more: Any) -> Endpoint:
    return Endpoint(method=method, path=path, handler=handler, summary="", tag="test", scope=None, **more)


ENDPOINTS = (
    *HEALTH,
    _endpoint("POST", "/things", _make, body_model=Thing, most_bytes=1_000),
    _endpoint("GET", "/long", _long),
    _endpoint("GET", "/broken", _broken),
    _endpoint("GET", "/slashed/", _long),
    _endpoint("GET", "/either", _either, media_types=("application/json", CSV)),
)


def run(redis_url: str, database_url: str, told: Callable[[Worker], Awaitable[None]], **settings: Any) -> None:
    async def tell() -> None:
        async with worker(database_url, redis_url, endpoints=ENDPOINTS, **settings) as one:
            await told(one)

    asyncio.run(tell())


def check_error(answer: httpx.Response, status: int, field: str | None) -> None:
    told = answer.json()
    assert (answer.status_code, told["status"], told["data"]) == (status, "error", None)
    assert (told["errors"][0]["field"], bool(told["errors"][0]["problem"])) == (field, True)
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "Traceback" not in answer.text


BAD = [
    (b"", {}, 400, "body"),
    (b"{", {}, 400, "body"),
    (b'{"name": "ab", "share": NaN}', {}, 400, "body"),
    (b'{"name": "\xff\xfe"}', {}, 400, "body"),
    (b"{}", {}, 422, "body.name"),
    (b'{"name": 7}', {}, 422, "body.name"),
    (b'{"name": "a"}', {}, 422, "body.name"),
    (b'{"name": "ab", "share": 1.5}', {}, 422, "body.share"),
    (b'{"name": "ab", "share": 1e999}', {}, 400, "body"),
    (b'{"name": "ab", "colour": 1}', {}, 422, "body.colour"),
    (b'{"name": "ab", "parts": ' + b"[" * 100 + b"]" * 100 + b"}", {}, 422, "body"),
    (b'{"name": "' + b"a" * 2_000 + b'"}', {}, 413, "body"),
    (b"name=ab", {"content-type": "application/x-www-form-urlencoded"}, 415, "header.content-type"),
]


@pytest.mark.parametrize(("body", "headers", "status", "field"), BAD)
def test_bad_bodies_name_what_is_wrong(
    database_url: str, redis_url: str, body: bytes, headers: dict[str, str], status: int, field: str
) -> None:
    async def ask(one: Worker) -> None:
        check_error(await one.http.post("/things", content=body, headers=headers), status, field)

    run(redis_url, database_url, ask)


def test_what_the_framework_would_answer_by_itself_is_in_the_envelope_too(database_url: str, redis_url: str) -> None:
    async def ask(one: Worker) -> None:
        check_error(await one.http.get("/nowhere"), 404, None)
        check_error(await one.http.get("/things/"), 404, None)
        wrong = await one.http.get("/things")
        check_error(wrong, 405, None)
        assert wrong.headers["allow"] == "POST"
        broken = await one.http.get("/broken")
        check_error(broken, 500, None)
        assert "secret detail" not in broken.text
        assert broken.headers["x-request-id"] in broken.json()["message"]
        check_error(await one.http.get("/either", headers={"accept": "image/png"}), 406, "header.accept")
        check_error(await one.http.get("/long?page=2"), 422, "query.page")

        async def trickle() -> Any:
            for _ in range(30):
                yield b" " * 100

        check_error(await one.http.post("/things", content=trickle()), 413, "body")

    run(redis_url, database_url, ask)


def test_a_slash_that_was_forgotten_makes_no_difference(database_url: str, redis_url: str) -> None:
    async def ask(one: Worker) -> None:
        documented, forgotten = await one.http.get("/slashed/"), await one.http.get("/slashed")
        assert (documented.status_code, forgotten.status_code) == (200, 200)
        assert forgotten.content == documented.content
        wrong = await one.http.delete("/slashed")
        check_error(wrong, 405, None)
        assert wrong.headers["allow"] == "GET, HEAD"
        check_error(await one.http.get("/slashed//"), 404, None)

    run(redis_url, database_url, ask)


def test_a_given_request_id_is_kept_if_it_is_harmless(database_url: str, redis_url: str) -> None:
    async def ask(one: Worker) -> None:
        kept = await one.http.get("/healthz", headers={"x-request-id": "from-nextcloud-17"})
        assert kept.headers["x-request-id"] == "from-nextcloud-17"
        other = await one.http.get("/healthz", headers={"x-request-id": 'a"b c;d!efgh'})
        assert re.fullmatch(r"[0-9a-f]{16}", other.headers["x-request-id"])

    run(redis_url, database_url, ask)


def test_long_answers_are_compressed_for_who_can_read_it(database_url: str, redis_url: str) -> None:
    async def ask(one: Worker) -> None:
        async with one.http.stream("GET", "/long", headers={"accept-encoding": "gzip"}) as answer:
            raw = b"".join([part async for part in answer.aiter_raw()])
        plain = await one.http.get("/long", headers={"accept-encoding": "identity"})
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content
        assert answer.headers["etag"] == f"W/{plain.headers['etag']}"
        for tag in (answer.headers["etag"], plain.headers["etag"]):
            same = await one.http.get("/long", headers={"if-none-match": f'"other", {tag}'})
            assert (same.status_code, same.content) == (304, b"")
        small = await one.http.get("/healthz", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in small.headers

    run(redis_url, database_url, ask)


def test_head_is_get_without_the_body(database_url: str, redis_url: str) -> None:
    async def ask(one: Worker) -> None:
        got, head = await one.http.get("/healthz"), await one.http.head("/healthz")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(got.content))

    run(redis_url, database_url, ask)


def test_web_pages_of_other_origins_are_let_in_only_when_set(database_url: str, redis_url: str) -> None:
    preflight = {"origin": "https://cloud.example.org", "access-control-request-method": "GET"}

    async def closed(one: Worker) -> None:
        assert "access-control-allow-origin" not in (await one.http.options("/long", headers=preflight)).headers

    async def opened(one: Worker) -> None:
        answer = await one.http.options("/long", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "https://cloud.example.org"
        other = await one.http.options("/long", headers=preflight | {"origin": "https://elsewhere.example.org"})
        assert "access-control-allow-origin" not in other.headers

    run(redis_url, database_url, closed)
    run(redis_url, database_url, opened, cors_origins=("https://cloud.example.org",))


def test_nesting_is_told_by_brackets_outside_of_strings() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' * depth + b'"]]]}}} \\" [[["' + b"}" * depth

    for depth in (1, MOST_NESTED, MOST_NESTED + 1, 500):
        assert json.loads(nested(depth))
        assert is_flat_enough(nested(depth), MOST_NESTED) == (depth <= MOST_NESTED)
    assert is_flat_enough(json.dumps([[[1, 2], [3]]] * 1_000).encode(), 4)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        (b"*/*", "application/json"),
        (b"text/csv", CSV),
        (b"text/*;q=0.5, application/json;q=0.4", CSV),
        (b"text/csv;q=0, */*", "application/json"),
        (b"image/png, */*;q=0.1", "application/json"),
        (b"text/csv;q=nonsense", None),
        (b"image/png", None),
    ],
)
def test_the_form_is_what_the_caller_likes_best(accept: bytes | None, expected: str | None) -> None:
    assert preferred(accept, ("application/json", CSV)) == expected


def test_tags_are_compared_weakly() -> None:
    assert is_known(b'W/"abc"', "abc")
    assert is_known(b"*", "abc")
    assert not is_known(b'"abcd"', "abc")
    assert not is_known(None, "abc")
