"""The folder of a run: all files from the results file alone."""

from __future__ import annotations

from pathlib import Path

from bigain.report.folder import write_folder
from bigain.run.results import read_results
from bigain.run.store import Store


def test_all_files_are_written_and_repeat(known_store: Store, tmp_path: Path) -> None:
    written = write_folder(known_store, tmp_path / "a")
    write_folder(known_store, tmp_path / "b")
    names = {"results.json", "results.csv", "results.timings.json", "table.md", "front.png", "samples.png"}
    for folder in ("a", "b"):
        assert {file.name for file in (tmp_path / folder).iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_results(tmp_path / "a" / "results.json") == written


def test_a_run_without_images_has_no_pictures(tmp_path: Path) -> None:
    facts = {"data": "letters", "multi_label": False, "conditions": 1, "timesteps": [1]}
    identity = {"model": "m", "seed": 0, "dtype": "float32"}
    with Store.open(tmp_path / "r.sqlite", identity, facts) as store:
        store.add_methods(["none"])
        write_folder(store, tmp_path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".csv", ".json", ".json", ".md", ".sqlite"]
