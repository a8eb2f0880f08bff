"""What README and the pages in docs/ lead to and show is there, and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_PICTURE_BYTES = 250_000


def links(page: Path) -> list[tuple[bool, str, str]]:
    """Whether it is a picture, its words, and where it leads."""
    return [(bang == "!", words, target) for bang, words, target in LINK.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_leads_to_in_the_checkout_is_there(page: Path) -> None:
    inside = [target.partition("#")[0] for _, _, target in links(page) if "://" not in target]
    assert [target for target in inside if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_picture_says_what_it_shows_and_is_small(page: Path) -> None:
    for is_picture, words, target in links(page):
        if is_picture:
            assert len(words) > 30, target
            assert (page.parent / target).stat().st_size < MAX_PICTURE_BYTES


def test_no_picture_is_there_that_no_page_shows() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for is_picture, _, target in links(page) if is_picture}
    assert {file.resolve() for file in (ROOT / "docs").glob("*.png")} == shown
