"""A farm's observations over time, for psycopg, page by page."""

from __future__ import annotations

from models.state import OBSERVATION

_COLUMNS = ", ".join(f'o."{name}"' for name in OBSERVATION)

_OF_FARM = """
FROM farms AS f JOIN observations AS o ON o.farm_id = f.id AND o.boundary_version = f.boundary_version
WHERE f.external_farm_id = %(farm)s AND o."index" = %(index)s AND o.mask_policy = %(mask_policy)s
"""

# The bounds on the instant are what lets Postgres leave the other years alone; a solar day is within a day of UTC's.
# `+ 0` hides the day from its index: in a plan that is kept for any days Postgres takes these for few, and reads that
# index for all farms (24 ms instead of 0.3 with 100,000 observations, seconds with millions).
PAGE = f"""
SELECT {_COLUMNS} {_OF_FARM}
    AND o.acquired_at >= %(first)s AND o.acquired_at < %(last)s
    AND o.day + 0 BETWEEN %(start)s AND %(end)s
    AND o.acquired_at > %(after)s
    AND o.clear_fraction >= %(min_clear_fraction)s AND (%(with_empty)s OR o.ndvi IS NOT NULL)
ORDER BY o.acquired_at
LIMIT %(limit)s
"""
"""Observations of the present boundary from `start` to `end`, those after the instant `after`, oldest first."""

LATEST = f"""
SELECT {_COLUMNS} {_OF_FARM}
    AND o.ndvi IS NOT NULL AND o.clear_fraction >= %(min_clear_fraction)s
ORDER BY o.acquired_at DESC
LIMIT 1
"""
"""The newest observation with a value that is clear enough."""
