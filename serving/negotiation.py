"""Which of several forms of an answer the caller would rather have, and whether they have it already."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(accept: bytes | None, offered: Sequence[str]) -> str | None:
    """The media type that a caller likes best, the first offered among equals; None when they take none of them."""
    if not accept:
        return offered[0]
    wanted = _ranges(accept.decode("latin-1"))
    best, best_quality = None, 0.0
    for each in offered:
        quality = _quality(each, wanted)
        if quality > best_quality:
            best, best_quality = each, quality
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    quality = 0.0
        found.append((name, quality))
    return found


def _quality(media_type: str, wanted: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that fits says of it."""
    group = media_type.partition("/")[0] + "/*"
    for name in (media_type, group, "*/*"):
        fitting = [quality for each, quality in wanted if each == name]
        if fitting:
            return max(fitting)
    return 0.0


def takes_gzip(accept_encoding: bytes | None) -> bool:
    """Whether a caller can read gzip."""
    if not accept_encoding:
        return False
    return any(name in {"gzip", "*"} and quality > 0 for name, quality in _ranges(accept_encoding.decode("latin-1")))


def is_known(if_none_match: bytes | None, etag: str | None) -> bool:
    """Whether a caller says that they have what carries this tag; weak or not makes no difference here."""
    if not if_none_match or etag is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.decode("latin-1").split(",")]
    return f'"{etag}"' in tags or tags == ["*"]
