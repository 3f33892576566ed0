"""A committed results file is one run: every difference in it follows from its own rows."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

import pytest

from bigain.run.results import Results, Row, read_results

FILES = sorted((Path(__file__).parents[2] / "results").glob("*.csv"))
ROUNDING = 1e-5  # of values with 6 significant digits, relative to the larger


def differs(value: float, minuend: float, subtrahend: float) -> bool:
    return abs(value - (minuend - subtrahend)) > ROUNDING * max(abs(minuend), abs(subtrahend), 1e-3)


def contradictions(results: Results) -> list[str]:
    """Values of a results file that do not follow from its rows."""
    rows = {row.method: row for row in results.rows}
    plain, wrong = rows["none"], []
    for row in results.rows:
        if row.change is not None and row.classified == plain.classified:
            assert row.accuracy is not None
            assert plain.accuracy is not None
            if differs(row.change, row.accuracy, plain.accuracy):
                wrong.append(f"change of {row.method}")
        if row.flops_change is not None:
            assert row.flops is not None
            assert plain.flops is not None
            if differs(row.flops_change, row.flops / plain.flops, 1):
                wrong.append(f"flops_change of {row.method}")
    for comparison in results.comparisons:
        ours, theirs = rows[comparison.method], rows[comparison.other]
        if (ours.classified, ours.generated) != (theirs.classified, theirs.generated):
            wrong.append(f"images of {comparison.method} and {comparison.other}")
        for measure, gain in comparison.gains.items():
            first, second = getattr(ours, measure), getattr(theirs, measure)
            sign = -1 if measure == "fid" else 1
            if gain is not None and differs(gain.value, sign * first, sign * second):
                wrong.append(f"{measure} of {comparison.method} against {comparison.other}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_difference_follows_from_the_files_own_rows(path: Path) -> None:
    results, times = read_results(path.with_suffix(".json"))
    assert contradictions(results) == []
    assert times is not None
    assert times.methods.keys() <= {row.method for row in results.rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_csv_has_the_rows_of_the_json(path: Path) -> None:
    results, _ = read_results(path.with_suffix(".json"))
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [row.method for row in results.rows]
    assert set(lines[0]) <= {field.name for field in fields(Row)}
    for line, row in zip(lines, results.rows, strict=True):
        for name, text in line.items():
            value = getattr(row, name)
            assert text == ("" if value is None else str(value)), f"{name} of {row.method}"
