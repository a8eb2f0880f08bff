"""What is JSON and what is not."""

from __future__ import annotations

import pytest

from tasks.weather.answers import NotJson, excerpt, json_object_or_list


def test_bare_nan_and_infinity_are_nothing_and_words_that_look_so_stay() -> None:
    body = b'{"a": [1.5, nan, NaN, -nan, inf, -Infinity, null], "reason": "nan, \\"inf\\" and Nan", "nan": 1}'
    assert json_object_or_list(body) == {
        "a": [1.5, None, None, None, None, None, None],
        "reason": 'nan, "inf" and Nan',
        "nan": 1,
    }


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<!DOCTYPE html><html><body>Bad Gateway</body></html>", "HTML.*Bad Gateway"),
        (b'{"latitude": 52.5, "hourly": {"time": ["2026', "cut short"),
        (b"\xff\xfe\x00", "not text"),
        (b'"a string"', "neither"),
        (b"nan", "neither"),
        (b"Internal error", "broken JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_told_apart(body: bytes, told: str) -> None:
    with pytest.raises(NotJson, match=told):
        json_object_or_list(body)


def test_an_excerpt_is_one_short_line_without_markup() -> None:
    assert excerpt("<p>No\n\n data</p>") == "No data"
    assert len(excerpt("word " * 500)) < 170
