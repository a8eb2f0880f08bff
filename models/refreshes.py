"""Refreshes that were asked for, for psycopg: the primary key allows one of a farm, and a token says whose it is.

Whoever claims it asks Prefect, and notes the run. When that run has ended, the next one who asks claims it anew.
"""

from __future__ import annotations

CLAIM = """
INSERT INTO farm_refreshes (farm_id, token)
SELECT id, %(token)s FROM farms WHERE external_farm_id = %(farm)s
ON CONFLICT (farm_id) DO NOTHING
RETURNING token, asked_at
"""
"""One row for who may ask Prefect now; none when a refresh is known already, or the farm is not."""

KNOWN = """
SELECT r.token, r.run_id, r.asked_at, r.asked_at < now() - interval '1 minute' AS is_old
FROM farm_refreshes AS r JOIN farms AS f ON f.id = r.farm_id
WHERE f.external_farm_id = %(farm)s
"""
"""The last refresh of a farm. One that is old and has no run was cut short before Prefect was asked."""

CLAIM_AGAIN = """
UPDATE farm_refreshes SET token = %(token)s, run_id = NULL, asked_at = now()
WHERE token = %(old_token)s
RETURNING token, asked_at
"""
"""One row for the first who takes the place of a refresh that has ended."""

NOTE_RUN = "UPDATE farm_refreshes SET run_id = %(run_id)s WHERE token = %(token)s"

CUT_SHORT = "UPDATE farm_refreshes SET asked_at = now() - interval '1 hour' WHERE token = %(token)s"
"""Prefect did not answer: the next who asks need not wait."""
