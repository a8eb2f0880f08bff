"""Around every request: its id, the time it took, a log line, security headers, and no failure without an answer."""

from __future__ import annotations

import logging
import re
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answering import failure
from serving.faults import ApiError
from serving.trace import Trace, current

log = structlog.get_logger(__name__)

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
)
"""On every answer; a page that needs another policy says so itself."""

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that are asked every few seconds: logged only when they fail."""


class Frame:
    """Pure ASGI middleware, outermost of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = scope["swath.trace"] = _trace(scope)
        token = current.set(trace)
        sender = _Sender(scope, send, trace)
        try:
            await self._app(scope, receive, sender)
        except ClientDisconnect:
            log.info("caller went away", request_id=trace.request_id, path=scope["path"])
            return
        except Exception as error:  # whatever it is, the caller gets an answer and an id to name it by
            if sender.status:
                raise
            await _tell(sender, _as_api_error(error, trace, scope))
        finally:
            current.reset(token)
        _count(scope, trace, sender)
        _log(scope, trace, sender)


class _Sender:
    """Puts our headers on the answer, and remembers how it came out."""

    def __init__(self, scope: Scope, send: Send, trace: Trace) -> None:
        self.status = 0
        self.size = 0
        self._scheme = scope.get("scheme")
        self._send = send
        self._trace = trace

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            named = {name for name, _ in headers}
            headers += [header for header in SECURITY_HEADERS if header[0] not in named]
            if self._scheme == "https":
                headers.append((b"strict-transport-security", b"max-age=31536000"))
            headers += [
                (b"x-request-id", self._trace.request_id.encode()),
                (b"server-timing", _server_timing(self._trace)),
            ]
            message["headers"] = headers
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
        await self._send(message)


def _trace(scope: Scope) -> Trace:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GIVEN_ID.fullmatch(value):
            return Trace(request_id=value.decode())
    return Trace()


def _server_timing(trace: Trace) -> bytes:
    times = {**trace.times, "total": time.perf_counter() - trace.started_at}
    told = [f"{name};dur={seconds * 1000:.2f}" for name, seconds in times.items()]
    if trace.cache is not None:
        told.append(f'cache;desc="{trace.cache}"')
    return ", ".join(told).encode()


def _as_api_error(error: Exception, trace: Trace, scope: Scope) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        detail = "there is nothing at this path" if error.status_code == 404 else str(error.detail)
        return ApiError(error.status_code, detail, headers=dict(error.headers or {}))
    log.error("request failed", request_id=trace.request_id, path=scope["path"], exc_info=error)
    return ApiError(500, f"something went wrong here that should not; it is noted as {trace.request_id}")


async def _tell(sender: _Sender, error: ApiError) -> None:
    status, headers, body = failure(error)
    await sender({"type": "http.response.start", "status": status, "headers": headers})
    await sender({"type": "http.response.body", "body": body})


def _count(scope: Scope, trace: Trace, sender: _Sender) -> None:
    resources = scope.get("state", {}).get("resources")
    if resources is not None:
        seconds = time.perf_counter() - trace.started_at
        resources.counts.note_request(
            trace.route, scope["method"], status=sender.status, seconds=seconds, cache=trace.cache
        )


def _log(scope: Scope, trace: Trace, sender: _Sender) -> None:
    if trace.route in QUIET and sender.status < 500:
        return
    bound = log.bind()
    if not bound.is_enabled_for(logging.INFO):
        return
    bound.info(
        "request",
        request_id=trace.request_id,
        method=scope["method"],
        route=trace.route or "none",
        status=sender.status,
        ms=round((time.perf_counter() - trace.started_at) * 1000, 2),
        bytes=sender.size,
        client=trace.client,
        cache=trace.cache,
    )
