"""The house stands as it was drawn."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from prefect import Task

from tasks import steps, weather_steps

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "serving", "tasks", "models", "infra")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_no_module_hides_behind_an_empty_name() -> None:
    assert not [path for path in sources() if path.stem in {"utils", "helpers", "common", "misc"}]


def test_no_flow_shares_a_name_with_a_top_level_folder_or_the_standard_library() -> None:
    names = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}
    assert not names & (set(sys.stdlib_module_names) | {path.name for path in ROOT.iterdir() if path.is_dir()})


def test_the_lock_file_has_pins_and_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in line for line in pins)
    assert lock.count("--hash=sha256:") >= len(pins)


def test_prefects_server_is_pinned_with_a_fastapi_that_it_works_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "fastapi>=0.135,<0.140" in project["dependencies"]


def test_no_task_has_a_tag_because_of_tags_prefect_asks_its_server_for_a_slot_before_each_run() -> None:
    found = [each for module in (steps, weather_steps) for each in vars(module).values() if isinstance(each, Task)]
    assert {each.name: each.tags for each in found} == {
        name: set() for name in ("search_catalog", "observe_scene", "fetch_weather")
    }


@pytest.mark.parametrize(
    "module",
    ["infra.cli", "models.domain", "models.errors", "models.farms", "models.observations", "models.readmodel"],
)
def test_facts_are_loaded_without_the_raster_stack(module: str) -> None:
    """Whoever only reads starts fast and small, and so does every command that needs no imagery."""
    program = (
        f"import sys, {module}; "
        "heavy = {'numpy', 'dask', 'rasterio', 'prefect', 'pandas', 'shapely', 'xarray'} & set(sys.modules); "
        "sys.exit(f'loads {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
