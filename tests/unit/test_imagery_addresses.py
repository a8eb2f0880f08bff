"""What an item may make us open."""

from __future__ import annotations

import pytest

from models.errors import ItemUnusable
from tasks.imagery.addresses import asset_address
from tasks.imagery.catalogs import CDSE, GENERIC, Catalog, Profile
from tests.support.items import made_item

FAR = Catalog(name="far", url="https://stac.example.org/v1", collection="c")
HERE = Catalog(name="here", url="http://127.0.0.1:7822", collection="c")


def address(href: object, catalog: Catalog, profile: Profile = GENERIC, self_link: str | None = None) -> str:
    item = made_item()
    item["links"] = [{"rel": "self", "href": self_link}] if self_link else []
    return asset_address(href, item=item, catalog=catalog, profile=profile)


@pytest.mark.parametrize("catalog", [FAR, HERE])
@pytest.mark.parametrize("href", ["https://files.example.org/a/B04.tif?sig=1%2F2", "http://files.example.org/B04.tif"])
def test_web_addresses_are_kept_as_they_are(href: str, catalog: Catalog) -> None:
    assert address(href, catalog) == href


def test_a_relative_address_starts_where_the_item_lies() -> None:
    self_link = "https://stac.example.org/items/a/item.json"
    assert address("./B04.tif", FAR, self_link=self_link) == "https://stac.example.org/items/a/B04.tif"
    assert address("../b/B04.tif", FAR, self_link=self_link) == "https://stac.example.org/items/b/B04.tif"
    assert address("/B04.tif", FAR, self_link=self_link) == "https://stac.example.org/B04.tif"


def test_a_relative_address_without_a_base_is_refused() -> None:
    with pytest.raises(ItemUnusable, match="no link to itself"):
        address("./B04.tif", FAR)
    with pytest.raises(ItemUnusable, match="relative to s3:"):
        address("./B04.tif", FAR, self_link="s3://bucket/item.json")


def test_files_are_read_for_a_catalog_on_this_machine() -> None:
    assert address("/data/a b/B04.tif", HERE) == "/data/a b/B04.tif"
    assert address("file:///data/a%20b/B04.tif", HERE) == "/data/a b/B04.tif"
    assert address("B04.tif", HERE, self_link="file:///data/item.json") == "/data/B04.tif"


@pytest.mark.parametrize("href", ["file:///etc/passwd", "file://localhost/etc/passwd"])
def test_files_are_not_read_for_a_catalog_elsewhere(href: str) -> None:
    with pytest.raises(ItemUnusable, match="the catalog is elsewhere"):
        address(href, FAR)


@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/http://169.254.169.254/latest",
        "/vsizip//data/a.zip",
        "/VSIMEM/a",
        "file:///vsicurl/http://x",
        "file://other/B04.tif",
        "//other/B04.tif",
        "ftp://files.example.org/B04.tif",
        "gs://bucket/B04.tif",
        "s3://sentinel-s2-l2a/tiles/B04.jp2",
        "javascript:alert(1)",
        "http://[half/B04.tif",
        "https:///B04.tif",
        "https://user:secret@files.example.org/B04.tif",
        "https://files.example.org/B04.tif\nX: y",
        "https://files.example.org/" + "a" * 5000,
        "",
        None,
        17,
    ],
)
@pytest.mark.parametrize("catalog", [FAR, HERE])
def test_anything_else_is_refused(href: object, catalog: Catalog) -> None:
    with pytest.raises(ItemUnusable):
        address(href, catalog)


MACHINE = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "0x7f000001",
    "127.0.0.1.",
    "127.0.0.1:9200",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "files.localhost",
    "localhost.localdomain",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "2852039166",
    "[::ffff:169.254.169.254]",
    "[fe80::1]",
    "0.0.0.0",
    "0",
]
PRIVATE = [
    "10.0.0.5:9200",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "167772165",
    "[fd00::1]",
    "[::ffff:10.0.0.5]",
    "255.255.255.255",
    "224.0.0.1",
    "metadata.google.internal",
    "metadata.google.internal.",
    "printer.local",
    "nas.home.arpa",
    "redis",
    "minio:9000",
]


@pytest.mark.parametrize("host", MACHINE)
def test_a_catalog_elsewhere_does_not_lead_to_services_of_this_machine(host: str) -> None:
    href = f"http://{host}/B04.tif"
    with pytest.raises(ItemUnusable, match="leads to this machine"):
        address(href, FAR)
    assert address(href, HERE) == href


@pytest.mark.parametrize("host", PRIVATE)
def test_a_catalog_on_the_net_does_not_lead_into_a_private_network(host: str) -> None:
    href = f"http://{host}/B04.tif"
    with pytest.raises(ItemUnusable, match="leads to a private network"):
        address(href, FAR)
    assert address(href, HERE) == href


@pytest.mark.parametrize("at", ["http://10.1.2.3:8080/stac", "https://stac.office.local", "http://stac:8080"])
def test_a_catalog_on_a_private_network_leads_into_it_but_not_to_this_machine(at: str) -> None:
    near = Catalog(name="near", url=at, collection="c")
    assert address("http://10.0.0.5:9200/B04.tif", near) == "http://10.0.0.5:9200/B04.tif"
    assert address("http://minio:9000/B04.tif", near) == "http://minio:9000/B04.tif"
    for host in MACHINE:
        with pytest.raises(ItemUnusable, match="leads to this machine"):
            address(f"http://{host}/B04.tif", near)
    with pytest.raises(ItemUnusable, match="is a file"):
        address("file:///data/B04.tif", near)


@pytest.mark.parametrize("host", ["8.8.8.8", "134744072", "[2606:4700::1111]", "files.example.org.", "a_b.example.org"])
def test_hosts_of_the_net_are_allowed_however_written(host: str) -> None:
    assert address(f"https://{host}:8443/B04.tif", FAR) == f"https://{host}:8443/B04.tif"


@pytest.mark.parametrize(
    "host",
    [
        "%31%32%37.0.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "127\u30020\u30020\u30021",
        "files.example.org\\.evil",
        "a..b",
        "-a.example.org",
        "files.example.org:0",
        "files.example.org:99999",
        "files.example.org:port",
        "[fe80::1%25eth0",
    ],
)
@pytest.mark.parametrize("catalog", [FAR, HERE])
def test_a_host_that_might_be_read_in_two_ways_is_refused(host: str, catalog: Catalog) -> None:
    with pytest.raises(ItemUnusable):
        address(f"http://{host}/B04.tif", catalog)


@pytest.mark.parametrize("href", ["https://files.example.org/\ud800.tif", "https://files.example.org/\x85.tif"])
def test_an_address_that_cannot_be_stored_is_refused(href: str) -> None:
    with pytest.raises(ItemUnusable, match="not readable"):
        address(href, FAR)


@pytest.mark.parametrize("url", ["http://127.1:7822", "http://localhost.:7822", "http://[::ffff:127.0.0.1]:7822"])
def test_a_catalog_on_this_machine_is_known_however_it_is_written(url: str) -> None:
    assert Catalog(name="here", url=url, collection="c").is_loopback


def test_only_the_buckets_of_a_profile_are_read() -> None:
    href = "s3://eodata/Sentinel-2/B04.jp2"
    assert address(href, FAR, CDSE) == href
    with pytest.raises(ItemUnusable, match="bucket s3://private"):
        address("s3://private/B04.jp2", FAR, CDSE)
    with pytest.raises(ItemUnusable, match="bucket s3://eodata"):
        address(href, FAR, GENERIC)
