"""The contract is frozen: committed, made by the models that check, true in its examples, and readable offline."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from serving.app import ENDPOINTS
from serving.openapi import EXAMPLES, contract, operation_id
from serving.pages import COMMITTED
from tests.support.api import serving
from tests.support.story import as_file, tell

DOCUMENT: dict[str, Any] = json.loads(COMMITTED.read_bytes())


def test_the_committed_contract_is_the_one_that_the_models_make() -> None:
    assert COMMITTED.read_bytes() == contract(ENDPOINTS), "the contract has changed: if it may, run `make contract`"


def test_the_examples_are_what_the_app_answers(database_url: str, redis_url: str) -> None:
    assert as_file(tell(database_url, redis_url)) == EXAMPLES.read_bytes(), "if they may, run `make contract`"


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            yield operation["operationId"], operation


def test_every_endpoint_is_in_it_with_an_example_of_a_success() -> None:
    found = dict(operations())
    assert set(found) == {operation_id(each) for each in ENDPOINTS}
    assert len(found) == len(ENDPOINTS)
    for name, operation in found.items():
        if name not in {"get_openapi_json", "get_docs"}:
            successes = [response for status, response in operation["responses"].items() if status < "203"]
            assert any("examples" in one for each in successes for one in each["content"].values()), name


def closed(schema: Any) -> Any:
    """The same schema, which takes no field that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items() if name not in {"example", "examples"}}
    return {"additionalProperties": False, **inner} if isinstance(inner.get("properties"), dict) else inner


def shown() -> Iterator[Any]:
    """Every example with its schema."""
    for name, operation in operations():
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [response.get("content", {}) for response in operation["responses"].values()]
        for content in contents:
            for media_type, one in content.items():
                for example, told in one.get("examples", {}).items():
                    yield pytest.param(one["schema"], told["value"], id=f"{name} {media_type} {example}")


@pytest.mark.parametrize(("schema", "value"), list(shown()))
def test_an_example_has_no_other_shape_than_promised(schema: Any, value: Any) -> None:
    whole = {"components": {"schemas": closed(DOCUMENT["components"]["schemas"])}, **closed(schema)}
    Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)


def test_all_schemas_are_schemas() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


class Seen(HTMLParser):
    """What a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.inline_styles = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in {"href", "src", "action", "data", "srcset"}:
                self.links.add(value or "")
            elif name == "id":
                self.ids.append(value or "")
            self.inline_styles += name == "style"


def test_both_pages_are_served_and_need_nothing_from_elsewhere(database_url: str, redis_url: str) -> None:
    with serving(database_url, redis_url) as api, api.client() as client:
        found = client.get("/openapi.json")
        assert found.json() == DOCUMENT
        again = client.get("/openapi.json", headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        _see(client.get("/docs", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}))


def _see(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    seen = Seen(answer.text)
    assert not seen.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert seen.inline_styles == 0
    assert "url(" not in answer.text
    assert "@import" not in answer.text
    assert seen.links <= {"/openapi.json", *(f"#{each}" for each in seen.ids)}
    assert len(seen.ids) == len(set(seen.ids))
    assert {name for name, _ in operations()} <= set(seen.ids)
    policy = answer.headers["content-security-policy"]
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "unsafe" not in policy
