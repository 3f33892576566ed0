"""Exported files: they come back as they were, and a damaged one is named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigain.run.results import read_results, write_results
from bigain.run.store import Store
from bigain.run.summary import summarise, timings


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


@pytest.mark.parametrize("content", ["not json", "[" * 100_000, "[]", "{}", json.dumps({"format": "bigain results 0"})])
def test_other_files_are_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json must .*bigain results 1"):
        read_results(path)
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(facts={}), "facts must have classes, conditions, data"),
        (lambda values: values.update(rows=[{"method": "none", "accuracy": "high"}]), "accuracy of none must be a num"),
        (lambda values: values.update(rows=[{"method": 3}]), "method must be text, not 3"),
        (lambda values: values.update(rows=[{"method": "none", "beauty": 3}]), "beauty"),
        (lambda values: values.update(rows=None), "must hold results of bigain evaluate"),
        (lambda values: values.pop("settings"), "it lacks 'settings'"),
    ],
)
def test_values_of_the_wrong_shape_are_named(
    known_store: Store, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = tmp_path / "r.json"
    write_results(path, summarise(known_store), timings(known_store))
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=words) as error:
        read_results(path)
    assert str(path) in str(error.value)


def test_a_results_file_says_what_would_repeat_it(known_store: Store, tmp_path: Path) -> None:
    for command in ("bigain evaluate -m todo-2", None, "bigain evaluate", "bigain evaluate -m todo-2"):
        known_store.begin_session({"torch": "1"}, {}, command)
    write_results(tmp_path / "r.json", summarise(known_store), timings(known_store))
    commands = ["bigain evaluate -m todo-2", "bigain evaluate"]
    assert json.loads((tmp_path / "r.json").read_text())["commands"] == commands
    assert read_results(tmp_path / "r.json")[0].commands == commands


def test_results_are_read_without_pytorch_or_numpy(known_store: Store, tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", summarise(known_store), timings(known_store))
    program = (
        "import sys, pathlib; from bigain.run.results import read_results; "
        f"assert len(read_results(pathlib.Path({str(tmp_path / 'r.json')!r}))[0].rows) == 2; "
        "assert not {'torch', 'numpy', 'diffusers'} & {*sys.modules}, 'slow at import'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
