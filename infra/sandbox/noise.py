"""Noise that changes slowly over the ground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> npt.NDArray[np.float64]:
    """Values within [-1, 1], drawn every `cell` pixels and linear in between.

    Returns:
        float64 (y, x) of this shape, unitless, none missing.
    """
    height, width = shape
    knots = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2))
    row, down = np.divmod(np.arange(height) / cell, 1)
    column, right = np.divmod(np.arange(width) / cell, 1)
    row, column, down = row.astype(int), column.astype(int), down[:, None]
    between_rows = knots[row] * (1 - down) + knots[row + 1] * down
    return np.asarray(between_rows[:, column] * (1 - right) + between_rows[:, column + 1] * right)
