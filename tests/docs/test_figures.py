"""Figures of a page are those of the run whose result is kept beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "handler_overhead.json").read_text())["results"]
ROW, ROWS = "1 row of 64", "64 rows of 784"
TOLD = {
    (ROW, "bare `session.run`"): "bare session.run",
    (ROW, "a handler as one would write it, json module"): "plain handler, json module",
    (ROW, "the same with orjson"): "plain handler, orjson",
    (ROW, "Powertools resolver, pydantic, EMF"): "Powertools, pydantic, EMF",
    (ROW, "FastAPI, pydantic, Mangum"): "FastAPI, pydantic, Mangum",
    (ROW, "Perch, `features`"): "perch",
    (ROW, "Perch, with declared ranges"): "perch, with declared ranges",
    (ROW, "Perch, every request captured"): "perch, capturing every request",
    (ROW, "Perch, from the cache"): "perch, from the cache",
    (ROW, "Perch, Open Inference Protocol, JSON"): "perch, protocol, JSON",
    (ROW, "Perch, Open Inference Protocol, bytes in and out"): "perch, protocol, bytes in and out",
    (ROW, "Perch, refusing a request"): "perch, refusing",
    (ROWS, "plain protocol handler, json module"): "plain protocol handler, json module",
    (ROWS, "Powertools, pydantic, EMF"): "Powertools, pydantic, EMF",
    (ROWS, "FastAPI, pydantic, Mangum"): "FastAPI, pydantic, Mangum",
    (ROWS, "Perch, JSON, flat"): "perch, protocol, JSON, flat",
    (ROWS, "Perch, JSON, nested"): "perch, protocol, JSON, nested",
    (ROWS, "Perch, `features`"): "perch, features",
    (ROWS, "Perch, `features`, every request captured"): "perch, features, capturing",
    (ROWS, "Perch, bytes in and out"): "perch, protocol, bytes in and out",
}
"""Of each table, the words of a row and what the benchmark calls it."""


def told(table: str, name: str) -> list[float]:
    """The numbers of a row: median and what is added in µs, and times plain orjson; of many rows only the last."""
    cells = 3 if table == ROW else 1
    [row] = re.findall(rf"^\| {re.escape(name)} \|((?:[^|\n]*\|){{{cells}}})$", PAGE, re.MULTILINE)
    return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", row)]


@pytest.mark.parametrize(("table", "name"), TOLD)
def test_the_page_tells_what_the_last_run_found(table: str, name: str) -> None:
    """Rounded to three figures: whoever saves a new result tells it, or the page says what no run has shown."""
    found = RESULTS[table][TOLD[table, name]]
    names = ("median_us", "added_us", "ratio_to_plain_orjson") if table == ROW else ("ratio_to_plain_orjson",)
    expected = [found[one] for one in names if found[one]]

    assert told(table, name) == pytest.approx(expected, rel=0.006, abs=0.005)


def test_every_row_of_the_run_is_told() -> None:
    """The bare call and the handler that others are compared with stand in the sentence before the second table."""
    left_out = {ROW: set(), ROWS: {"bare session.run", "plain protocol handler, orjson"}}

    for table, rows in RESULTS.items():
        assert {key for (of, _), key in TOLD.items() if of == table} == rows.keys() - left_out[table]
