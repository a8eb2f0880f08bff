from __future__ import annotations

import subprocess
import sys

import pytest

from models.errors import BadInput
from tasks.weather.places import cells_near, distance_km, place_at, place_of, places_near


def test_a_point_lies_in_the_place_of_both_its_cells() -> None:
    assert place_at(4.35, 51.2) == "om-0.1:512:44+power:282:295"


def test_cells_around_a_point_begin_with_its_own_and_go_outwards() -> None:
    found = cells_near(4.33, 51.22)
    assert found[0].key == "om-0.1:512:43"
    assert found[1].key == "om-0.1:512:44"
    assert len(found) == 25
    away = [distance_km(4.33, 51.22, cell) for cell in found[1:]]
    assert away == sorted(away)
    assert away[-1] < 30


def test_cells_around_the_antimeridian_lie_on_both_sides_of_it() -> None:
    columns = {cell.key.rpartition(":")[2] for cell in cells_near(179.98, 0, rings=1)}
    assert columns == {"1799", "-1800", "-1799"}
    assert all(distance_km(179.98, 0, cell) < 30 for cell in cells_near(179.98, 0, rings=1))


def test_at_a_pole_there_is_one_cell_and_the_row_below_it() -> None:
    found = cells_near(10, 90, rings=1)
    assert found[0].key == "om-0.1:900:0"
    assert len({cell.key for cell in found}) == len(found) == 4


def test_the_nearest_cell_keeps_the_points_own_cell_of_the_other_source() -> None:
    own, nearest, *_ = cells_near(4.349, 51.22)
    assert place_of(own, 4.349, 51.22) == place_at(4.349, 51.22)
    assert place_of(nearest, 4.349, 51.22) == "om-0.1:512:44+power:282:295"


def test_near_a_pole_its_cell_is_among_those_around() -> None:
    assert "om-0.1:900:0" in {cell.key for cell in cells_near(135.2, 89.86)}
    assert "om-0.1:-900:0" in {cell.key for cell in cells_near(-6.8, -89.82)}


def test_places_near_a_point_are_those_of_its_cells() -> None:
    expected = [place_of(cell, 4.349, 51.22) for cell in cells_near(4.349, 51.22)]
    assert list(places_near(4.349, 51.22)) == expected
    assert expected[0] == place_at(4.349, 51.22)


@pytest.mark.parametrize(("longitude", "latitude"), [(181, 0), (0, 91), (float("nan"), 0), (0, float("inf"))])
def test_what_is_not_on_the_globe_is_refused(longitude: float, latitude: float) -> None:
    with pytest.raises(BadInput):
        place_at(longitude, latitude)
    with pytest.raises(BadInput):
        cells_near(longitude, latitude)


def test_finding_places_loads_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "shapely", "prefect", "dask", "rasterio", "sqlalchemy", "httpx")
    program = f"import sys, tasks.weather.places; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
