from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from models.errors import BadInput
from serving import geometry
from serving.faults import ApiError
from serving.geometry import BoundaryChecker, Checked

Made = TypeVar("Made")
SQUARE: dict[str, Any] = {"bbox": [15.0, 46.0, 15.001, 46.001]}


def star(points: int) -> dict[str, Any]:
    """A ring that crosses itself as often as it can: repairing it takes minutes and all of the memory."""
    angles = [2 * math.pi * ((each * (points // 2)) % points) / points for each in range(points)]
    ring = [[10 + math.cos(angle) / 100, 50 + math.sin(angle) / 100] for angle in angles]
    return {"geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}}


def checking(work: Callable[[BoundaryChecker], Awaitable[Made]], **more: Any) -> Made:
    async def run() -> Made:
        checker = BoundaryChecker(min_ha=0.001, max_ha=100_000, **more)
        try:
            return await work(checker)
        finally:
            await checker.aclose()

    return asyncio.run(run())


def test_answers_come_in_the_order_given_from_one_child() -> None:
    async def work(checker: BoundaryChecker) -> list[Checked | BadInput]:
        assert checker.child_id is None
        told = await checker.check([SQUARE, {"bbox": [1]}] * 120)
        assert (len(await checker.check([])), len(await checker.check([SQUARE])), checker.starts) == (0, 1, 1)
        return told

    told = checking(work)
    assert [type(each) for each in told] == [Checked, BadInput] * 120
    assert isinstance(told[0], Checked)
    assert told[0].bbox == tuple(SQUARE["bbox"])


def test_a_boundary_that_takes_forever_costs_itself_alone() -> None:
    async def work(checker: BoundaryChecker) -> tuple[list[Checked | BadInput], int]:
        return await checker.check([SQUARE, star(20_001), SQUARE]), checker.starts

    told, starts = checking(work, boundary_timeout_s=1.5)
    assert [type(each) for each in told] == [Checked, BadInput, Checked]
    assert "takes longer than 1.5 s" in str(told[1])
    assert starts == 2


def test_many_of_them_cost_one_request_its_time_and_no_more() -> None:
    async def work(checker: BoundaryChecker) -> tuple[list[Checked | BadInput], list[Checked | BadInput]]:
        return await checker.check([star(20_001)] * 60), await checker.check([SQUARE])

    told, after = checking(work, boundary_timeout_s=0.5, request_timeout_s=1.0)
    assert len(told) == 60
    assert all(isinstance(each, BadInput) for each in told)
    assert "was not checked" in str(told[-1])
    assert isinstance(after[0], Checked)


def test_a_child_that_died_is_replaced_without_anybody_noticing() -> None:
    async def work(checker: BoundaryChecker) -> None:
        for _ in range(2):
            assert isinstance((await checker.check([SQUARE]))[0], Checked)
            assert checker.child_id is not None
            os.kill(checker.child_id, signal.SIGKILL)
        asked = asyncio.ensure_future(checker.check([SQUARE] * 400))
        while checker.starts < 3:
            await asyncio.sleep(0.01)
        os.kill(checker.child_id, signal.SIGKILL)
        assert all(isinstance(each, Checked) for each in await asked)

    checking(work)


def test_a_boundary_that_kills_the_child_twice_is_the_one_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a child that runs out of memory over one shape, in the real one's place on the path."""
    folder = tmp_path / "tasks" / "farms"
    folder.mkdir(parents=True)
    (folder / "checking.py").write_text(
        "import json, os, sys\n"
        "print('\"ready\"', flush=True)\n"
        "for line in sys.stdin:\n"
        "    for given in json.loads(line):\n"
        "        if given.get('bbox') == 'deadly':\n"
        "            os._exit(1)\n"
        "        print(json.dumps({'wkb': '', 'bbox': [0, 0, 1, 1], 'area_ha': 1, 'repairs': []}), flush=True)\n"
    )
    monkeypatch.setattr(geometry, "_PROGRAM", (str(folder / "checking.py"),))

    async def work(checker: BoundaryChecker) -> tuple[list[Checked | BadInput], int]:
        return await checker.check([SQUARE, {"bbox": "deadly"}, SQUARE]), checker.starts

    told, starts = checking(work)
    assert [type(each) for each in told] == [Checked, BadInput, Checked]
    assert "more memory" in str(told[1])
    assert starts == 3


def test_a_caller_that_goes_away_leaves_no_answers_to_the_next() -> None:
    async def work(checker: BoundaryChecker) -> list[Checked | BadInput]:
        await checker.check([SQUARE])
        asked = asyncio.ensure_future(checker.check([star(20_001)]))
        await asyncio.sleep(0.02)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        return await checker.check([SQUARE])

    assert isinstance(checking(work)[0], Checked)


def test_who_comes_when_too_many_wait_is_told_so_at_once() -> None:
    async def work(checker: BoundaryChecker) -> None:
        asked = [asyncio.ensure_future(checker.check([SQUARE])) for _ in range(geometry.MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await checker.check([SQUARE])
        assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "2")
        assert all(isinstance(each[0], Checked) for each in await asyncio.gather(*asked))

    checking(work)


def test_the_loop_goes_on_while_boundaries_are_checked() -> None:
    async def work(checker: BoundaryChecker) -> int:
        await checker.check([SQUARE])
        turns = 0
        asked = asyncio.ensure_future(checker.check([star(20_001)]))
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert checking(work, boundary_timeout_s=1.0) > 5


def test_the_child_knows_no_secret_and_ends_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWATH_DATABASE_URL", "postgresql://u:secret@host/name")

    async def work(checker: BoundaryChecker) -> int:
        await checker.check([SQUARE])
        child = checker.child_id
        assert child is not None
        assert b"secret" not in Path(f"/proc/{child}/environ").read_bytes()
        return child

    child = checking(work)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
