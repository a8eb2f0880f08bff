"""Which source answers, time by time and variable by variable: one rule, as SQL.

The first of these that tells the variable answers:

1. a final value of Open-Meteo, then of NASA POWER;
2. a provisional value of Open-Meteo, then of NASA POWER;
3. a forecast of Open-Meteo, then of NASA POWER.

So forecasts answer for what is ahead, and for the last days until an analysis of them has come; behind, the best
analysis answers and the other source fills its gaps. Should one source have told it in several ways, what was
observed counts more than a reanalysis, an ERA5 model more than others, and then the model that was read last. The
rule looks at nothing but what is stored, so the order of arrival does not matter.

Values of the soil are told by layer, never joined over layers.
"""

from __future__ import annotations

from models.weather import Grain, Source
from models.weather_rows import FINAL, SHEETS, SOIL

SOURCES_IN_ORDER = (Source.OPEN_METEO, Source.NASA_POWER)
"""Whoever stands first answers, all else being equal."""

OF_FARMS = """
farm_sites AS (
    SELECT farm_id, array_agg(cell_id ORDER BY cell_id) AS site
    FROM farm_cells
    WHERE farm_id = ANY(CAST(:farm_ids AS bigint[]))
    GROUP BY farm_id
), site_cells AS (
    SELECT s.site, c.id AS cell_id, c.source
    FROM (SELECT DISTINCT site FROM farm_sites) AS s
    CROSS JOIN unnest(s.site) AS of_site(cell_id) JOIN weather_cells AS c ON c.id = of_site.cell_id
)"""
"""Sites of farms, for `reconciled_sql`: farms in the same cells share one, so that it is reconciled once."""

OF_CELLS = """
site_cells AS (
    SELECT CAST('{}' AS integer[]) AS site, id AS cell_id, source FROM weather_cells WHERE key = ANY(:cell_keys)
), farm_sites AS (
    SELECT CAST(NULL AS bigint) AS farm_id, CAST('{}' AS integer[]) AS site
)"""
"""The one site that these cells make up, of no farm."""


def reconciled_sql(
    grain: Grain,
    *,
    name: str = "reconciled",
    bounds: tuple[str, str] = ("first", "last"),
    variables: tuple[str, ...] | None = None,
) -> str:
    """SQL of common table expressions that end in `name`: one row for each site and time with any reading.

    Columns: `site`, `at` (the day or hour); for each of the variables, by default all above ground, its value and
    `..._place`, from which the arrays `sources`, `kinds`, `models`, `finals` and `told_ats` tell who told it. Wants
    `site_cells` before it and the two parameters of `bounds`, days or hours, both included.
    """
    variables = variables or SHEETS[grain].above_ground
    ranked = _ranked(grain, name=name, variables=variables, by="", within=_between(grain, *bounds))
    return ranked + _joined(name, variables, by="")


def ranked_sql(grain: Grain, *, name: str = "reconciled", at_spots: bool = False) -> str:
    """SQL of common table expressions that end in `..._ranked`: as `reconciled_sql`, before rows are made one.

    One row for each reading that counts at a site and time: `site`, `at`, `place` (1 answers first), `source`,
    `kind`, `model`, `is_final`, `told_at` and the variables above ground; of each the first that is not null answers.

    Args:
        grain: days or hours.
        name: how the names of the expressions begin.
        at_spots: each row of `site_cells` has the one time `at` that is wanted of it, instead of two parameters.
    """
    within = f"r.{SHEETS[grain].time} = s.at" if at_spots else _between(grain, "first", "last")
    return _ranked(grain, name=name, variables=SHEETS[grain].above_ground, by="", within=within, is_of_few=True)


def reconciled_soil_sql(grain: Grain, *, name: str = "reconciled_soil") -> str:
    """As `reconciled_sql`, for the soil: one row for each site, time and `soil_layer`, told by one reading."""
    within = f"{_between(grain, 'first', 'last')} AND r.soil_layer IS NOT NULL"
    by = ", soil_layer"
    return _ranked(grain, name=name, variables=SOIL, by=by, within=within) + _joined(name, SOIL, by=by)


def _between(grain: Grain, first: str, last: str) -> str:
    return f"r.{SHEETS[grain].time} BETWEEN :{first} AND :{last}"


def _ranked(
    grain: Grain, *, name: str, variables: tuple[str, ...], by: str, within: str, is_of_few: bool = False
) -> str:
    sheet = SHEETS[grain]
    wanted = f"r.cell_id = s.cell_id AND {within}"
    readings = f"JOIN {sheet.table} AS r ON {wanted}"
    if is_of_few:
        # Cell by cell along the primary key: left to itself, Postgres reads a whole year of all cells for 100 days of
        # one, forty times as slow. `OFFSET 0` is what it cannot look behind.
        readings = f"CROSS JOIN LATERAL (SELECT * FROM {sheet.table} AS r WHERE {wanted} OFFSET 0) AS r"  # noqa: S608
    order = " ".join(f"WHEN '{source}' THEN {place}" for place, source in enumerate(SOURCES_IN_ORDER))
    return f"""
{name}_parts AS (
    SELECT s.site, s.source, r.{sheet.time} AS at, r.kind, r.model, r.told_at, r.soil_layer,
           r.is_final AND NOT is_older AS is_final,
           {", ".join(_part(each) for each in variables)}
    FROM site_cells AS s
    {readings}
    JOIN (VALUES (false), (true)) AS part(is_older) ON NOT is_older OR (r.is_final AND r.kept IS NOT NULL)
), {name}_ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY site, at{by}
        ORDER BY CASE WHEN kind = 'forecast' THEN 2 WHEN is_final THEN 0 ELSE 1 END,
                 CASE source {order} ELSE {len(SOURCES_IN_ORDER)} END, kind = 'observed' DESC,
                 starts_with(model, 'era5') DESC, told_at DESC, model COLLATE "C", kind
    ) AS place
    FROM {name}_parts
    WHERE {" OR ".join(f"{each} IS NOT NULL" for each in variables)}
)"""  # noqa: S608


def _joined(name: str, variables: tuple[str, ...], *, by: str) -> str:
    return f"""
, {name} AS (
    SELECT site, at{by},
           array_agg(source ORDER BY place) AS sources, array_agg(kind ORDER BY place) AS kinds,
           array_agg(model ORDER BY place) AS models, array_agg(is_final ORDER BY place) AS finals,
           array_agg(told_at ORDER BY place) AS told_ats,
           {", ".join(_best(each, of_one_reading=bool(by)) for each in variables)}
    FROM {name}_ranked
    GROUP BY site, at{by}
)"""  # noqa: S608


def _part(variable: str) -> str:
    """The value, if it belongs to this part: what a final row keeps of a provisional telling is another part."""
    kept = "soil" if variable in SOIL else variable
    is_older = f"coalesce(r.is_final AND CAST(r.kept->>'{kept}' AS bigint) < {FINAL}, false)"
    return f"CASE WHEN r.kept IS NULL OR {is_older} = is_older THEN r.{variable} END AS {variable}"


def _best(variable: str, *, of_one_reading: bool) -> str:
    place = "1" if of_one_reading else f"min(place) FILTER (WHERE {variable} IS NOT NULL)"
    return f"(array_agg({variable} ORDER BY place))[{place}] AS {variable}, {place} AS {variable}_place"
