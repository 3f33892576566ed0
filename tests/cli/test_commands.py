"""The command line as a whole: help, errors, and starting it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bigain
from bigain.backbones import resolve
from bigain.cli import options
from bigain.methods import parse


@pytest.mark.parametrize(
    "command",
    ["evaluate", "classify", "generate", "inspect", "analyse", "allocate", "tune", "reproduce", "methods", "report"],
)
def test_every_command_has_help_with_examples(call: Callable[..., Any], command: str) -> None:
    text = call(command, "--help").output
    assert "Examples" in text
    assert f"bigain {command}" in text


def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys, bigain.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_the_packages(call: Callable[..., Any]) -> None:
    assert call("--version").output.strip() == f"bigain {bigain.__version__}"


def test_an_error_is_one_line_and_a_status(call: Callable[..., Any]) -> None:
    result = call("methods", "bogus", fails=True)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unknown method 'bogus': there are lgtm,")


def test_a_traceback_is_there_on_demand(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="unknown method"):
        call("--traceback", "methods", "bogus")


def test_methods_are_listed_with_presets_and_grids(call: Callable[..., Any]) -> None:
    text = call("methods").output
    for words in ("LaplacianMerging", "lgtm-0.7", "todo-4", "--preset-grid full (32)"):
        assert words in text


def test_one_method_is_shown_with_its_fields(call: Callable[..., Any]) -> None:
    text = call("methods", "tome").output
    for words in ("ToMe", "redraw = 'image'", "ratio = 0.5", "proportional attention"):
        assert words in text


@pytest.mark.parametrize(
    ("model", "name"),
    [("glyphs-sd", "glyphs-sd"), ("stabilityai/stable-diffusion-2-base", "stable-diffusion-2-base"), ("a/b/", "b")],
)
def test_runs_of_two_models_do_not_share_a_folder(model: str, name: str) -> None:
    assert options.folder(None, "evaluate", model) == Path("runs", "evaluate", name)
    assert options.folder(Path("mine"), "evaluate", model) == Path("mine")


@pytest.mark.parametrize("model", [".", "..", "../..", "../model/", "below/.."])
def test_a_model_that_is_a_folder_is_named_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str) -> None:
    here = tmp_path / "over" / "model"
    (here / "below").mkdir(parents=True)
    monkeypatch.chdir(here)
    name = {"..": "over", "../..": tmp_path.name}.get(model, "model")
    assert options.folder(None, "tune", model) == Path("runs", "tune", name)


def test_a_preset_is_a_name_that_was_measured_for_the_model_or_a_file(tmp_path: Path) -> None:
    assert resolve(options.spec_of("balanced", "glyphs-sd"), None) == bigain.preset("balanced", "glyphs-sd")
    file = tmp_path / "p.json"
    file.write_text('{"format": "bigain preset 1", "methods": "todo-2"}')
    assert resolve(options.spec_of(str(file), "anything"), None) == parse("todo:factor=2")
    with pytest.raises(ValueError, match="must be one that was measured, glyphs-dit or glyphs-sd, not 'anything'"):
        options.spec_of("balanced", "anything")
    with pytest.raises(ValueError, match=r"a file that ends in \.json, not 'runs/preset'"):
        options.spec_of("runs/preset", "glyphs-sd")
    with pytest.raises(FileNotFoundError):
        options.spec_of(str(tmp_path / "missing.json"), "glyphs-sd")
