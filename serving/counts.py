"""What one worker has counted since it started; the metrics page tells it, and so may a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Plain numbers: reading them costs no store anything."""

    cache_hits: int = 0
    """Reads answered with the bytes that Redis had."""
    cache_misses: int = 0
    """Reads that Redis knew nothing of."""
    cache_away: int = 0
    """Reads while Redis did not answer."""
    single_flight_waits: int = 0
    """Misses that waited for another request to read the same from Postgres."""
    database_reads: int = 0
    """Read models read from Postgres."""
    throttled: int = 0
    refused: int = 0
    """Credentials that were not good."""
    not_modified: int = 0
    """Answers without a body, because the reader has it already."""
    token_cache_hits: int = 0
    """Shared tokens given out that Redis had."""
    token_cache_misses: int = 0
    """Shared tokens that Redis did not have, or that had to be renewed."""
    token_mint_count: int = 0
    """Shared tokens made."""
