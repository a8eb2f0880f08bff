"""Figures as text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One figure, for each set of labels."""

    name: str
    kind: Kind
    told: str
    """What it is, in one line."""
    samples: Sequence[tuple[Mapping[str, str], float]]
    is_since: bool = False
    """The values are instants, in seconds since 1970; told is how long ago they were."""
    buckets: Sequence[tuple[Mapping[str, str], Sequence[tuple[str, float]], float]] = ()
    """For a histogram: labels, count up to each upper end and in all, and sum."""

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Family:
        """The family that `as_json` told of."""
        return cls(**given)


def lines(families: Iterable[Family], *, now: float) -> Iterator[str]:
    """Lines of text; families without samples are left out.

    Args:
        families: what to tell.
        now: seconds since 1970.
    """
    for family in families:
        if not family.samples and not family.buckets:
            continue
        yield from head(family.name, family.kind, family.told)
        for labels, value in family.samples:
            told = max(0.0, now - value) if family.is_since else value
            yield f"{family.name}{labelled(labels)} {number(told)}"
        for labels, ends, total in family.buckets:
            for end, count in ends:
                yield f"{family.name}_bucket{labelled({**labels, 'le': end})} {number(count)}"
            yield f"{family.name}_sum{labelled(labels)} {number(total)}"
            yield f"{family.name}_count{labelled(labels)} {number(ends[-1][1])}"


def head(name: str, kind: Kind, told: str) -> tuple[str, str]:
    """The two lines before a family's samples."""
    return f"# HELP {name} {told}", f"# TYPE {name} {kind}"


def labelled(labels: Mapping[str, str]) -> str:
    """Labels in braces; nothing when there are none."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def number(value: float) -> str:
    """A number without needless digits."""
    return str(int(value)) if value == int(value) else f"{value:.9g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
