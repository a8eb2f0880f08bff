"""Cells of both grids, at every point of the globe."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from models.weather import Cell
from tasks.weather.cells import nasa_power_cell, open_meteo_cell

LONGITUDES = st.one_of(
    st.floats(-180, 180, allow_nan=False),
    st.integers(-18_000, 18_000).map(lambda hundredths: hundredths / 100),
)
LATITUDES = st.one_of(
    st.floats(-90, 90, allow_nan=False),
    st.integers(-9_000, 9_000).map(lambda hundredths: hundredths / 100),
)
STEPS = st.sampled_from([0.05, 0.1, 0.25, 0.5, 1.0, 2.5])


def is_inside(cell: Cell, longitude: float, latitude: float, width: Fraction, height: Fraction) -> bool:
    """Whether a point lies in a cell by the half-open rule, judged apart from the code under test."""
    north = Fraction(repr(latitude)) - Fraction(repr(cell.latitude))
    if not -height / 2 <= north < height / 2:
        return False
    if abs(cell.latitude) == 90:
        return True
    east = (Fraction(repr(longitude)) - Fraction(repr(cell.longitude)) + 180) % 360 - 180
    return -width / 2 <= east < width / 2


@given(LONGITUDES, LATITUDES, STEPS)
@example(179.95, 0.0, 0.1)
@example(-180.0, 0.05, 0.1)
@example(180.0, 90.0, 0.1)
@example(0.15, -89.95, 0.1)
def test_an_open_meteo_cell_holds_its_point(longitude: float, latitude: float, step: float) -> None:
    cell = open_meteo_cell(longitude, latitude, step_degrees=step)
    assert is_inside(cell, longitude, latitude, Fraction(repr(step)), Fraction(repr(step)))
    assert -180 <= cell.longitude < 180
    assert -90 <= cell.latitude <= 90


@given(LONGITUDES, LATITUDES)
@example(179.6875, 0.25)
@example(-180.0, -90.0)
@example(180.0, 89.75)
def test_a_nasa_power_cell_holds_its_point(longitude: float, latitude: float) -> None:
    cell = nasa_power_cell(longitude, latitude)
    assert is_inside(cell, longitude, latitude, Fraction(5, 8), Fraction(1, 2))
    assert -180 <= cell.longitude < 180
    assert -90 <= cell.latitude <= 90


@given(LONGITUDES, LATITUDES, STEPS)
def test_the_centre_of_a_cell_lies_in_that_cell(longitude: float, latitude: float, step: float) -> None:
    cell = open_meteo_cell(longitude, latitude, step_degrees=step)
    assert open_meteo_cell(cell.longitude, cell.latitude, step_degrees=step) == cell
    power = nasa_power_cell(longitude, latitude)
    assert nasa_power_cell(power.longitude, power.latitude) == power


@given(LATITUDES)
def test_both_sides_of_the_antimeridian_are_one_place(latitude: float) -> None:
    assert open_meteo_cell(180.0, latitude) == open_meteo_cell(-180.0, latitude)
    assert nasa_power_cell(180.0, latitude) == nasa_power_cell(-180.0, latitude)


@given(LONGITUDES, st.sampled_from([-90.0, 90.0]))
def test_a_pole_is_one_cell_on_every_meridian(longitude: float, latitude: float) -> None:
    assert open_meteo_cell(longitude, latitude) == open_meteo_cell(0.0, latitude)
    assert nasa_power_cell(longitude, latitude) == nasa_power_cell(0.0, latitude)


@given(LONGITUDES, LATITUDES, LONGITUDES, LATITUDES)
def test_cells_with_one_key_are_one_cell(x: float, y: float, other_x: float, other_y: float) -> None:
    for cell_of in (open_meteo_cell, nasa_power_cell):
        one, other = cell_of(x, y), cell_of(other_x, other_y)
        assert (one.key == other.key) == (one == other)
