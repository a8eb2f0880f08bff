"""The files that start Swath on several machines: readable, in step with `prefect.yaml`, and sparing with secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.archives import ROOT

DEPLOY = ROOT / "infra" / "deploy"
SECRET = re.compile(r"PASSWORD|SECRET|DATABASE_URL|REDIS_URL|AUTH")


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def compose() -> dict[str, Any]:
    [found] = documents(DEPLOY / "compose.yaml")
    return found


def pods(node: Any) -> list[dict[str, Any]]:
    """All that have containers, at any depth."""
    if isinstance(node, dict):
        here = [node] if "containers" in node else []
        return here + [pod for value in node.values() for pod in pods(value)]
    return [pod for each in node for pod in pods(each)] if isinstance(node, list) else []


def test_no_dask_container_has_a_password_or_a_way_to_the_stores() -> None:
    services = compose()["services"]
    ours = {name: service for name, service in services.items() if name.startswith("dask-")}
    assert set(ours) == {"dask-scheduler", "dask-worker"}
    for service in ours.values():
        assert not SECRET.search(str(service))
        assert service["networks"] == ["dask"]
    stores = {name for name, service in services.items() if "stores" in service["networks"]}
    assert stores == set(services) - set(ours)
    for name in ("postgres", "valkey"):
        assert services[name]["networks"] == ["stores"]
        assert "ports" not in services[name]
    cluster = pods(documents(DEPLOY / "kubernetes" / "dask.yaml"))
    assert len(cluster) == 2
    assert not any(
        "envFrom" in container or SECRET.search(str(pod)) for pod in cluster for container in pod["containers"]
    )


def test_published_ports_are_on_loopback_unless_somebody_says_otherwise() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith(("127.0.0.1:", "${SWATH_API_BIND:-127.0.0.1}:")) for port in ports)


def test_every_pool_of_the_plan_has_a_worker() -> None:
    [plan] = documents(ROOT / "prefect.yaml")
    pools = {pool["name"] for pool in plan["work_pools"]}
    services = compose()["services"].values()
    containers = [each for pod in pods(documents(DEPLOY / "kubernetes" / "swath.yaml")) for each in pod["containers"]]
    for commands in ([each.get("command") for each in services], [each.get("args") for each in containers]):
        words = [command for command in commands if isinstance(command, list) and "--pool" in command]
        assert {command[command.index("--pool") + 1] for command in words} == pools


def test_every_pod_runs_without_rights_it_does_not_need() -> None:
    found = pods([documents(file) for file in (DEPLOY / "kubernetes").iterdir()])
    assert len(found) == 5
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
