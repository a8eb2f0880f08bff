"""Noise that changes smoothly over the globe and in time, and is the same wherever and whenever it is asked for.

Values are hashed from the knots of a lattice, so no stretch of time has to be computed for a later one to be known.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Noise:
    """One field of noise: its seed and name, and over which distance and time it changes."""

    seed: int
    name: str
    period_h: float
    """Hours between knots."""
    span_degrees: float
    """Degrees between knots; 360 must be a whole multiple of it."""

    def at(self, latitude: float, longitude: float, hours: Floats) -> Floats:
        """Values at one place.

        Args:
            latitude: Degrees north.
            longitude: Degrees east; 180 and -180 are the same meridian.
            hours: Hours since 1970-01-01 UTC, float64 of shape (n), n above 0.

        Returns:
            float64 of shape (n), unitless, within [-1, 1], smooth between knots, none missing.
        """
        step, within = np.divmod(hours / self.period_h, 1)
        index = step.astype(np.int64)
        first = int(index.min())
        knots = self._knots(latitude, longitude, np.arange(first, int(index.max()) + 2))
        rise = within * within * (3 - 2 * within)
        left = knots[index - first]
        return np.asarray(left + (knots[index - first + 1] - left) * rise)

    def _knots(self, latitude: float, longitude: float, steps: npt.NDArray[np.int64]) -> Floats:
        """Between the four corners of the cell of the lattice that the place lies in, at each of these steps."""
        row, up = divmod(latitude / self.span_degrees, 1)
        column, right = divmod(longitude / self.span_degrees, 1)
        around = round(360 / self.span_degrees)
        total = np.zeros(len(steps))
        for down, height in ((0, 1 - _eased(up)), (1, _eased(up))):
            for over, width in ((0, 1 - _eased(right)), (1, _eased(right))):
                total += height * width * self._hashed(int(row) + down, (int(column) + over) % around, steps)
        return total

    def _hashed(self, row: int, column: int, steps: npt.NDArray[np.int64]) -> Floats:
        """Even over [-1, 1], one number for each step of one corner."""
        words = f"{self.seed}/{self.name}/{row}/{column}".encode()
        key = np.uint64(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big"))
        mixed = steps.astype(np.uint64) * np.uint64(_GOLDEN) + key  # wraps, as a hash should
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return np.asarray((mixed >> np.uint64(11)) * (2 / 2**53) - 1)


def _eased(fraction: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * fraction)
