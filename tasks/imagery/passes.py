"""Which items make up one look at a tile: reprocessings fall away, split datastrips stay together."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from models.domain import Scene
from tasks.imagery.items import baseline_number, instant

PassTile = tuple[str, str]
"""pass_id and tile."""

_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


def pieces_of(scenes: Iterable[Scene]) -> dict[PassTile, tuple[Scene, ...]]:
    """The scenes of one catalog by pass and tile, each datastrip once, in the order of the datastrips.

    Two scenes of one datastrip are two processings of the same piece: the newer baseline wins, then the newer
    `updated`, then the greater item id. Different datastrips are complementary pieces, and all stay. The answer does
    not depend on the order of the scenes.
    """
    newest: dict[PassTile, dict[str, Scene]] = defaultdict(dict)
    for scene in scenes:
        pieces = newest[scene.pass_id, scene.tile]
        rival = pieces.get(scene.datastrip)
        if rival is None or _newness(scene) > _newness(rival):
            pieces[scene.datastrip] = scene
    return {key: tuple(pieces[strip] for strip in sorted(pieces)) for key, pieces in sorted(newest.items())}


def choose_catalog(
    scenes: Iterable[Scene], order: Sequence[str], *, given_up: Collection[tuple[str, str]] = ()
) -> dict[PassTile, tuple[Scene, ...]]:
    """The pieces of each pass and tile from the first catalog in this order, completed from the next ones.

    A catalog that has one of two split datastrips does not hide the other: a datastrip that the first lacks comes
    from the next catalog that has it, behind those of the first.

    Args:
        scenes: Scenes of all catalogs, in any order. Those of catalogs that are not in `order` are left out.
        order: Names of catalogs, best first.
        given_up: Catalog and id of items whose files were never delivered: they are left out where another item has
            the same datastrip, and nowhere else, since farms in it would seem to lie outside of the imagery.
    """
    by_catalog: dict[str, list[Scene]] = {name: [] for name in order}
    known = [scene for scene in scenes if scene.catalog in by_catalog]
    for scene in _without(known, frozenset(given_up)) if given_up else known:
        by_catalog[scene.catalog].append(scene)
    chosen: dict[PassTile, tuple[Scene, ...]] = {}
    for found in by_catalog.values():
        for key, pieces in pieces_of(found).items():
            before = chosen.get(key, ())
            strips = {scene.datastrip for scene in before}
            chosen[key] = before + tuple(scene for scene in pieces if scene.datastrip not in strips)
    return dict(sorted(chosen.items()))


def _without(scenes: Sequence[Scene], given_up: frozenset[tuple[str, str]]) -> list[Scene]:
    living = [scene for scene in scenes if (scene.catalog, scene.item_id) not in given_up]
    there = {(scene.pass_id, scene.tile, scene.datastrip) for scene in living}
    return living + [
        scene
        for scene in scenes
        if (scene.catalog, scene.item_id) in given_up and (scene.pass_id, scene.tile, scene.datastrip) not in there
    ]


def _newness(scene: Scene) -> tuple[tuple[int, int], dt.datetime, str]:
    baseline = baseline_number(scene.processing_baseline) or (-1, -1)
    return baseline, instant(scene.updated) or _LONG_AGO, scene.item_id
