"""Several models side by side, against the cells of each model's own table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bigain.report.table import markdown
from bigain.run.results import Results
from bigain.run.summary import summarise, timings
from experiments.readme.side_by_side import side_by_side


def named(results: Results, model: str) -> Results:
    return replace(results, settings=results.settings | {"model": model})


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_model_has_the_numbers_of_its_own_table(known_store: Any) -> None:
    results, times = summarise(known_store), timings(known_store)
    heads, _, plain, todo = rows(side_by_side([(named(results, "m"), times), (named(results, "other"), None)]))
    assert heads == ["method", "m: accuracy, %", "FID", "FLOPs", "speed", "other: accuracy, %", "FID", "FLOPs", "speed"]
    own_heads, _, _, own = rows(markdown(results, times))
    shown = dict(zip(own_heads, own, strict=True))
    assert todo[:3] == [shown["method"], shown["accuracy, %"], shown["FID"]]
    assert f"({todo[3]})" in shown["kFLOPs" if "kFLOPs" in shown else "MFLOPs"]
    assert f"({todo[4]})" in shown["ms per forward, batch 2"]
    assert todo[5:8] == todo[1:4]
    assert todo[8] == "–", "not timed"
    assert plain[3:5] == ["–", "–"]


def test_what_both_were_measured_on_is_said_once(known_store: Any) -> None:
    results = summarise(known_store)
    other = named(results, "other")
    other = replace(other, settings=other.settings | {"guidance": 3.0})
    text = side_by_side([(named(results, "m"), None), (other, None)])
    assert text.count("95% Wilson intervals") == text.count("FLOPs: one forward") == 1
    assert text.index("95% Wilson intervals") < text.index("Model m") < text.index("Model other")
    for guidance in ("guidance 1;", "guidance 3;"):
        assert text.count(guidance) == 1


def test_methods_that_one_model_lacks_are_left_out(known_store: Any) -> None:
    results = summarise(known_store)
    third = replace(results.rows[1], method="todo:factor=3")
    longer = named(results.with_rows((*results.rows, third)), "longer")
    assert len(rows(side_by_side([(longer, None), (named(results, "m"), None)]))) == 4


def test_what_cannot_be_compared_is_refused(known_store: Any) -> None:
    results = summarise(known_store)
    with pytest.raises(ValueError, match="two models at least, each once, not m"):
        side_by_side([(results, None)])
    with pytest.raises(ValueError, match="each once, not m, m"):
        side_by_side([(results, None), (results, None)])
    with pytest.raises(ValueError, match="m, n have no method in common besides no compression"):
        side_by_side([(results, None), (named(results.with_rows(results.rows[:1]), "n"), None)])
