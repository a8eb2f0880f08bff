"""From a request to its answer: the one road that every endpoint takes."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from models.errors import BadInput
from serving.bodies import read_body, read_json, read_query
from serving.database import DatabaseAway
from serving.endpoints import JSON, Answer, Call, Endpoint
from serving.envelope import envelope
from serving.faults import ApiError, FieldError, Place, from_bad_input, from_validation, unavailable
from serving.gate import Admission, Fetch
from serving.negotiation import is_known, preferred, takes_gzip
from serving.principal import ANYBODY, UNAUTHENTICATED, Headers, Principal
from serving.resources import Resources
from serving.trace import Trace

LEAST_GZIPPED = 1_400
"""Bytes: what fits into one packet gains nothing."""

GZIPPED_ASIDE = 100_000
"""Bytes above which compressing is done in a thread."""

FREE = Admission(ANYBODY, None, None, False)
"""For endpoints at which nobody is counted."""


class Path:
    """All endpoints of one path, as an ASGI app."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.template = endpoints[0].path
        self._ways = {each.method: _Way(each) for each in endpoints}
        self._allowed = ", ".join(sorted({*self._ways, *(["HEAD"] if "GET" in self._ways else [])}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        trace: Trace = scope["swath.trace"]
        trace.route = self.template
        method = scope["method"]
        way = self._ways.get("GET" if method == "HEAD" else method)
        if way is None:
            raise ApiError(
                405, f"{method} is not allowed here; allowed: {self._allowed}", headers={"allow": self._allowed}
            )
        status, headers, body = await way.answer(scope, receive, trace)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


class _Way:
    """One endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._path = _adapter(endpoint.path_model)
        self._query = _adapter(endpoint.query_model)
        self._body = _adapter(endpoint.body_model)

    async def answer(
        self, scope: Scope, receive: Receive, trace: Trace
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Let the caller in, check what was sent, have it handled, and give status, headers and bytes."""
        resources: Resources = scope["state"]["resources"]
        headers: Headers = dict(scope["headers"])
        path, query, wrong = None, None, None
        try:
            path = _checked(self._path, scope["path_params"], "path")
            query = _checked(self._query, read_query(scope["query_string"]), "query")
        except ApiError as error:
            wrong = error  # told only to callers who are let in
        fetch = None if wrong else self._fetch(path, query, resources)
        address = scope["client"][0] if scope.get("client") else "local"
        admission = await self._admitted(resources, headers, fetch, address)
        trace.client = admission.principal.name
        self._check_scope(admission.principal, is_anonymous=admission.principal is ANYBODY)
        if wrong is not None:
            raise wrong
        media_type = preferred(headers.get(b"accept"), self._endpoint.media_types)
        if media_type is None:
            offered = ", ".join(self._endpoint.media_types)
            raise ApiError(
                406, f"this comes as {offered}", [FieldError("header.accept", "asks for none of these", offered)]
            )
        raw, body = await self._read(receive, headers)
        call = Call(
            resources=resources,
            principal=admission.principal,
            path=path,
            query=query,
            body=body,
            headers=headers,
            trace=trace,
            media_type=media_type,
            raw_body=raw,
            raw_path=_as_sent(scope),
            address=address,
            admission=admission,
        )
        try:
            answer = await self._endpoint.handler(call)
        except BadInput as error:
            raise from_bad_input(error, "query" if self._body is None else "body") from error
        except DatabaseAway as error:
            raise unavailable("what is stored") from error
        return await _finished(answer, call, len(self._endpoint.media_types) > 1)

    def _fetch(self, path: Any, query: Any, resources: Resources) -> Fetch | None:
        endpoint = self._endpoint
        if endpoint.query_fetch is not None:
            return endpoint.query_fetch(path, query, resources.settings)
        return endpoint.fetch(path) if endpoint.fetch is not None else None

    async def _admitted(self, resources: Resources, headers: Headers, fetch: Fetch | None, address: str) -> Admission:
        endpoint = self._endpoint
        if not endpoint.is_throttled:
            return FREE
        try:
            presented = resources.gate.doorkeeper.presented(headers) if endpoint.scope is not None else None
            return await resources.gate.admit(presented, kind=endpoint.throttle, address=address, fetch=fetch)
        except DatabaseAway as error:
            raise unavailable("what tells who is calling") from error

    def _check_scope(self, principal: Principal, *, is_anonymous: bool) -> None:
        scope = self._endpoint.scope
        if scope is None or principal.has(scope):
            return
        if is_anonymous:
            message = "show who you are by X-API-Key or Authorization: Bearer"
            raise ApiError(401, message, headers=UNAUTHENTICATED)
        raise ApiError(403, f"this needs the scope {scope}, which {principal.name} does not have")

    async def _read(self, receive: Receive, headers: Headers) -> tuple[bytes, Any]:
        if self._body is None and not self._endpoint.has_raw_body:
            return b"", None
        raw = await read_body(receive, headers, most_bytes=self._endpoint.most_bytes)
        if self._body is None:
            return raw, None
        return raw, _checked(self._body, read_json(raw, headers), "body")


def _adapter(model: Any) -> TypeAdapter[Any] | None:
    return None if model is None else TypeAdapter(model)


def _checked(adapter: TypeAdapter[Any] | None, given: Any, place: Place) -> Any:
    if adapter is None:
        if given and place == "query":
            unknown = [FieldError(f"query.{name}", "is not a known parameter", "none") for name in given]
            raise ApiError(422, f"{unknown[0].field}: {unknown[0].problem}", unknown)
        return None
    try:
        return adapter.validate_python(given)
    except ValidationError as error:
        raise from_validation(error, place) from None
    except BadInput as error:
        raise from_bad_input(error, place) from None


def _as_sent(scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    return bytes(raw + b"?" + query if query else raw).decode("latin-1")


async def _finished(
    answer: Answer, call: Call[Any, Any, Any], has_choice: bool
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = [
        (b"cache-control", answer.cache_control.encode()),
        (
            b"vary",
            b"accept, accept-encoding, authorization, x-api-key"
            if has_choice
            else b"accept-encoding, authorization, x-api-key",
        ),
        *((name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()),
    ]
    if call.admission.taken is not None:
        headers += call.admission.taken.headers()
    if answer.status == 200 and is_known(call.headers.get(b"if-none-match"), answer.etag):
        call.resources.counts.not_modified += 1
        return 304, [*headers, (b"etag", b'"%b"' % (answer.etag or "").encode())], b""
    body = answer.body
    if answer.has_envelope:
        body = envelope(answer.word, answer.message, data=body, errors=answer.errors)
    is_gzipped = len(body) >= LEAST_GZIPPED and takes_gzip(call.headers.get(b"accept-encoding"))
    if is_gzipped:
        body = await _gzipped(body)
        headers.append((b"content-encoding", b"gzip"))
    if answer.etag is not None:
        # Other bytes than without compression, so no strong tag may name both.
        headers.append((b"etag", b'%b"%b"' % (b"W/" if is_gzipped else b"", answer.etag.encode())))
    headers += [(b"content-type", answer.media_type.encode()), (b"content-length", b"%d" % len(body))]
    return answer.status, headers, body


async def _gzipped(body: bytes) -> bytes:
    if len(body) < GZIPPED_ASIDE:
        return gzip.compress(body, 5, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, 5, mtime=0)


def failure(error: ApiError, *, more: Mapping[str, str] | None = None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """An error as status, headers and bytes, in the envelope."""
    body = envelope("error", error.message, errors=error.listed())
    headers = {"content-type": JSON, "content-length": str(len(body)), "cache-control": "no-store"}
    headers |= {**error.headers, **(more or {})}
    return error.status, [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()], body
