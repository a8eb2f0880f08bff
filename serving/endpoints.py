"""Routes as declarations: what an endpoint takes and gives. Routing, checks and the API document are made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from infra.settings import Settings
from models.principals import READ
from serving.envelope import Word, dumps
from serving.gate import Admission, Fetch
from serving.negotiation import is_known
from serving.principal import Headers, Principal, ScopeKind
from serving.resources import Resources
from serving.trace import Trace

JSON = "application/json"
CSV = "text/csv"
GEOJSON = "application/geo+json"

Method = Literal["GET", "POST", "PATCH", "DELETE"]
P = TypeVar("P")
Q = TypeVar("Q")
B = TypeVar("B")

PRIVATE = "private, no-cache"
"""`Cache-Control` of what one client may see: kept by the client alone, which asks each time whether it changed."""


class Strict(BaseModel):
    """What a caller may send: known fields alone, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)


class Told(BaseModel):
    """What an answer says. A worker makes most of them by hand, so what would check them is not built at its start."""

    model_config = ConfigDict(defer_build=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[P, Q, B]):
    """One request that was let in, its parts checked."""

    resources: Resources
    principal: Principal
    path: P
    query: Q
    body: B
    headers: Headers
    trace: Trace
    media_type: str
    """Which of the endpoint's media types the caller would rather have."""
    raw_body: bytes
    """As it was sent; signatures are over these bytes."""
    raw_path: str
    """Path and query as they were sent."""
    address: str
    """Where the request came from."""
    admission: Admission

    @property
    def request_id(self) -> str:
        """What names this request in answers and logs."""
        return self.trace.request_id

    def has(self, etag: str) -> bool:
        """Whether the caller says that they have what carries this tag."""
        return is_known(self.headers.get(b"if-none-match"), etag)

    @property
    def found(self) -> Any:
        """What the endpoint's `fetch` returned; None where Redis did not answer."""
        return self.admission.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a handler gives; for JSON the body is the data, and the envelope is put around it."""

    body: bytes = b"null"
    status: int = 200
    word: Word = "success"
    message: str = ""
    media_type: str = JSON
    etag: str | None = None
    """Changes when the body does; without quotes."""
    cache_control: str = PRIVATE
    headers: Mapping[str, str] = field(default_factory=dict)
    has_envelope: bool = True
    """False for what is no JSON, or is a document of its own."""
    errors: Sequence[Mapping[str, Any]] | None = None
    """What was wrong with some of many, where others succeeded."""

    @classmethod
    def of(cls, data: Any, **more: Any) -> Answer:
        """An answer that carries a value as JSON."""
        return cls(body=dumps(data), **more)

    def but(self, **changes: Any) -> Answer:
        """The same answer, changed."""
        return dataclasses.replace(self, **changes)


def etag_of(content: bytes) -> str:
    """A tag that is another one whenever the content is."""
    return blake2b(content, digest_size=12).hexdigest()


Handler = Callable[[Call[Any, Any, Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: Method
    path: str
    handler: Handler
    summary: str
    tag: str
    scope: str | None = READ
    """What the caller must be allowed to do; None: anybody may call."""
    throttle: ScopeKind = "anonymous"
    """Whose limit counts for callers that present nothing."""
    is_throttled: bool = True
    """False for what load balancers and scrapers ask: never counted, never refused, and nobody's identity looked at."""
    path_model: Any = None
    query_model: Any = None
    body_model: Any = None
    """Type that pydantic can check, a model or a union of them; None: there is none."""
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Type of `data` by status, for the API document."""
    documents: Mapping[str, Any] = field(default_factory=dict)
    """Type of the whole answer by media type, where that is no envelope; None: plain text."""
    refusals: Mapping[int, str] = field(default_factory=dict)
    """When it refuses, by status, beside what is refused everywhere."""
    media_types: tuple[str, ...] = (JSON,)
    """What a caller may ask for by `Accept`; the first is given when they do not mind."""
    most_bytes: int = 65_536
    """Largest body."""
    fetch: Callable[[Any], Fetch] | None = None
    """What is wanted from Redis, by the checked path: it comes together with the caller's record."""
    query_fetch: Callable[[Any, Any, Settings], Fetch | None] | None = None
    """The same by path, query and settings, where the path alone does not say it."""
    has_raw_body: bool = False
    """The body is signed: it is read, and checked by the handler."""
