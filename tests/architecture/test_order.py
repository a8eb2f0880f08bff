"""The order in which tests begin."""

from __future__ import annotations

from tests.support.archives import ROOT
from tests.support.order import LONGEST_FIRST


def test_the_files_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).is_file()] == []
