"""Schemas of what callers send and are given, made by pydantic from the models that check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from serving.endpoints import Endpoint

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

REF = "#/components/schemas/{model}"


class Problem(BaseModel):
    """What was wrong."""

    code: str
    field: str | None
    problem: str
    allowed: str | None


class Schemas:
    """Schemas of all models, those used in several places named once."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        wanted = [(Problem, "serialization"), *_wanted(endpoints)]
        unique: dict[tuple[str, str], tuple[Any, Mode]] = {}
        for model, mode in wanted:
            unique[repr(model), mode] = model, mode
        found, rest = TypeAdapter.json_schemas(
            [(key, mode, TypeAdapter(model)) for key, (model, mode) in unique.items()], ref_template=REF
        )
        self._found = {key: _tidy(schema) for (key, _), schema in found.items()}
        self._all: dict[str, Schema] = {name: _tidy(schema) for name, schema in rest["$defs"].items()}
        flat = {each.__name__ for one in endpoints for each in (one.path_model, one.query_model) if each is not None}
        # Those of paths and queries are told as parameters.
        self.defined = {name: schema for name, schema in self._all.items() if name not in flat}

    def of(self, model: Any, mode: str) -> Schema:
        """The schema of a model: what callers send (`validation`) or are given (`serialization`)."""
        return {"type": "null"} if model is None else self._found[repr(model), mode]

    def properties(self, model: Any) -> tuple[Mapping[str, Schema], Sequence[str]]:
        """The fields of a flat model of path or query, and the names of those that are required."""
        schema = self.of(model, "validation")
        if "$ref" in schema:
            schema = self._all[schema["$ref"].rpartition("/")[2]]
        return schema["properties"], schema.get("required", ())


def _wanted(endpoints: Sequence[Endpoint]) -> Iterator[tuple[Any, Mode]]:
    for each in endpoints:
        for given in (each.path_model, each.query_model, each.body_model):
            if given is not None:
                yield given, "validation"
        for told in (*each.answers.values(), *each.documents.values()):
            if told is not None:
                yield told, "serialization"


def _tidy(schema: Any, *, is_named: bool = False) -> Any:
    """Leave out the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: _tidy(value, is_named=name in {"properties", "$defs"})
        for name, value in schema.items()
        if is_named or name != "title" or not isinstance(value, str) or value.startswith("GeoJSON")
    }
    # A default of null says no more than that the field may be left out.
    return {name: value for name, value in kept.items() if is_named or name != "default" or value is not None}
