"""``bigain tune``, and the preset that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bigain
from bigain.methods import parse

SMALL = ("--trials", 2, "--classify", 2, "--generate", 1, "--steps", 1, "--cost", "flops", "--quiet", "--split", "test",
         "--to-keep", "1", "--n-samples", "1")  # fmt: skip


def test_the_preset_that_is_found_is_taken_everywhere(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, families: Any
) -> None:
    text = call("tune", "-t", "speed-up=1", "--model", tiny_model, *SMALL, "--out", tmp_path).output
    preset = tmp_path / "preset.json"
    content = json.loads(preset.read_text())
    assert content["methods"] in text
    assert content["targets"] == ["speed-up=1"]
    assert content["found"]["speed_up"] >= 1
    assert (tmp_path / "tune.png").stat().st_size > 0

    methods = parse(preset)
    with bigain.compressed(families["dit"].build(), preset) as handle:
        assert handle.methods == methods
    with bigain.compressed(families["dit"].build(), str(preset)) as handle:
        assert handle.methods == methods
    run = ("evaluate", "--model", tiny_model, "--classify", 1, "--generate", 0, "--timing-rounds", 0, "--quiet",
           "--features", "none")  # fmt: skip
    call(*run, "--preset", preset, "--out", tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["none", content["methods"]]


def test_a_target_that_nothing_keeps_is_an_error_and_still_a_picture(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    result = call("tune", "-t", "speed-up=99", "--model", tiny_model, *SMALL, "--out", tmp_path, fails=True)
    assert "keeps speed-up=99" in result.stderr
    assert (tmp_path / "tune.png").exists()
    assert not (tmp_path / "preset.json").exists()


def test_a_method_and_a_preset_exclude_each_other(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    preset = tmp_path / "p.json"
    preset.write_text('{"format": "bigain preset 1", "methods": "todo-2"}')
    result = call("classify", tmp_path, "--model", tiny_model, "-m", "lgtm-0.5", "--preset", preset, fails=True)
    assert "not both" in result.stderr
