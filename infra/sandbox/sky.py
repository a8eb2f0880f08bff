"""The clouds of one pass, and what they do to the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.sandbox.noise import smooth_noise
from infra.sandbox.passes import Pass, stream

SHADOW, UNCLASSIFIED, MEDIUM, THICK, CIRRUS = 3, 7, 8, 9, 10
CLOUDY = (MEDIUM, THICK, CIRRUS)
_WEATHER = ("clear", "scattered", "clear", "broken", "scattered", "clear", "cirrus", "scattered", "broken", "overcast")
_CLOUDS = {"clear": 0, "cirrus": 1, "scattered": 6, "broken": 16, "overcast": 0}
_PIXEL_M = 20

Classes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def weather_of(a_pass: Pass, seed: int) -> str:
    """The kind of sky: each ten passes of an orbit get three clear ones, one overcast and so on, in random order."""
    ten, place = divmod(a_pass.number, len(_WEATHER))
    order = np.random.default_rng(stream(seed, "weather", a_pass.relative_orbit, ten)).permutation(len(_WEATHER))
    return _WEATHER[int(order[place])]


def clouds(a_pass: Pass, seed: int) -> Classes:
    """What stands between the satellite and the ground.

    Returns:
        uint8 (y, x) on the district's 20 m grid: 3 shadow, 7 unclassified (a thin rim that hides nothing), 8 medium,
        9 thick, 10 cirrus, and 0 where the view is free.
    """
    rng = np.random.default_rng(stream(seed, "sky", a_pass.name))
    height, width = (size // 2 for size in a_pass.district.grid.shape)
    weather = weather_of(a_pass, seed)
    depth = np.full((height, width), -1.0)
    for _ in range(_CLOUDS[weather]):
        _add_cloud(depth, rng, radius_m=float(rng.uniform(400, 1900)))
    if weather == "overcast":
        depth = 0.75 + 0.7 * smooth_noise(rng, depth.shape, 90)
    depth += np.where(depth > -0.9, 0.25 * smooth_noise(rng, depth.shape, 9), 0)
    sky = np.zeros((height, width), np.uint8)
    if weather in ("cirrus", "broken"):
        veil = np.full((height, width), -1.0)
        for _ in range(3):
            _add_cloud(veil, rng, radius_m=float(rng.uniform(1500, 3500)))
        sky[veil > 0.2] = CIRRUS
    body = depth > 0.1
    down, right = (-1 if not a_pass.district.is_southern else 1) * int(rng.integers(14, 30)), -int(rng.integers(8, 24))
    sky[_moved(body, down, right) & (sky == 0)] = SHADOW
    sky[(depth > 0.05) & (sky == 0)] = UNCLASSIFIED
    sky[body] = MEDIUM
    sky[depth > 0.35] = THICK
    return sky


def veil(red: Floats, nir: Floats, sky: Classes) -> tuple[Floats, Floats]:
    """Red and near infrared as seen through this sky: two arrays (y, x) at 10 m, float32, reflectance, none missing."""
    added, passed = np.zeros(11, np.float32), np.ones(11, np.float32)
    added[[MEDIUM, THICK, CIRRUS]] = 0.22, 0.62, 0.06
    passed[[SHADOW, MEDIUM, THICK, CIRRUS]] = 0.4, 0.55, 0.08, 0.9
    fine = sky.repeat(2, axis=0).repeat(2, axis=1)
    add, let = added[fine], passed[fine]
    return red * let + add, nir * let + add


def _add_cloud(depth: npt.NDArray[np.float64], rng: np.random.Generator, *, radius_m: float) -> None:
    """Raise the depth to a dome over an ellipse somewhere in the district, in place."""
    height, width = depth.shape
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    long, short = radius_m / _PIXEL_M, radius_m / _PIXEL_M * rng.uniform(0.35, 0.9)
    angle = rng.uniform(0, np.pi)
    rows = slice(max(int(y - long), 0), min(int(y + long) + 1, height))
    columns = slice(max(int(x - long), 0), min(int(x + long) + 1, width))
    down, right = np.mgrid[rows, columns].astype(np.float64) - np.array([y, x])[:, None, None]
    along = (right * np.cos(angle) + down * np.sin(angle)) / long
    across = (down * np.cos(angle) - right * np.sin(angle)) / short
    np.maximum(depth[rows, columns], 1 - along**2 - across**2, out=depth[rows, columns])


def _moved(cells: npt.NDArray[np.bool_], down: int, right: int) -> npt.NDArray[np.bool_]:
    moved = np.roll(cells, (down, right), axis=(0, 1))
    moved[slice(0, down) if down > 0 else slice(down, None)] = False
    moved[:, slice(0, right) if right > 0 else slice(right, None)] = False
    return np.asarray(moved)
