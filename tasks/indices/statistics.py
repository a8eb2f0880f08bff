"""Weighted statistics of many farms at once.

Pixels of all farms lie end to end; every sum runs over one farm's own slice, so a farm's numbers depend on its own
pixels alone: not on which farms share the scene, nor on how the imagery was chunked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.domain import Statistics

HISTOGRAM_BINS = 40
QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)

Floats = npt.NDArray[np.float64]


def zonal_statistics(
    values: Floats,
    coverage: Floats,
    *,
    is_inner: npt.NDArray[np.bool_],
    is_clipped: npt.NDArray[np.bool_],
    offsets: npt.NDArray[np.intp],
    pixel_area_ha: float,
) -> list[Statistics | None]:
    """Statistics of NDVI by farm, each pixel weighted by its coverage fraction.

    Mean and population standard deviation are weighted; quantiles are weighted as exactextract defines them (see
    `weighted_quantiles`); minimum and maximum run over all pixels with any coverage. Inner statistics run over inner
    pixels, unweighted, since each is covered whole.

    Args:
        values: (n,) NDVI of the pixels that count, in [-1, 1], no NaN; farm `i` owns `offsets[i]:offsets[i + 1]`.
        coverage: (n,) coverage fractions in (0, 1].
        is_inner: (n,) wholly inside the boundary and its margin.
        is_clipped: (n,) the value was clipped to [-1, 1].
        offsets: (farms + 1,) ascending.
        pixel_area_ha: area of a whole pixel, hectares.

    Returns:
        One entry a farm, None for a farm without pixels.
    """
    counts = np.diff(offsets)
    full = np.flatnonzero(counts)
    if len(full) == 0:
        return [None] * len(counts)
    starts = offsets[full]
    owner = np.repeat(np.arange(len(full)), counts[full])
    weight = np.add.reduceat(coverage, starts)
    mean = np.add.reduceat(values * coverage, starts) / weight
    deviation = values - mean[owner]
    std = np.sqrt(np.add.reduceat(coverage * deviation**2, starts) / weight)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    # a mean can leave the range of its values by a rounding error
    mean = np.clip(mean, low, high)
    inner_count = np.add.reduceat(is_inner.astype(np.intp), starts)
    clipped = np.add.reduceat(is_clipped.astype(np.intp), starts)
    inner_mean = np.add.reduceat(np.where(is_inner, values, 0.0), starts) / np.maximum(inner_count, 1)
    quantiles, order = weighted_quantiles(values, coverage, owner, counts[full], QUANTILES)
    inner_median = _inner_medians(values[order], is_inner[order], inner_count)
    histograms = _histograms(values, coverage, owner, len(full))
    found: list[Statistics | None] = [None] * len(counts)
    columns = (mean, std, low, high, *quantiles, inner_mean, inner_median, weight * pixel_area_ha)
    rows = np.column_stack(columns).tolist()
    integers = np.column_stack((inner_count, counts[full], clipped)).tolist()
    for place, row, (inner, pixels, cut), histogram in zip(full, rows, integers, histograms, strict=True):
        found[place] = _statistics(row, inner, pixels, cut, histogram)
    return found


def _statistics(row: Sequence[float], inner: int, pixels: int, clipped: int, histogram: list[float]) -> Statistics:
    mean, std, low, high, p10, p25, median, p75, p90, inner_mean, inner_median, clear_area_ha = row
    return Statistics(
        mean=mean,
        std=std,
        min=low,
        max=high,
        median=median,
        p10=p10,
        p25=p25,
        p75=p75,
        p90=p90,
        histogram=tuple(histogram),
        inner_mean=inner_mean if inner else None,
        inner_median=inner_median if inner else None,
        inner_pixel_count=inner,
        pixel_count=pixels,
        clear_area_ha=clear_area_ha,
        clipped_count=clipped,
    )


def weighted_quantiles(
    values: Floats,
    weights: Floats,
    owner: npt.NDArray[np.intp],
    counts: npt.NDArray[np.intp],
    quantiles: Sequence[float],
) -> tuple[list[Floats], npt.NDArray[np.intp]]:
    """Weighted quantiles by group, as exactextract defines them.

    Equal values of a group are one value with the sum of their weights. With the n distinct values in ascending
    order, value k (from 0) stands at s_k = k w_k + (n - 1) (w_0 + ... + w_{k-1}); quantile q is read at
    q (n - 1) (w_0 + ... + w_{n-1}) by linear interpolation between neighbours, the last value where nothing stands
    to the right.

    Args:
        values, weights: (n,) grouped by owner, ascending owners.
        owner: (n,) group number of each value.
        counts: (groups,) values in each group, at least 1.
        quantiles: in [0, 1].

    Returns:
        One (groups,) array a quantile, and the order (n,) that sorts the values inside their groups.
    """
    order = _ascending(values, owner, counts)
    x, w = values[order], weights[order]
    is_new = np.ones(len(x), np.bool_)
    is_new[1:] = (x[1:] != x[:-1]) | (owner[1:] != owner[:-1])
    if not is_new.all():
        x, w, counts = x[is_new], _summed(w, is_new), np.add.reduceat(is_new, np.cumsum(counts) - counts, dtype=np.intp)
    first = np.cumsum(counts) - counts
    stand = _running_sum(w, first, counts) - w
    stand *= np.repeat((counts - 1).astype(np.float64), counts)
    stand += (np.arange(len(x)) - np.repeat(first, counts)) * w
    total = np.add.reduceat(w, first)
    found = []
    for q in quantiles:
        target = q * (counts - 1) * total
        # how many of a group stand at or left of the target; the first always does
        at_or_left = np.add.reduceat(stand <= np.repeat(target, counts), first, dtype=np.intp)
        left = first + np.maximum(at_or_left, 1) - 1
        right = np.minimum(left + 1, first + counts - 1)
        gap = stand[right] - stand[left]
        share = np.divide(target - stand[left], gap, out=np.zeros_like(gap), where=gap > 0)
        found.append(x[left] + share * (x[right] - x[left]))
    return found, order


def _summed(w: Floats, is_new: npt.NDArray[np.bool_]) -> Floats:
    """Sums of weights from each new value to the next; most stand alone and need no summing."""
    starts = np.flatnonzero(is_new)
    ends = np.append(starts[1:], len(w))
    sums = w[starts]
    several = np.flatnonzero(ends - starts > 1)
    bounds = np.column_stack((starts[several], ends[several])).ravel()
    sums[several] = np.add.reduceat(np.append(w, 0.0), bounds)[::2]  # the end of all is a place too
    return sums


def _ascending(values: Floats, owner: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The order that sorts the values, in [-1, 1], inside their groups, equal ones as they come.

    Whole numbers made of group, value and place are sorted all at once, by numpy's vector instructions: a quarter of
    the time of one sort a group. What is too near for them to tell apart, a few groups in a hundred have, is sorted
    as it is.
    """
    place_bits, owner_bits = int(counts.max() - 1).bit_length(), int(len(counts) - 1).bit_length()
    value_bits = min(62 - place_bits - owner_bits, 52)
    first = np.cumsum(counts) - counts
    start = np.repeat(first, counts)
    key = ((values + 1) * 2.0 ** (value_bits - 1)).astype(np.int64)
    key += owner << (value_bits + 1)
    key <<= place_bits
    key += np.arange(len(values)) - start
    key.sort()
    key &= (1 << place_bits) - 1
    order: npt.NDArray[np.intp] = key + start
    x = values[order]
    for group in np.unique(owner[1:][(x[1:] < x[:-1]) & (owner[1:] == owner[:-1])]).tolist():
        own = slice(first[group], first[group] + counts[group])
        order[own] = first[group] + np.argsort(values[own], kind="stable")
    return order


def _running_sum(w: Floats, first: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]) -> Floats:
    """Cumulative sum inside each group, from the group's own values alone."""
    sums = np.empty_like(w)
    for start, end in zip(first.tolist(), (first + counts).tolist(), strict=True):
        np.add.accumulate(w[start:end], out=sums[start:end])
    return sums


def _inner_medians(x: Floats, is_inner: npt.NDArray[np.bool_], inner_count: npt.NDArray[np.intp]) -> Floats:
    """Plain medians of the inner values; `x` ascending inside each group; NaN for groups without inner values."""
    inner = x[is_inner]
    first = np.concatenate(([0], np.cumsum(inner_count)[:-1]))
    medians = np.full(len(inner_count), np.nan)
    some = np.flatnonzero(inner_count)
    low = first[some] + (inner_count[some] - 1) // 2
    high = first[some] + inner_count[some] // 2
    medians[some] = (inner[low] + inner[high]) / 2
    return medians


def _histograms(values: Floats, coverage: Floats, owner: npt.NDArray[np.intp], groups: int) -> list[list[float]]:
    """Covered area, in pixels, of each of 40 equal bins over [-1, 1]; the last bin includes 1."""
    bins = np.minimum(((values + 1) * (HISTOGRAM_BINS / 2)).astype(np.intp), HISTOGRAM_BINS - 1)
    flat = np.bincount(owner * HISTOGRAM_BINS + bins, weights=coverage, minlength=groups * HISTOGRAM_BINS)
    return flat.astype(np.float64).reshape(groups, HISTOGRAM_BINS).tolist()
