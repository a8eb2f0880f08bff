"""How the NDVI of a crop runs through the year: two logistic curves, one up and one down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HALF_A_YEAR_DAYS = 182.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The season of one crop on the northern hemisphere."""

    name: str
    bare: float
    """NDVI of the ground before and after."""
    peak: float
    green_up: float
    """Day of the year at which half of the rise is done."""
    senescence: float
    """Day of the year at which half of the fall is done."""
    rise_days: float
    fall_days: float
    cut_every_days: float | None = None
    """Mown so often between green-up and senescence."""


def _crop(
    name: str, levels: tuple[float, float], turns: tuple[float, float], speeds: tuple[float, float], cut: float = 0
) -> Crop:
    return Crop(
        name=name,
        bare=levels[0],
        peak=levels[1],
        green_up=turns[0],
        senescence=turns[1],
        rise_days=speeds[0],
        fall_days=speeds[1],
        cut_every_days=cut or None,
    )


CROPS: tuple[Crop, ...] = (
    _crop("winter wheat", (0.18, 0.86), (76, 172), (11, 7)),
    _crop("winter barley", (0.18, 0.83), (70, 160), (11, 7)),
    _crop("oilseed rape", (0.20, 0.85), (72, 168), (12, 7)),
    _crop("maize", (0.15, 0.88), (158, 258), (8, 10)),
    _crop("sunflower", (0.15, 0.82), (150, 238), (8, 8)),
    _crop("soybean", (0.15, 0.88), (166, 260), (9, 8)),
    _crop("sugar beet", (0.15, 0.85), (150, 296), (11, 14)),
    _crop("alfalfa", (0.30, 0.85), (82, 300), (12, 14), 36),
    _crop("grassland", (0.40, 0.76), (85, 308), (16, 18)),
    _crop("orchard", (0.35, 0.72), (106, 302), (12, 14)),
    _crop("vegetables", (0.16, 0.70), (140, 222), (8, 8)),
    _crop("fallow", (0.14, 0.32), (110, 300), (22, 22)),
)
WOODLAND = _crop("woodland", (0.45, 0.86), (105, 300), (9, 14))
VILLAGE = _crop("village", (0.10, 0.14), (105, 300), (20, 20))


def season(crop: Crop, day_of_year: float, shift_days: npt.ArrayLike, vigour: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """NDVI of fields of this crop on one day.

    Args:
        crop: Whose curve.
        day_of_year: 1 to 366, of the northern hemisphere; half a year on in the southern.
        shift_days: How much later than usual each field was sown; any shape.
        vigour: Share of the usual rise that each field reaches; same shape.

    Returns:
        float64 of that shape, unitless, within [-1, 1], never missing.
    """
    day = day_of_year - np.asarray(shift_days, dtype=np.float64)
    rise = 1 / (1 + np.exp(-(day - crop.green_up) / crop.rise_days))
    fall = 1 / (1 + np.exp(-(day - crop.senescence) / crop.fall_days))
    cover = np.clip(rise - fall, 0, 1) * np.asarray(vigour, dtype=np.float64)
    if crop.cut_every_days is not None:
        days_since_cut = np.mod(day - crop.green_up - 50, crop.cut_every_days)
        was_cut = (day > crop.green_up + 50) & (day < crop.senescence)
        cover = np.where(was_cut, cover * (1 - 0.75 * np.exp(-days_since_cut / 8)), cover)
    return np.asarray(crop.bare + (crop.peak - crop.bare) * cover, dtype=np.float64)
