"""Everything that can go wrong with a request, as one kind of answer: which field, what was wrong, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from models.errors import BadInput

MOST_ERRORS = 50
"""Errors that one answer lists."""

RETRY_AFTER_S = 5
"""When a caller may come back after a store was away."""

Place = Literal["path", "query", "body", "header"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    """As `query.limit` or `body.geometry.coordinates[0]`; `body` alone for the whole."""
    problem: str
    allowed: str | None = None


class ApiError(Exception):
    """A request that gets no success: status, a sentence for people, and the fields concerned."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.code = code
        """One word for programs, e.g. `not_found`; None for the usual one of the status."""
        super().__init__(message)

    def listed(self) -> list[dict[str, Any]]:
        """The errors as the envelope carries them; never empty."""
        code = self.code or _CODES.get(self.status, "error")
        return [{"code": code, **asdict(error)} for error in self.errors] or [
            {"code": code, "field": None, "problem": self.message, "allowed": None}
        ]


_CODES = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "throttled",
    500: "internal",
    503: "unavailable",
}


def invalid(errors: Sequence[FieldError]) -> ApiError:
    """The answer to values that are not allowed."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ApiError(422, f"{first.field}: {first.problem}{more}", errors)


def unavailable(what: str, *, retry_after_s: int = RETRY_AFTER_S) -> ApiError:
    """The answer when a store that is needed for it is away."""
    return ApiError(
        503, f"{what} is not available at the moment; try again soon", headers={"retry-after": str(retry_after_s)}
    )


def from_bad_input(error: BadInput, place: Place) -> ApiError:
    """Input that the domain refused, told as any other."""
    return invalid([FieldError(f"{place}.{error.field}", error.problem, error.allowed)])


def from_validation(error: ValidationError, place: Place) -> ApiError:
    """What pydantic found wrong, without repeating what was sent."""
    found = error.errors(include_url=False, include_input=False)
    return invalid(list(_told(found[:MOST_ERRORS], place)))


def _told(found: Sequence[ErrorDetails], place: Place) -> Iterator[FieldError]:
    for each in found:
        field = place + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"])
        context = each.get("ctx", {})
        yield FieldError(
            field, _PROBLEMS.get(each["type"], each["msg"].removeprefix("Value error, ")), _allowed(context)
        )


_PROBLEMS = {
    "extra_forbidden": "is not a known field",
    "missing": "is required",
    "uuid_parsing": "is not a UUID",
    "uuid_type": "is not a UUID",
}

_WORDS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "what matches {}",
    "expected": "{}",
    "allowed": "{}",
}


def _allowed(context: Mapping[str, Any]) -> str | None:
    """What is allowed, as far as pydantic knows; a validator of ours says it as `allowed` in its error's context."""
    words = [words.format(context[name]) for name, words in _WORDS.items() if name in context]
    return ", ".join(words) or None
