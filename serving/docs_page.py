"""The contract as one page of HTML: no script, no font, no picture, nothing from anywhere else.

Ours and not Swagger UI, Redoc or Scalar: those weigh one to four megabytes of script from elsewhere, and need a policy
that lets styles and scripts in. This page needs neither, and is searched by the browser's own means.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

Node = Mapping[str, Any]

SHORT = 4
"""Letters up to which a word is taken for an abbreviation, such as NDVI."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #1a6b3c; --quiet: #667; }
@media (prefers-color-scheme: dark) { :root { --link: #6fce96; --quiet: #99a; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; }
.frame { display: grid; grid-template-columns: 21rem minmax(0, 1fr); }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1.2rem; border-right: 1px solid var(--line);
  font-size: .85rem; }
nav ul { list-style: none; margin: 0 0 .8rem; padding: 0; }
nav a { display: block; padding: .12rem 0; overflow-wrap: anywhere; }
main { padding: 1.2rem 2rem 4rem; max-width: 62rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
h1 { margin: 0 0 .5rem; font-size: 1.7rem; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { margin: 2rem 0 .2rem; font-size: 1.05rem; overflow-wrap: anywhere; }
h4 { margin: 1rem 0 .2rem; font-size: .9rem; color: var(--quiet); }
code, pre { font: .86em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { background: var(--soft); padding: .05em .3em; border-radius: .25em; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .7rem; border-radius: .4rem; overflow: auto; max-height: 24rem;
  margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; }
td:first-child { white-space: nowrap; }
td p { margin: 0; }
.method { display: inline-block; min-width: 3.6rem; font: 700 .72rem/1.4 ui-monospace, monospace; color: var(--quiet); }
h3 .method { font-size: .85rem; color: var(--link); }
.quiet { color: var(--quiet); }
summary { cursor: pointer; font-size: .85rem; color: var(--link); }
@media (max-width: 60rem) {
  .frame { display: block; }
  nav { position: static; height: auto; border: 0; border-bottom: 1px solid var(--line); }
  main { padding: 1.2rem; }
  td:first-child { white-space: normal; }
}
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: Node) -> str:
    """Draw an OpenAPI 3.1 document, such as `openapi.document` makes it."""
    return "".join(_page(document))


def _page(document: Node) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
    yield f'<div class="frame"><nav>{_index(document)}</nav><main>'
    yield f"<h1>{escape(info['title'])} API <span class=quiet>{escape(info['version'])}</span></h1>"
    yield _words(info["description"])
    yield '<p>For programs: <a href="/openapi.json">/openapi.json</a>, OpenAPI 3.1.</p>'
    yield from _security(document)
    for tag in document["tags"]:
        yield f'<h2 id="{tag["name"]}">{_title(tag["name"])}</h2>{_words(tag["description"])}'
        for method, path, operation in _operations(document, tag["name"]):
            yield from _operation(document, method, path, operation)
    yield '<h2 id="shapes">Shapes</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="shape-{name}">{name}</h3>{_words(schema.get("description", ""))}'
        yield _fields(schema) or f"<p>{_kind(schema)}</p>"
    yield "</main></div></body></html>"


def _title(tag: str) -> str:
    return tag.upper() if len(tag) <= SHORT else tag.capitalize()


def _operations(document: Node, tag: str) -> Iterator[tuple[str, str, Node]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield method.upper(), path, operation


def _index(document: Node) -> str:
    parts = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{operation["operationId"]}"><span class="method">{method}</span> '
            f"{escape(path.removeprefix('/api/v1').replace('{external_farm_id}', '{id}'))}</a></li>"
            for method, path, operation in _operations(document, tag["name"])
        )
        parts.append(f'<strong><a href="#{tag["name"]}">{_title(tag["name"])}</a></strong><ul>{links}</ul>')
    return "".join(parts) + '<strong><a href="#shapes">Shapes</a></strong>'


def _security(document: Node) -> Iterator[str]:
    yield "<h4>Credentials</h4><table>"
    for scheme in document["components"]["securitySchemes"].values():
        shown = scheme.get("name", "Authorization: Bearer …")
        yield f"<tr><td><code>{escape(shown)}</code></td><td>{_words(scheme['description'])}</td></tr>"
    yield "</table>"


def _operation(document: Node, method: str, path: str, operation: Node) -> Iterator[str]:
    yield f'<h3 id="{operation["operationId"]}"><span class="method">{method}</span> <code>{escape(path)}</code></h3>'
    yield f"<p><strong>{escape(operation['summary'])}.</strong></p>{_words(operation['description'])}"
    if parameters := operation.get("parameters"):
        rows = "".join(map(_parameter, parameters))
        yield f"<h4>Parameters</h4><table>{rows}</table>"
    if body := operation.get("requestBody"):
        content = body["content"]["application/json"]
        yield f"<h4>Body</h4><p>{_kind(content['schema'])}</p>"
        yield from _examples(content)
    yield "<h4>Answers</h4><table>"
    refused = []
    for status, response in operation["responses"].items():
        if "$ref" in response:
            refused.append((status, _resolved(document, response["$ref"])["description"]))
            continue
        yield f"<tr><td><code>{status}</code></td><td>{_words(response['description'])}"
        for media_type, content in response.get("content", {}).items():
            data = _data_of(content["schema"])
            yield f"<p><code>{media_type}</code> {'' if data == {'type': 'null'} else _kind(data)}</p>"
            yield from _examples(content)
        yield "</td></tr>"
    yield "</table>"
    told = "".join(f"<tr><td><code>{status}</code></td><td>{_words(words)}</td></tr>" for status, words in refused)
    yield f"<details><summary>Refusals</summary><table>{told}</table></details>"


def _parameter(parameter: Node) -> str:
    needed = "" if parameter["required"] else ' <span class="quiet">optional</span>'
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code>{needed}</td><td>{_kind(parameter['schema'])}</td>"
        f"<td>{_words(parameter.get('description', ''))}</td></tr>"
    )


def _examples(content: Node) -> Iterator[str]:
    for name, example in content.get("examples", {}).items():
        value = example["value"]
        shown = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        yield f"<details><summary>Example: {escape(name)}</summary><pre>{escape(shown)}</pre></details>"


def _data_of(schema: Node) -> Node:
    """What is in the envelope; every answer in JSON has the same one around it."""
    properties = schema.get("properties", {})
    found: Node = properties["data"] if {"status", "message", "data", "errors"} == set(properties) else schema
    return found


def _resolved(document: Node, reference: str) -> Node:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _fields(schema: Node) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code>"
        + ("" if name in required else ' <span class="quiet">optional</span>')
        + f"</td><td>{_kind(field)}</td><td>{_words(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


_LIMITS = {
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "{} characters or more",
    "maxLength": "at most {} characters",
    "minItems": "{} or more",
    "maxItems": "at most {:,}",
    "pattern": "matches {}",
    "default": "default {}",
}


def _kind(schema: Node) -> str:
    """A schema in a few words, with links to the shapes that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#shape-{name}">{name}</a>'
    for word in ("anyOf", "oneOf"):
        if word in schema and "properties" not in schema:
            return " or ".join(_kind(each) for each in schema[word])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        told = " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    elif schema.get("type") == "array":
        told = f"list of {_kind(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), Mapping):
        told = f"by name: {_kind(schema['additionalProperties'])}"
    else:
        told = escape(schema.get("title") or schema.get("format") or schema.get("type") or "anything")
    limits = [words.format(schema[name]) for name, words in _LIMITS.items() if name in schema]
    return told + (f' <span class="quiet">({escape(", ".join(limits))})</span>' if limits else "")


_MARKS: Sequence[tuple[str, str]] = ((r"`([^`]+)`", r"<code>\1</code>"), (r"\*\*([^*]+)\*\*", r"<strong>\1</strong>"))


def _words(text: str) -> str:
    """Sentences with the little of Markdown that ours have: code, strong, paragraphs."""
    parts = []
    for paragraph in filter(None, text.split("\n\n")):
        shown = escape(paragraph, quote=False)
        for pattern, drawn in _MARKS:
            shown = re.sub(pattern, drawn, shown)
        parts.append(f"<p>{shown}</p>")
    return "".join(parts)
