"""Exported files: they come back as they were, and a damaged one is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bigain.evaluate import read_results, summarise, timings, write_results
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
