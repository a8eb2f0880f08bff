"""What each endpoint answers, in words of OpenAPI: envelopes, documents, refusals, headers, examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from serving.endpoints import JSON, Endpoint
from serving.openapi_schemas import REF, Schema, Schemas
from serving.openapi_words import EVERYWHERE, REFUSALS

Told = Mapping[str, Any]
"""One exchange as it really was."""


def named(told: Iterable[Told]) -> dict[str, Told]:
    """Exchanges by their names."""
    return {each["name"]: each for each in told}


def is_conditional(endpoint: Endpoint) -> bool:
    """Whether an answer has a tag by which a caller may ask whether it changed."""
    return endpoint.method == "GET" and endpoint.is_throttled


def responses(endpoint: Endpoint, schemas: Schemas, told: Sequence[Told]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what an endpoint answers, by status."""
    refused = {**dict.fromkeys(_usual_refusals(endpoint)), **endpoint.refusals}
    for status, words in refused.items():
        if status not in endpoint.answers:
            name, _ = REFUSALS[status]
            response = {"$ref": f"#/components/responses/{name}"}
            yield str(status), response if words is None else refusal(status, words)
    statuses = dict(endpoint.answers) or {200: None}
    for status, model in statuses.items():
        answered = [each for each in told if each["status"] == status]
        yield str(status), _response(endpoint, status, model, schemas, answered)
    if is_conditional(endpoint):
        headers = {name: _header(name) for name in ("ETag", "X-Request-ID")}
        yield "304", {"description": "The caller has it already.", "headers": headers}


def _usual_refusals(endpoint: Endpoint) -> Iterator[int]:
    yield from (406, 422)
    if endpoint.scope is not None or endpoint.has_raw_body:
        yield from (401, 503)
    if endpoint.scope is not None:
        yield 403
    if endpoint.path_model is not None:
        yield 404
    if endpoint.body_model is not None:
        yield from (400, 408, 413, 415)
    if endpoint.has_raw_body:
        yield from (408, 413)
    if endpoint.is_throttled:
        yield 429


def _response(endpoint: Endpoint, status: int, model: Any, schemas: Schemas, told: Sequence[Told]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media_type in endpoint.media_types if status == 200 else (JSON,):
        if media_type in endpoint.documents:
            document_model = endpoint.documents[media_type]
            is_text = document_model is None
            schema = {"type": "string"} if is_text else schemas.of(document_model, "serialization")
        else:
            schema = _envelope(status, schemas.of(model, "serialization"))
        content[media_type] = {"schema": schema}
        same = named(each for each in told if each["media_type"] == media_type)
        if same:
            content[media_type]["examples"] = {
                name: {"summary": name, "value": each["answer"]} for name, each in same.items()
            }
    headers = {name: _header(name) for name in _response_headers(endpoint, status)}
    return {"description": _phrase(endpoint, status), "headers": headers, "content": content}


def _phrase(endpoint: Endpoint, status: int) -> str:
    if status in endpoint.refusals:
        return endpoint.refusals[status]
    words = {
        200: "As asked.",
        201: "Created.",
        202: "Not there yet; `Retry-After` tells when to look again.",
        207: "Some of it was done; `errors` tells what was not.",
        409: "Nothing was done: all of it conflicts with what others have.",
        422: "Nothing was done: `errors` tells what is wrong.",
    }
    return words.get(status, HTTPStatus(status).phrase)


def _response_headers(endpoint: Endpoint, status: int) -> Iterator[str]:
    yield from EVERYWHERE
    if endpoint.is_throttled:
        yield from ("RateLimit", "RateLimit-Policy")
    if is_conditional(endpoint) and status == 200:
        yield "ETag"
    if endpoint.query_model is not None and {"cursor", "since"} & set(endpoint.query_model.model_fields):
        yield "Link"
    if status in (202, 503):
        yield "Retry-After"
    if status == 201:
        yield "Location"


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _envelope(status: int, data: Schema) -> Schema:
    """The schema of an answer: the word says how it went, and `errors` is only there where something was wrong."""
    word = "error" if status >= 400 else "processing" if status == 202 else "success"
    problems: Schema = {"type": "array", "items": {"$ref": REF.format(model="Problem")}, "minItems": 1}
    if status < 300 and status != 207:
        problems = {"type": "null"}
    elif status >= 400:
        problems, data = {"anyOf": [problems, {"type": "null"}]}, {"anyOf": [data, {"type": "null"}]}
    return {
        "type": "object",
        "properties": {
            "status": {"const": word},
            "message": {"type": "string"},
            "data": data,
            "errors": problems,
        },
        "required": ["status", "message", "data", "errors"],
        "additionalProperties": False,
    }


def refusal(status: int, words: str) -> dict[str, Any]:
    """An answer that gives nothing but what was wrong."""
    schema = _envelope(status, {"type": "null"})
    schema["properties"]["data"] = {"type": "null"}
    schema["properties"]["errors"] = {
        "type": "array",
        "items": {"$ref": REF.format(model="Problem")},
        "minItems": 1,
    }
    names = [*EVERYWHERE, *{401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])]
    return {
        "description": words,
        "headers": {name: _header(name) for name in names},
        "content": {JSON: {"schema": schema}},
    }
