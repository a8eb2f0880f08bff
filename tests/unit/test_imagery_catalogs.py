"""Which catalogs are asked, and by which profile their items are read."""

from __future__ import annotations

import pytest

from models.errors import BadInput
from tasks.imagery.catalogs import PROFILES, catalogs_from, profile_of
from tests.support.items import made_item, recorded_items


def test_the_default_list_keeps_its_order() -> None:
    names = ("earth-search-c1", "earth-search-l2a", "planetary-computer")
    found = catalogs_from(names)
    assert tuple(catalog.name for catalog in found) == names
    assert [catalog.collection for catalog in found] == ["sentinel-2-c1-l2a", "sentinel-2-l2a", "sentinel-2-l2a"]
    assert found[2].profile is not None
    assert found[2].profile.signer == "planetary-computer"


def test_a_catalog_named_twice_is_asked_once() -> None:
    assert len(catalogs_from(("cdse", "cdse"))) == 1


@pytest.mark.parametrize("names", [(), ("earth-search",), ("cdse", "generic")])
def test_an_unknown_catalog_is_refused_with_the_known_ones(names: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="allowed: earth-search-c1, earth-search-l2a, planetary-computer, cdse"):
        catalogs_from(names)


def test_an_own_catalog_replaces_the_list_and_is_named_by_its_host() -> None:
    [catalog] = catalogs_from(("cdse",), stac_url="http://127.0.0.1:7822/", stac_collection="mine")
    assert (catalog.name, catalog.url, catalog.collection) == ("127.0.0.1", "http://127.0.0.1:7822", "mine")
    assert catalog.is_loopback
    assert not catalogs_from((), stac_url="https://stac.example.org")[0].is_loopback


@pytest.mark.parametrize("url", ["", "stac.example.org", "file:///data/catalog.json", "http://", "http://host:port"])
def test_an_own_catalog_must_be_a_web_address(url: str) -> None:
    with pytest.raises(BadInput, match="stac_url"):
        catalogs_from((), stac_url=url)


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"allowed: earth-search-c1, .*generic"):
        catalogs_from((), stac_url="http://localhost:1", stac_profile="landsat")
    [catalog] = catalogs_from((), stac_url="http://localhost:1", stac_profile="generic")
    assert catalog.profile is PROFILES["generic"]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("pattern", "profile"),
    [
        ("earth-search-v1/items-c1-l2a/10*.json", "earth-search-c1"),
        ("earth-search-v1/items-by-baseline/*.json", "earth-search-l2a"),
        ("earth-search-v1/*.migrated-proj-code.json", "earth-search-l2a"),
        ("earth-search-v1/items-jp2-antimeridian/*.json", "generic"),
        ("planetary-computer/items/*.json", "planetary-computer"),
        ("planetary-computer/odc-stac/*raster_ext.json", "planetary-computer"),
        ("cdse/*.json", "cdse"),
    ],
)
def test_items_show_themselves_which_profile_they_follow(pattern: str, profile: str) -> None:
    [catalog] = catalogs_from((), stac_url="https://stac.example.org")
    assert {profile_of(item, catalog).name for item in recorded_items(pattern)} == {profile}


@pytest.mark.shared_data
def test_collection_1_items_are_told_apart_under_any_collection_name() -> None:
    [catalog] = catalogs_from((), stac_url="https://stac.example.org", stac_collection="copy")
    [first, *_] = recorded_items("earth-search-v1/items-c1-l2a/10*.json")
    assert profile_of({**first, "collection": "copy"}, catalog).name == "earth-search-c1"


def test_a_named_profile_is_not_second_guessed() -> None:
    [catalog] = catalogs_from((), stac_url="https://stac.example.org", stac_profile="planetary-computer")
    assert profile_of(made_item(), catalog).name == "planetary-computer"
