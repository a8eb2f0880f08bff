"""What the contract says in words, and what is the same for every route."""

from __future__ import annotations

from typing import Any

from serving.signatures import EXPECTED

INTRODUCTION = """\
How farms looked from Sentinel-2 and what the weather did there, answered in milliseconds from what was computed before.

**The envelope.** Every JSON answer is `{"status", "message", "data", "errors"}`. `status` is `success`; `processing` \
where what is asked for is not there yet (202, with `Retry-After`); or `error`. `message` is a sentence for people. \
`errors` names each field that was wrong, what was wrong with it and what is allowed; it is null where nothing was.

**Who is calling.** An API key in `X-API-Key`, or a token in `Authorization: Bearer`. A client sees its own farms and \
no others: a farm of somebody else is answered like one that does not exist.

**Times** are RFC 3339 in UTC; days are `YYYY-MM-DD`. **Lists** page by an opaque cursor: give back `next_cursor` (of \
changes, `next` as `since`), or follow the `Link` header.

**Asking again.** Every read has an `ETag`; with `If-None-Match` an answer that did not change is 304 and has no body. \
HEAD is answered wherever GET is.

**Limits.** `RateLimit` and `RateLimit-Policy` tell how many requests are left. 429 and 503 carry `Retry-After` in \
seconds; whatever else goes wrong, `X-Request-ID` is what to name when you ask about it.

Within version 1, fields and routes may be added; none is taken away or changes its meaning."""

TAGS = {
    "farms": "The registry: which farms there are, and where they lie.",
    "ndvi": "How farms looked: state, series, newest observation.",
    "weather": "What the weather was, is and will be, each value with who told it.",
    "changes": "What changed since: one request brings a client up to date.",
    "integrations": "One shared token for all processes of an application, such as a Nextcloud app.",
    "operation": "For load balancers and people.",
}

SECURITY: dict[str, Any] = {
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`swk_…`, as `swath clients create NAME` shows it once.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of `POST /api/v1/integrations/token`, or one of an issuer that the operator trusts.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Swath-Signature",
        "description": "HMAC-SHA256, in hexadecimal, with the secret of a signing key (`swath clients create NAME "
        "--hmac`) over five lines joined by line feeds: method, path with query, timestamp, nonce, SHA-256 of the "
        "body in hexadecimal. It counts within 300 s of its timestamp, and once.",
    },
}


def _header(words: str, *, is_required: bool = False, **schema: Any) -> dict[str, Any]:
    required = {"required": True} if is_required else {}
    return {"description": words, **required, "schema": {"type": "string", **schema}}


HEADERS: dict[str, Any] = {
    "X-Request-ID": _header(
        "Names this request in our logs: the caller's own `X-Request-ID` where that is 8 to 64 letters, digits, dots, "
        "dashes or underscores.",
        is_required=True,
    ),
    "ETag": _header("Another one whenever the answer is; weak where it is compressed."),
    "Link": _header('Where there is a next page: `<…>; rel="next"`.'),
    "Location": _header("Where the new farm is."),
    "RateLimit": _header('Requests left, and seconds until there are more: `"requests";r=5998;t=60`.'),
    "RateLimit-Policy": _header('Requests that are allowed in a window of seconds: `"requests";q=6000;w=60`.'),
    "Retry-After": _header("Seconds until it is worth asking again.", is_required=True, pattern="^[0-9]+$"),
    "WWW-Authenticate": _header("How to show who is calling.", is_required=True),
}

EVERYWHERE = ("X-Request-ID",)
"""Headers of every answer."""

PARAMETERS: dict[str, Any] = {
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "The `ETag` of the answer that the caller has: 304 if it is still the same.",
        "schema": {"type": "string"},
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "description": "The `ETag` of the farm as the caller knows it: 412 if it has changed since.",
        "schema": {"type": "string"},
    },
}

_PATTERNS = {
    "x-swath-key": "^swh_[0-9a-f]{12}$",
    "x-swath-timestamp": "^[0-9]{1,12}$",
    "x-swath-nonce": "^[A-Za-z0-9_-]{16,64}$",
    "x-swath-signature": "^[0-9a-f]{64}$",
}

SIGNATURE_PARAMETERS: tuple[dict[str, Any], ...] = tuple(
    {
        "name": "-".join(part.capitalize() for part in name.split("-")),
        "in": "header",
        "required": True,
        "description": expected[0].upper() + expected[1:] + ".",
        "schema": {"type": "string", "pattern": _PATTERNS[name]},
    }
    for name, expected in EXPECTED.items()
)

REFUSALS: dict[int, tuple[str, str]] = {
    400: ("Malformed", "The body is not JSON."),
    401: ("Unauthenticated", "Who is calling is not shown, or the credentials are unknown, expired or revoked."),
    403: ("Forbidden", "The caller may not do this: a scope is missing."),
    404: ("NotFound", "There is no such farm, or it is somebody else's."),
    406: ("NotAcceptable", "`Accept` names none of the forms that there are."),
    408: ("TooSlow", "The body did not come within 30 seconds."),
    409: ("Conflict", "It conflicts with what is there."),
    412: ("ChangedSince", "It has changed since the caller read it."),
    413: ("TooLarge", "The body is too large."),
    415: ("UnsupportedMediaType", "The body says to be something else than JSON."),
    422: ("Invalid", "A value is not allowed: `errors` names the field, the problem and what is allowed."),
    429: ("Throttled", "Too many requests."),
    503: ("Unavailable", "A store that is needed does not answer at the moment."),
}
"""Answers that give nothing: their names and when they are given, by status."""
