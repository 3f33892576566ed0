"""Exported files: they come back as they were, and a damaged one is named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigain.evaluate import Results, Row, Timings, add_results, read_results, summarise, timings, write_results
from bigain.evaluate.store import Store


def test_what_is_written_is_read_back_with_times_in_a_file_of_their_own(known_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "glyphs.json"
    results, times = summarise(known_store), timings(known_store)
    write_results(path, results, times)
    assert read_results(path) == (results, times)
    assert "median" not in path.read_text()
    (tmp_path / "glyphs.timings.json").unlink()
    assert read_results(path) == (results, None)
    assert sorted(file.name for file in tmp_path.glob("glyphs*")) == ["glyphs.csv", "glyphs.json"]


def test_csv_has_a_line_per_method_and_blanks_for_what_was_not_found_out(known_store: Store, tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", summarise(known_store), timings(known_store))
    with (tmp_path / "r.csv").open(newline="") as file:
        plain, todo = csv.DictReader(file)
    assert (plain["method"], plain["accuracy"], plain["psnr"]) == ("none", "0.75", "")
    assert float(todo["change"]) == -0.25


@pytest.mark.parametrize("content", ["not json", "[]", "{}", json.dumps({"format": "bigain results 1"})])
def test_other_files_are_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no results file"):
        read_results(path)
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "missing.json")


def _split(store: Store, path: Path) -> tuple[Results, Timings]:
    """Writes the results of no compression alone to ``path``; returns those of all methods."""
    results, times = summarise(store, ["todo:factor=2"]), timings(store)
    first = replace(results, rows=results.rows[:1], comparisons=())
    write_results(path, first, replace(times, methods={"none": times.methods["none"]}))
    return results, times


def test_what_is_added_in_parts_is_the_whole(known_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results, times = _split(known_store, path)
    assert add_results(path, results, times) == read_results(path) == (results, times)
    before = path.read_bytes()
    add_results(path, results, times)
    assert path.read_bytes() == before, "nothing is there twice"


def test_what_is_there_stays_and_other_versions_are_noted(known_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results, times = _split(known_store, path)
    rounded = replace(results.rows[0], fid=1.25)  # another machine's rounding
    elsewhere = replace(results, rows=(rounded, *results.rows[1:]), versions=[{"torch": "2"}])
    found, _ = add_results(path, elsewhere, times)
    assert found.rows == results.rows
    assert found.versions == [{"torch": "1"}, {"torch": "2"}]


def test_times_that_lack_a_method_replace_none(known_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results, times = _split(known_store, path)
    new = replace(times, methods={"todo:factor=2": times.methods["todo:factor=2"]})
    _, kept = add_results(path, results, new)
    assert kept.methods == {"none": times.methods["none"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"model": "m", "seed": 1}}, r"of another run: .*seed is 0 there and 1 here"),
        ({"reference": None}, r"of another run: data is \"letters\" there and null here"),
    ],
)
def test_another_run_is_not_added(known_store: Store, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    results, times = _split(known_store, tmp_path / "r.json")
    before = (tmp_path / "r.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        add_results(tmp_path / "r.json", replace(results, **change), times)
    assert (tmp_path / "r.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classified": 5}, r"none has 5 images classified in the results to add, and only 4"),
        ({"generated": 7}, r"none has 7 images generated in the results to add, and only 6"),
        ({"flops": 999}, r"none has 1,000 FLOPs there and 999"),
        ({"accuracy": 0.5}, r"none classifies 75\.0% of 4 images there and 50\.0%"),
    ],
)
def test_a_partner_that_does_not_agree_is_refused(
    known_store: Store, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    results, times = _split(known_store, tmp_path / "r.json")
    other: Row = replace(results.rows[0], **change)
    with pytest.raises(ValueError, match=message):
        add_results(tmp_path / "r.json", replace(results, rows=(other, *results.rows[1:])), times)


def test_fewer_images_of_a_partner_are_no_contradiction(known_store: Store, tmp_path: Path) -> None:
    results, times = _split(known_store, tmp_path / "r.json")
    fewer = replace(results.rows[0], classified=2, accuracy=0.5)
    found, _ = add_results(tmp_path / "r.json", replace(results, rows=(fewer, *results.rows[1:])), times)
    assert found.rows == results.rows
