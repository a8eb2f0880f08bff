"""How Postgres reads a series when it keeps one plan for all farms and days."""

from __future__ import annotations

import re

import psycopg

from models import series


def test_a_kept_plan_reads_the_rows_of_one_farm_and_never_all_rows_of_some_days(database_url: str) -> None:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", series.PAGE)))
    query = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", series.PAGE)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE observations_2026 PARTITION OF observations FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
        )
        connection.execute("SET enable_seqscan = off")
        lines = connection.execute(f"EXPLAIN (GENERIC_PLAN) {query}".encode()).fetchall()
    plan = "\n".join(line for (line,) in lines)
    assert "observations_2026" in plan
    assert "farm_id = f.id" in plan
    assert "day_idx" not in plan
