"""The offset table of the data README, row by row, on real items; then the gaps between the rows."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import ItemUnusable
from tasks.imagery.catalogs import CDSE, EARTH_SEARCH_C1, EARTH_SEARCH_L2A, GENERIC, PLANETARY_COMPUTER, Profile
from tasks.imagery.items import baseline_number, processing_baseline
from tasks.imagery.reflectance import reflectance_rule
from tests.support.archives import archive_items
from tests.support.items import made_item, recorded_items

ES = "earth-search-v1"
PC = "planetary-computer"


def red(item: dict[str, Any]) -> dict[str, Any]:
    asset: dict[str, Any] = next(item["assets"][name] for name in ("red", "B04", "B04_10m") if name in item["assets"])
    return asset


def offsets(items: list[dict[str, Any]], profile: Profile) -> set[tuple[float, float, bool]]:
    """Scale, offset and certainty that the items get."""
    assert items
    rules = [reflectance_rule(item, red(item), profile) for item in items]
    return {(rule.scale, rule.offset, rule.is_certain) for rule in rules}


SCALE_ONLY = {(0.0001, 0.0, True)}
SCALE_AND_OFFSET = {(0.0001, -0.1, True)}


@pytest.mark.shared_data
class TestRowsOfTheTable:
    def test_earth_search_with_the_offset_removed_is_scaled_only_though_bands_still_tell_it(self) -> None:
        items = [
            *recorded_items(f"{ES}/items-by-baseline/S2A_32TMS_20221207*.json"),
            *recorded_items(f"{ES}/items-by-baseline/S2A_12RWT_20240106*.json"),
            *recorded_items(f"{ES}/*.migrated-proj-code.json"),
            *archive_items("at-si-33TW-2023", "http://127.0.0.1"),
        ]
        assert {red(item)["raster:bands"][0]["offset"] for item in items} == {-0.1}
        assert offsets(items, EARTH_SEARCH_L2A) == SCALE_ONLY

    @pytest.mark.parametrize("archive", ["be-antwerp-2023q4", "fi-qvidja-2023"])
    def test_archives_with_the_offset_removed_are_scaled_only(self, archive: str) -> None:
        assert offsets(archive_items(archive, "http://127.0.0.1"), EARTH_SEARCH_L2A) == SCALE_ONLY

    def test_earth_search_before_baseline_4_is_scaled_only(self) -> None:
        items = [
            item
            for item in recorded_items(f"{ES}/items-by-baseline/*.json")
            if not item["properties"]["earthsearch:boa_offset_applied"]
        ]
        baselines = {item["properties"]["s2:processing_baseline"] for item in items}
        assert {"00.01", "02.07", "02.14", "03.00", "03.01"} <= baselines
        assert offsets(items, EARTH_SEARCH_L2A) == SCALE_ONLY

    def test_earth_search_from_before_2022_without_a_baseline_is_scaled_only(self) -> None:
        assert offsets(archive_items("it-barbellino", "http://127.0.0.1"), EARTH_SEARCH_L2A) == SCALE_ONLY

    def test_earth_search_with_a_false_flag_from_baseline_4_follows_the_flag_and_is_uncertain(self) -> None:
        items = recorded_items(f"{ES}/items-by-baseline/S2A_32TMS_20221207*.json")
        items[0]["properties"]["earthsearch:boa_offset_applied"] = False
        assert offsets(items, EARTH_SEARCH_L2A) == {(0.0001, -0.1, False)}
        assert "by the flag" in reflectance_rule(items[0], red(items[0]), EARTH_SEARCH_L2A).rule

    def test_earth_search_collection_1_has_scale_and_offset(self) -> None:
        assert offsets(recorded_items(f"{ES}/items-c1-l2a/10*.json"), EARTH_SEARCH_C1) == SCALE_AND_OFFSET

    def test_planetary_computer_from_baseline_4_has_the_offset_that_nothing_else_tells(self) -> None:
        items = [*recorded_items(f"{PC}/items/*-items-2024.json"), *recorded_items(f"{PC}/search-paged/*.json")]
        assert not any("raster:bands" in red(item) for item in items)
        assert {"04.00", "05.11"} <= {item["properties"]["s2:processing_baseline"] for item in items}
        assert offsets(items, PLANETARY_COMPUTER) == SCALE_AND_OFFSET

    def test_planetary_computer_before_baseline_4_has_none(self) -> None:
        items = [*recorded_items(f"{PC}/items/get-item-2015*.json"), *recorded_items(f"{PC}/odc-stac/S2*.json")]
        assert offsets(items, PLANETARY_COMPUTER) == SCALE_ONLY

    def test_cdse_has_scale_and_offset_also_for_scenes_from_before_2022(self) -> None:
        items = recorded_items("cdse/*.json")
        assert {item["properties"]["datetime"][:4] for item in items} == {"2020"}
        assert offsets(items, CDSE) == SCALE_AND_OFFSET


EARLY, LATE = "2021-06-01T10:00:00Z", "2023-06-01T10:00:00Z"


def bare(baseline: str | None, moment: str) -> dict[str, Any]:
    """An item that tells no flag and no offset, and of the baseline only what is given."""
    return made_item(
        s2__processing_baseline=baseline,
        s2__datastrip_id=None,
        earthsearch__boa_offset_applied=None,
        datetime=moment,
    )


@pytest.mark.parametrize(
    ("profile", "baseline", "moment", "offset", "is_certain"),
    [
        (EARTH_SEARCH_L2A, None, EARLY, 0.0, True),
        (EARTH_SEARCH_L2A, None, LATE, -0.1, False),
        (EARTH_SEARCH_L2A, "99.99", LATE, -0.1, False),
        (EARTH_SEARCH_L2A, "05.00", EARLY, -0.1, False),
        (EARTH_SEARCH_C1, "05.00", EARLY, -0.1, True),
        (EARTH_SEARCH_C1, None, EARLY, -0.1, False),
        (PLANETARY_COMPUTER, "04.00", EARLY, -0.1, True),
        (PLANETARY_COMPUTER, "03.01", LATE, 0.0, True),
        (PLANETARY_COMPUTER, None, LATE, -0.1, False),
        (CDSE, "05.00", EARLY, -0.1, True),
        (CDSE, "02.14", EARLY, 0.0, True),
        (GENERIC, "05.09", LATE, -0.1, False),
        (GENERIC, "03.00", EARLY, 0.0, True),
        (GENERIC, None, EARLY, 0.0, True),
    ],
)
def test_without_published_offset_the_baseline_decides_and_then_the_date(
    profile: Profile, baseline: str | None, moment: str, offset: float, is_certain: bool
) -> None:
    item = bare(baseline, moment)
    rule = reflectance_rule(item, red(item), profile)
    assert (rule.scale, rule.offset, rule.is_certain) == (0.0001, offset, is_certain)


@pytest.mark.parametrize(
    "told",
    [
        {"raster:bands": [{"scale": 0.0002, "offset": -0.2}]},
        {"bands": [{"name": "B04", "raster:scale": 0.0002, "raster:offset": -0.2}]},
        {"raster:scale": 0.0002, "raster:offset": -0.2},
        {"bands": [{"name": "B04"}], "raster:scale": 0.0002, "raster:offset": -0.2},
    ],
)
def test_scale_and_offset_are_read_in_all_their_forms(told: dict[str, Any]) -> None:
    rule = reflectance_rule(made_item(), told, GENERIC)
    assert (rule.scale, rule.offset, rule.is_certain) == (0.0002, -0.2, True)


def test_the_offset_of_1000_counts_is_scaled_as_the_catalog_says() -> None:
    item = bare("05.09", LATE)
    assert reflectance_rule(item, {"raster:bands": [{"scale": 0.0002}]}, PLANETARY_COMPUTER).offset == pytest.approx(
        -0.2
    )


@pytest.mark.parametrize(
    "band", [{"scale": 0}, {"scale": -1}, {"scale": "a"}, {"offset": True}, {"scale": float("nan")}]
)
def test_numbers_that_cannot_be_are_refused(band: dict[str, Any]) -> None:
    with pytest.raises(ItemUnusable, match="published"):
        reflectance_rule(made_item(), {"raster:bands": [band]}, EARTH_SEARCH_C1)


@pytest.mark.parametrize(
    ("properties", "baseline"),
    [
        ({"s2__processing_baseline": "5.09"}, "05.09"),
        ({"s2__processing_baseline": 5.1}, "05.10"),
        ({"s2__processing_baseline": None, "processing__version": "05.00"}, "05.00"),
        (
            {"s2__processing_baseline": None, "s2__product_uri": "S2A_MSIL2A_20200101T100000_N0212_R079_T33TWL_1.SAFE"},
            "02.12",
        ),
        ({"s2__processing_baseline": None}, "05.09"),
        ({"s2__processing_baseline": None, "s2__datastrip_id": None}, None),
    ],
)
def test_the_baseline_is_found_wherever_it_is_told(properties: dict[str, Any], baseline: str | None) -> None:
    assert processing_baseline(made_item(**properties)) == baseline


def test_the_mark_of_test_processing_is_not_a_newer_baseline() -> None:
    assert baseline_number("99.99") is None
    assert baseline_number("05.10") == (5, 10)
