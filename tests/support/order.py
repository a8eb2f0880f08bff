"""The order in which files of tests begin: the long ones first, so that all workers end together."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.archives import ROOT

LONGEST_FIRST = (
    "e2e/test_drills.py",
    "e2e/test_command_line.py",
    "e2e/test_up.py",
    "e2e/test_demo.py",
    "integration/test_backfill.py",
    "integration/test_benchmark_operate.py",
    "e2e/test_faults.py",
    "e2e/test_real_imagery.py",
    "integration/test_backfill_weather.py",
    "integration/test_flow_weather.py",
    "integration/test_benchmark_ndvi_scene.py",
    "integration/test_flow_trouble.py",
    "e2e/test_interrupts.py",
    "integration/test_local_postgres.py",
    "integration/test_benchmark_weather.py",
    "integration/test_prewarm.py",
    "integration/test_serving_schemathesis.py",
    "integration/test_deployments.py",
    "integration/test_weather_due.py",
    "property/test_farms_properties.py",
    "integration/test_flow_gaps.py",
    "integration/test_flow_cluster.py",
    "integration/test_flow_ndvi.py",
    "integration/test_serving_tenants.py",
    "integration/test_benchmark_serving.py",
    "integration/test_observe_distributed.py",
    "integration/test_sandbox_archive.py",
)
"""Files that take more than about ten seconds on two cores."""


def long_files_first(items: list[pytest.Item]) -> None:
    """Sort in place: the long files, then those of many tests; within a file nothing changes."""
    places = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST_FIRST)}
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path, len(places)), -counts[item.path], str(item.path)))
