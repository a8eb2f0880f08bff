from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import pytest

import serving.credentials
import serving.signatures
from models.clients import NewKey
from models.keys import MasterKeys, master_keys, signing_key_id, signing_secret
from serving.faults import ApiError
from serving.signatures import WINDOW_S, Signed, message, read_signed, sign
from tests.support.api_workers import SECRET, TOKEN_PATH, signed_headers

MASTERS = master_keys(SECRET)
PREFIX = "0123456789ab"
KEY = NewKey(kind="hmac", prefix=PREFIX, key_id=signing_key_id(PREFIX), secret=signing_secret(MASTERS.newest, PREFIX))
NOW = 1_795_000_000


def read(
    given: Mapping[str, str],
    *,
    method: str = "POST",
    target: str = TOKEN_PATH,
    body: bytes = b"",
    now: float = NOW,
    masters: MasterKeys = MASTERS,
) -> Signed:
    headers = {name.lower().encode(): value.encode() for name, value in given.items()}
    return read_signed(headers, method=method, target=target, body=body, masters=masters, now=now)


def signed(**other: Any) -> dict[str, str]:
    return signed_headers(KEY, **{"timestamp": str(NOW), **other})


def refusal(given: Mapping[str, str], **how: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        read(given, **how)
    assert refused.value.status == 401
    return refused.value


def test_a_signature_holds_for_what_was_signed() -> None:
    assert read(signed(nonce="a" * 16)) == Signed(prefix=PREFIX, nonce="a" * 16, timestamp=NOW)


def test_the_signature_is_the_one_that_every_language_makes() -> None:
    """Known answer, made by `openssl dgst -sha256 -hmac`."""
    text = message(method="POST", target="/a?b=c", timestamp="1", nonce="n" * 16, body=b"{}")
    assert text == (
        b"POST\n/a?b=c\n1\nnnnnnnnnnnnnnnnn\n44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert sign("secret", text) == "22af4846835cddfc137eeee67729bc54bbedf18ff918a2ee1f345f98ebc9017a"


@pytest.mark.parametrize(
    "how",
    [
        {"method": "GET"},
        {"target": f"{TOKEN_PATH}?a=b"},
        {"target": f"{TOKEN_PATH}/"},
        {"body": b"{}"},
        {"masters": master_keys("another secret of at least thirty-two characters")},
    ],
)
def test_it_holds_for_nothing_else(how: dict[str, Any]) -> None:
    assert "signature: does not hold" in refusal(signed(), **how).message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Swath-Timestamp", str(NOW + 1)),
        ("X-Swath-Nonce", "b" * 16),
        ("X-Swath-Key", "swh_ba9876543210"),
        ("X-Swath-Signature", "0" * 64),
    ],
)
def test_no_header_can_be_exchanged(name: str, value: str) -> None:
    assert "signature: does not hold" in refusal({**signed(), name: value}).message


def test_a_signature_by_the_master_secret_before_holds_while_that_is_still_given() -> None:
    both = master_keys(f"a newer secret of thirty-two characters, {SECRET}")
    assert read(signed(), masters=both).prefix == PREFIX


@pytest.mark.parametrize("off", [-WINDOW_S, -WINDOW_S + 1, 0, WINDOW_S - 1, WINDOW_S])
def test_a_clock_may_be_five_minutes_off_either_way(off: int) -> None:
    assert read(signed(timestamp=str(NOW + off))).timestamp == NOW + off


@pytest.mark.parametrize("off", [-WINDOW_S - 1, WINDOW_S + 1, -NOW])
def test_beyond_that_it_is_told_what_time_it_is_here(off: int) -> None:
    assert f"it is {NOW} here" in refusal(signed(timestamp=str(NOW + off))).message


@pytest.mark.parametrize("name", ["X-Swath-Key", "X-Swath-Timestamp", "X-Swath-Nonce", "X-Swath-Signature"])
def test_every_header_is_needed_and_named_when_missing(name: str) -> None:
    given = signed()
    del given[name]
    [error] = refusal(given).errors
    assert (error.field, error.problem) == (f"header.{name.lower()}", "is required")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Swath-Key", "swk_0123456789ab"),
        ("X-Swath-Timestamp", "1e9"),
        ("X-Swath-Timestamp", "-1"),
        ("X-Swath-Timestamp", "٣"),
        ("X-Swath-Timestamp", "9" * 13),
        ("X-Swath-Nonce", "short"),
        ("X-Swath-Nonce", "n" * 65),
        ("X-Swath-Nonce", "n" * 16 + "\n"),
        ("X-Swath-Signature", "F" * 64),
        ("X-Swath-Signature", "é" * 64),
    ],
)
def test_malformed_headers_are_named(name: str, value: str) -> None:
    [error] = refusal({**signed(), name: value}).errors
    assert (error.field, error.problem) == (f"header.{name.lower()}", "is malformed")
    assert error.allowed


def test_all_missing_headers_are_named_at_once() -> None:
    assert len(refusal({}).errors) == 4


@pytest.mark.parametrize("module", [serving.credentials, serving.signatures])
def test_secrets_are_compared_in_constant_time_alone(module: Any) -> None:
    tree = ast.parse(inspect.getsource(module))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if any(word in text for word in ("digest", "signature", "secret"))]
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "hmac.compare_digest" in calls
