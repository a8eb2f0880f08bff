"""Alerts are on the server once each, whatever happens; that they reach a webhook is shown where all services run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from pydantic import SecretStr

from infra.local.prefect import PrefectServer
from infra.settings import Settings
from infra.up.alerts import BLOCK, set_alerts
from models.errors import BadInput

NAMES = ["swath: a run crashed", "swath: a run failed", "swath: a run is late", "swath: passes are missing"]


@pytest.fixture
def client(prefect_api: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found
        set_alerts(found, None)


def names(client: SyncPrefectClient) -> list[str]:
    return sorted(each.name for each in client.read_automations() if each.name.startswith("swath: "))


def test_set_again_there_is_one_of_each_kind_with_the_newest_address(client: SyncPrefectClient) -> None:
    for address in ("http://127.0.0.1:1/old", "http://127.0.0.1:1/new"):
        assert sorted(set_alerts(client, SecretStr(address))) == NAMES
        assert names(client) == NAMES
    block = Webhook.load(BLOCK)
    assert isinstance(block, Webhook)
    assert block.url.get_secret_value() == "http://127.0.0.1:1/new"


def test_without_an_address_there_are_none(client: SyncPrefectClient) -> None:
    set_alerts(client, SecretStr("http://127.0.0.1:1/"))
    assert set_alerts(client, None) == ()
    assert names(client) == []


def test_one_that_was_switched_off_by_hand_stays_off(client: SyncPrefectClient) -> None:
    address = SecretStr("http://127.0.0.1:1/")
    set_alerts(client, address)
    [late] = client.read_automations_by_name("swath: a run is late")
    client.pause_automation(late.id)
    set_alerts(client, address)
    is_on = {each.name: each.enabled for each in client.read_automations() if each.name in NAMES}
    assert is_on == {name: name != "swath: a run is late" for name in NAMES}


@pytest.mark.parametrize("address", ["ftp://example.org", "example.org/hook"])
def test_an_address_that_is_none_of_the_web_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import load_settings

    monkeypatch.setenv("SWATH_ALERT_URL", address)
    with pytest.raises(BadInput, match=r"SWATH_ALERT_URL: must begin with http://") as problem:
        load_settings()
    assert address not in str(problem.value)


def test_a_time_zone_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import load_settings

    monkeypatch.setenv("SWATH_TIME_ZONE", "Europe/Atlantis")
    with pytest.raises(BadInput, match="SWATH_TIME_ZONE: 'Europe/Atlantis' is not a time zone"):
        load_settings()
    assert Settings.model_fields["time_zone"].default == "UTC"
