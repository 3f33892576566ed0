"""Exported files: they come back as they were, and a damaged one is named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigain.run.export import add_results, read_results, write_results
from bigain.run.store import Store
from bigain.run.summary import Results, Timings, summarise, timings


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
    rounded = replace(results.rows[0], kid=1.25)  # another machine's rounding
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
        ({"classified": 5}, r"5 classified and 6 generated images in the results to add, and only 4 classified and 6"),
        ({"generated": 7}, r"4 classified and 7 generated images in the results to add, and only 4 classified and 6"),
        ({"flops": 899}, r"todo:factor=2 has 900 FLOPs there and 899"),
        ({"accuracy": 0.489}, r"todo:factor=2 classifies 50\.0% of 4 images there and 48\.9%"),
        ({"fid": 1e6}, r"todo:factor=2 has an FID of [\d.]+ there and 1000000\.00 in the results to add"),
    ],
)
def test_a_partner_that_does_not_agree_is_refused(
    known_store: Store, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "r.json"
    results, times = summarise(known_store), timings(known_store)
    write_results(path, results, times)
    before = path.read_bytes()
    other = replace(results.rows[1], **change)
    with pytest.raises(ValueError, match=message):
        add_results(path, replace(results, rows=(results.rows[0], other)), times)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"accuracy": 0.49}, {"classified": 2, "accuracy": 0.1, "generated": 1, "fid": 9e9}])
def test_rounding_and_fewer_images_of_a_partner_are_no_contradiction(
    known_store: Store, tmp_path: Path, change: dict[str, Any]
) -> None:
    results, times = summarise(known_store), timings(known_store)
    write_results(tmp_path / "r.json", results, times)
    other = replace(results.rows[1], **change)
    found, _ = add_results(tmp_path / "r.json", replace(results, rows=(results.rows[0], other)), times)
    assert found.rows == results.rows


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_added_has_as_many_images(known_store: Store, tmp_path: Path, number: int) -> None:
    results, times = _split(known_store, tmp_path / "r.json")
    rows = list(results.rows)
    rows[number] = replace(rows[number], classified=3)
    with pytest.raises(ValueError, match="3 classified and 6 generated"):
        add_results(tmp_path / "r.json", replace(results, rows=tuple(rows)), times)
    with pytest.raises(ValueError, match=r"no compression must be measured on 4 .*the results to add have no"):
        add_results(tmp_path / "r.json", replace(results, rows=results.rows[1:]), times)
