"""The contract: an OpenAPI 3.1 document made from the endpoints, by the same models that check what callers send.

It is committed as `openapi.json` beside this file, and served as it was committed: `make contract` makes it anew, by
`python -m serving.openapi FILE`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from serving.endpoints import JSON, Endpoint
from serving.openapi_responses import Told, is_conditional, named, refusal, responses
from serving.openapi_schemas import Schema, Schemas
from serving.openapi_words import (
    HEADERS,
    INTRODUCTION,
    PARAMETERS,
    REFUSALS,
    SECURITY,
    SIGNATURE_PARAMETERS,
    TAGS,
)

VERSION = "1.0.0"
"""Of the contract. Within 1, fields and routes are added; none is taken away or changes its meaning."""

Examples = Mapping[str, Sequence[Told]]
"""Exchanges as they really were, by operation."""

EXAMPLES = Path(__file__).with_name("examples.json")
"""What was asked and answered, by operation; recorded from the app as it runs."""


def document(endpoints: Sequence[Endpoint], examples: Examples) -> dict[str, Any]:
    """Make the document.

    Args:
        endpoints: what the app has.
        examples: what was asked and answered, by operation id.
    """
    schemas = Schemas(endpoints)
    paths: dict[str, Any] = {}
    for each in endpoints:
        told = examples.get(operation_id(each), ())
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Swath",
            "version": VERSION,
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document came from."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.defined,
            "responses": {name: refusal(status, text) for status, (name, text) in REFUSALS.items()},
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


def contract(endpoints: Sequence[Endpoint]) -> bytes:
    """The document with the recorded examples, as it is to be committed."""
    made = document(endpoints, orjson.loads(EXAMPLES.read_bytes()))
    return orjson.dumps(made, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def operation_id(endpoint: Endpoint) -> str:
    """The name of an endpoint in clients that are made from the document, as `get_farm_state`."""
    path = endpoint.path.removeprefix("/api/v1").replace("/farms/{external_farm_id}", "/farm")
    return "_".join([endpoint.method.lower(), *re.findall(r"\w+", path)])


def _operation(endpoint: Endpoint, schemas: Schemas, told: Sequence[Told]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "description": _description(endpoint),
        "tags": [endpoint.tag],
        "security": _security(endpoint),
    }
    if parameters := list(_parameters(endpoint, schemas, told)):
        operation["parameters"] = parameters
    if endpoint.body_model is not None:
        content: dict[str, Any] = {"schema": schemas.of(endpoint.body_model, "validation")}
        if bodies := named(each for each in told if "body" in each):
            content["examples"] = {name: {"summary": name, "value": each["body"]} for name, each in bodies.items()}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    operation["responses"] = dict(sorted(responses(endpoint, schemas, told)))
    return operation


def _description(endpoint: Endpoint) -> str:
    words = inspect.getdoc(endpoint.handler) or ""
    if endpoint.scope is not None:
        words += f" Needs the scope `{endpoint.scope}`."
    if endpoint.body_model is not None:
        words += f" The body may have {endpoint.most_bytes:,} bytes."
    return words


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if endpoint.has_raw_body:
        return [{"signature": []}]
    return [] if endpoint.scope is None else [{"api_key": []}, {"bearer": []}]


def _parameters(endpoint: Endpoint, schemas: Schemas, told: Sequence[Told]) -> Iterator[dict[str, Any]]:
    if endpoint.path_model is not None:
        for name, schema in schemas.properties(endpoint.path_model)[0].items():
            yield {"name": name, "in": "path", "required": True, **_described(schema), **_example(told, name)}
    if endpoint.query_model is not None:
        properties, required = schemas.properties(endpoint.query_model)
        for name, schema in properties.items():
            given = {"name": name, "in": "query", "required": name in required, **_described(_without_null(schema))}
            yield given | _example(told, name)
    if endpoint.has_raw_body:
        yield from SIGNATURE_PARAMETERS
    if is_conditional(endpoint):
        yield PARAMETERS["If-None-Match"]
    if 412 in endpoint.refusals:
        yield PARAMETERS["If-Match"]


def _example(told: Sequence[Told], name: str) -> dict[str, Any]:
    """The first value that a parameter had."""
    found = [each["parameters"][name] for each in told if name in each["parameters"]]
    return {"example": found[0]} if found else {}


def _described(schema: Schema) -> dict[str, Any]:
    words = schema.get("description")
    rest = {name: value for name, value in schema.items() if name != "description"}
    return {"description": words, "schema": rest} if words else {"schema": rest}


def _without_null(schema: Schema) -> Schema:
    """What is left out of a query string is not sent as null."""
    others = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(others) != 1:
        return schema
    return {**others[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def main() -> None:
    """Write the contract to the file that is named."""
    # Loaded here: the app serves the contract, and so loads this module.
    from serving.app import ENDPOINTS

    Path(sys.argv[1]).write_bytes(contract(ENDPOINTS))


if __name__ == "__main__":
    main()
