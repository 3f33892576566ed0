"""The notebooks run from top to bottom, in an empty folder, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SAID = {
    "speed-up": "glyphs-sd/balanced: ",
    "classify": "forwards each",
    "compare": "In compared: ",
}


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Those of code."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_for_each_purpose() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == set(SAID)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": notebook.stem}
    for cell in cells(notebook):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        exec(compile("".join(cell["source"]), str(notebook), "exec"), names)
    assert SAID[notebook.stem] in capfd.readouterr().out
    if notebook.stem == "compare":
        assert (tmp_path / "compared" / "report.html").is_file()
