"""One small tree of errors, each marked as worth another try or not.

A caller asks two questions of an error: may the same call succeed later (`is_retryable`), and what should a
person do about it (the message). Cloud, nodata and "outside the scene" are answers, never errors.
"""

from __future__ import annotations

import datetime as dt


class SwathError(Exception):
    """Something went wrong that a caller can act on; the message says what, where, and what to do."""

    is_retryable = False


class BadInput(SwathError):
    """What the user gave cannot be used. Names the field and what is allowed; nothing was changed."""

    def __init__(self, field: str, problem: str, *, allowed: str | None = None) -> None:
        self.field = field
        self.problem = problem
        self.allowed = allowed
        super().__init__(f"{field}: {problem}" + (f"; allowed: {allowed}" if allowed else ""))


class ServerTrouble(SwathError):
    """A server of our own (Postgres, Valkey, Prefect) could not be started, reached or used."""


class ClusterTrouble(ServerTrouble):
    """The Dask cluster lost a worker or the connection: the same work may succeed on the others."""

    is_retryable = True


class DataDirectoryTooNew(ServerTrouble):
    """The data directory was written by a newer server than the one installed here."""


class UpstreamError(SwathError):
    """A service outside of Swath did not give what was asked of it."""

    def __init__(self, source: str, problem: str, *, url: str | None = None) -> None:
        self.source = source
        self.problem = problem
        self.url = url
        super().__init__(f"{source}: {problem}" + (f" ({url})" if url else ""))


class UpstreamUnavailable(UpstreamError):
    """The service is down, slow, overloaded or cut the answer short: the same request may succeed later."""

    is_retryable = True


class UpstreamMissing(UpstreamError):
    """The service answered that the thing does not exist (404): it may be published later, but not in a moment."""


class UpstreamRejected(UpstreamError):
    """The service refused the request (other 4xx): asking again the same way cannot help."""


class UpstreamExhausted(UpstreamError):
    """The service's allowance is used up: asking again before `until` cannot help; waiting is the caller's choice."""

    def __init__(self, source: str, problem: str, *, until: dt.datetime, url: str | None = None) -> None:
        super().__init__(source, f"{problem}; may go on at {until:%Y-%m-%d %H:%M} UTC", url=url)
        self.until = until


class UpstreamUnreadable(UpstreamError):
    """The service answered with something that is not what it claims to be."""


class ItemUnusable(SwathError):
    """A catalog item lacks something that reading it needs. It is recorded as skipped, with this reason."""


class SceneIncomplete(SwathError):
    """Some farms of a scene could not be answered; those that could are saved. Another try asks for the rest."""

    def __init__(self, message: str, *, failed: int, is_retryable: bool) -> None:
        super().__init__(message)
        self.failed = failed
        self.is_retryable = is_retryable
