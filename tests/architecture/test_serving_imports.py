"""Whoever only reads starts fast and small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "dask", "rasterio", "prefect", "shapely", "geopandas", "pyarrow", "pandas", "xarray", "pyproj"}


def test_serving_loads_no_raster_stack_no_prefect_no_sqlalchemy_and_no_tokens_before_one_comes() -> None:
    program = (
        "import sys, serving.worker, serving.app; "
        f"heavy = {HEAVY | {'sqlalchemy', 'typer', 'jwt'}!r} & set(sys.modules); "
        "sys.exit(f'loads {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
