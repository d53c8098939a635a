"""What holds around a moment and place: holidays, weather, events in town, as they were told before its day.

A row of `context` holds in a cell, in a region and all below it, or everywhere, over some span of time. Moments
and rows meet by their day and by the name of the place, so no moment is paired with more than may hold for it.
"""

from __future__ import annotations

from collections.abc import Collection

from jobs.features.asof import ROW

CONTEXT = "context"
VALUES, NUMBERS = "context__values", "context__numbers"
_FINEST = 9
# An H3 index has its resolution in bits 52 to 55, and a one in each bit of the digits that it leaves open.
_RESOLUTION = 15 << 52
_ALL_BITS = (1 << 64) - 1


def with_context(asked: Collection[str]) -> str:
    """A SELECT of `_row` and two maps for each row of `asked` (see `jobs.features.asof`), by the stored rows of `context`.

    `context__values`: name to value (null where the feed has none) of what holds at `_at`, in the row's `cell` and `region`
    (of the columns `asked` those that are there); `context__numbers`: name to number, of the values that are one. Of several
    rows of a name that of the smallest place counts: a finer cell before a coarser, any cell before a region, a longer region
    before a shorter, any place before everywhere; of one place the one that began last. Maps are empty where nothing holds.
    """
    cell, region = (f'"{name}"' if name in asked else "NULL::VARCHAR" for name in ("cell", "region"))
    best = (
        "SELECT _moment, name, value, number FROM placed JOIN told "
        "ON placed._day = told._date AND placed._place = told._place "
        "WHERE told_on < placed._day AND (until_day IS NULL OR until_day >= placed._day) "
        "AND valid_from <= _at AND _at < valid_until "
        # Of the smallest place first, there what began last; the rest only makes it the same every time.
        "QUALIFY row_number() OVER (PARTITION BY _moment, name ORDER BY _near, valid_from DESC, valid_until DESC, "
        "told_on DESC, value DESC NULLS LAST, number DESC NULLS LAST) = 1"
    )
    there = "number IS NOT NULL"
    maps = (
        "SELECT _moment, map(list(name ORDER BY name), list(value ORDER BY name)) AS _values, "
        f"map(list(name ORDER BY name) FILTER ({there}), list(number ORDER BY name) FILTER ({there})) AS _numbers "
        "FROM best GROUP BY _moment"
    )
    return (
        f"WITH moments AS (SELECT min({ROW}) AS _moment, _at, _day, {cell} AS _cell, {region} AS _region FROM asked "
        f"GROUP BY ALL), placed AS ({_placed()}), told AS ({_told()}), best AS ({best}), maps AS ({maps}) "
        f"SELECT asked.{ROW}, coalesce(_values, MAP {{}}::MAP(VARCHAR, VARCHAR)) AS {VALUES}, "
        f"coalesce(_numbers, MAP {{}}::MAP(VARCHAR, DOUBLE)) AS {NUMBERS} "
        f"FROM asked JOIN moments ON asked._at = moments._at AND {cell} IS NOT DISTINCT FROM _cell "
        f"AND {region} IS NOT DISTINCT FROM _region LEFT JOIN maps USING (_moment)"
    )


def _told() -> str:
    """What was told, each with the days (`told_on`, `until_day`] on which it was the newest word, at each day it holds."""
    newest = "SELECT *, lead(day) OVER (PARTITION BY context_id ORDER BY day) AS until_day FROM context"
    last = "(valid_until - INTERVAL 1 MICROSECOND)::DATE"
    return (
        f"SELECT unnest(generate_series(valid_from::DATE, {last}, INTERVAL 1 DAY))::DATE AS _date, "
        "coalesce(cell, '/' || region, 'everywhere') AS _place, day AS told_on, until_day, name, value, number, "
        f"valid_from, valid_until FROM ({newest}) WHERE NOT gone"
    )


def _placed() -> str:
    """Each moment at each place that holds it, `_near` counting from the smallest."""
    levels = ", ".join(f"({size}, {(size << 52) | ((1 << 3 * (15 - size)) - 1)}::UBIGINT)" for size in range(_FINEST, -1, -1))
    index = "try_cast('0x' || _cell AS UBIGINT)"
    coarser = f"lower(to_hex(({index} & {_ALL_BITS ^ _RESOLUTION}::UBIGINT) | bits))"
    cells = (
        f"SELECT _moment, _at, _day, {_FINEST} - size AS _near, {coarser} AS _place "
        f"FROM moments, (VALUES {levels}) AS levels(size, bits) WHERE ({index} >> 52) & 15 >= size"
    )
    # `US/New York/Brooklyn`, `US/New York` and `US`, each behind a slash, that no cell is so called.
    regions = (
        f"SELECT _moment, _at, _day, {_FINEST} + 1 + len(_parts) - upto AS _near, "
        "'/' || array_to_string(_parts[1:upto], '/') AS _place FROM (SELECT *, unnest(range(1, len(_parts) + 1)) AS upto "
        "FROM (SELECT _moment, _at, _day, string_split(_region, '/') AS _parts FROM moments WHERE _region IS NOT NULL))"
    )
    everywhere = "SELECT _moment, _at, _day, 1000000 AS _near, 'everywhere' AS _place FROM moments"
    return f"{cells} UNION ALL {regions} UNION ALL {everywhere}"
