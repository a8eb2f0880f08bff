"""Cells of both grids at places where they are easily got wrong."""

from __future__ import annotations

import math

import pytest

from models.errors import BadInput
from tasks.weather.cells import nasa_power_cell, open_meteo_cell


def test_a_cell_is_named_by_grid_row_and_column() -> None:
    cell = open_meteo_cell(4.32, 51.27)
    assert (cell.key, cell.latitude, cell.longitude) == ("om-0.1:513:43", 51.3, 4.3)
    power = nasa_power_cell(4.32, 51.27)
    assert (power.key, power.latitude, power.longitude) == ("power:283:295", 51.5, 4.375)


@pytest.mark.parametrize(
    ("longitude", "latitude", "key"),
    [
        (4.25, 51.25, "om-0.1:513:43"),  # the western and southern edges belong to the cell
        (4.35, 51.25, "om-0.1:513:44"),  # the eastern one to the next
        (4.25, 51.35, "om-0.1:514:43"),
        (0.15, 0.15, "om-0.1:2:2"),  # 0.15 / 0.1 is below 1.5 in binary arithmetic
        (-0.05, -0.05, "om-0.1:0:0"),
        (179.95, 0.0, "om-0.1:0:-1800"),
        (179.94, 0.0, "om-0.1:0:1799"),
        (12.3, 89.95, "om-0.1:900:0"),
        (12.3, -89.96, "om-0.1:-900:0"),
        (12.3, -89.95, "om-0.1:-899:123"),
    ],
)
def test_an_edge_belongs_to_the_cell_north_and_east_of_it(longitude: float, latitude: float, key: str) -> None:
    assert open_meteo_cell(longitude, latitude).key == key


@pytest.mark.parametrize(
    ("longitude", "latitude", "key"),
    [
        (-180.0, 0.0, "power:180:0"),
        (-179.6875, 0.0, "power:180:1"),
        (179.6875, 0.0, "power:180:0"),
        (179.68, 0.24, "power:180:575"),
        (0.0, 0.25, "power:181:288"),
        (100.0, 89.75, "power:360:288"),
        (100.0, -89.76, "power:0:288"),
    ],
)
def test_power_cells_are_those_of_merra_2(longitude: float, latitude: float, key: str) -> None:
    assert nasa_power_cell(longitude, latitude).key == key


def test_farms_side_by_side_are_in_one_cell() -> None:
    farms = [(4.31, 51.28), (4.32, 51.29), (4.41, 51.31), (4.30, 51.30)]
    cells = {open_meteo_cell(*farm) for farm in farms}
    assert {cell.key for cell in cells} == {"om-0.1:513:43", "om-0.1:513:44"}


@pytest.mark.parametrize("longitude", [180.1, -181, math.nan, math.inf])
def test_a_point_off_the_globe_is_refused(longitude: float) -> None:
    with pytest.raises(BadInput, match="longitude"):
        open_meteo_cell(longitude, 0)
    with pytest.raises(BadInput, match="longitude"):
        nasa_power_cell(longitude, 0)
    with pytest.raises(BadInput, match="latitude"):
        nasa_power_cell(0, 90.5)


@pytest.mark.parametrize("step", [0.07, 0, -1, 7, 45, math.nan])
def test_a_step_that_does_not_divide_the_globe_is_refused(step: float) -> None:
    with pytest.raises(BadInput, match="step_degrees"):
        open_meteo_cell(0, 0, step_degrees=step)
