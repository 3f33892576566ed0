"""``bigain report --export``, on a results file with known contents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from bigain.run.store import Store


def test_a_run_is_exported_as_parquet_and_its_table_printed(
    known_store: Store, call: Callable[..., Any], tmp_path: Path
) -> None:
    printed = call("report", known_store.path, "--export", tmp_path / "new" / "x.parquet").output
    assert "ToDo" in printed
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["x.generated.parquet", "x.parquet"]
    assert parquet.read_table(tmp_path / "new" / "x.parquet").num_rows == 8
    assert not (tmp_path / "table.md").exists(), "exported alone"


def test_an_export_of_another_kind_is_refused(known_store: Store, call: Callable[..., Any], tmp_path: Path) -> None:
    words = "--export must end in .json or .parquet, not "
    assert words in call("report", known_store.path, "--export", tmp_path / "x.csv", fails=True).stderr


@pytest.mark.parametrize("name", ["x.json", "x.parquet"])
def test_an_exported_file_is_not_exported_again(call: Callable[..., Any], tmp_path: Path, name: str) -> None:
    done = tmp_path / "done.json"
    assert "--export must be left out" in call("report", done, "--export", tmp_path / name, fails=True).stderr
