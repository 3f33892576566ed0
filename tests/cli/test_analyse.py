"""``bigain analyse``: tables, pictures, and one file that it goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = ("--images", 2, "--timesteps", 1, "--quiet")


def test_a_method_is_analysed_once(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    run = ("analyse", "-m", "todo-2,lgtm-0.5", "--model", tiny_model, *SMALL, "--out", tmp_path / "run")
    text = call(*run).output
    for words in (
        "L-GTM 50%",
        "ToDo 2×",
        "What a layer still sees",
        "1 (transformer_blocks.1)",
        "Where in t it is lost",
    ):
        assert words in text
    names = ("analysis.json", "analysis.md", "spectrum-1.png", "layers.png", "timesteps.png")
    assert ", ".join(names) in text
    first = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    content = json.loads(first["analysis.json"])
    assert content["identity"]["split"] == "validation"
    assert content["facts"]["timesteps"] == [500]
    assert len(content["pieces"]) == 1 + 3 + 3
    assert set(content["effects"]) == set(content["pieces"]) - {"none"}
    assert call(*run).output == text
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == first

    result = call(*run, "--seed", 3, fails=True)
    assert "seed is 0 there and 3 here" in result.stderr
    assert "--out" in result.stderr


def test_bad_input_is_named(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    for more, words in (
        ([], "--methods must have at least one that compresses"),
        (["-m", "lgtm-0.5+todo-2"], "must each have their own layers"),
        (["-m", "freqsel-2"], "--methods must merge or pool, not drop tokens"),
        (["-m", "todo-2", "--images", 9999], "not 9999"),
        (["-m", ""], "--methods must name at least one method"),
    ):
        result = call("analyse", "--model", tiny_model, "--out", tmp_path / "run", *more, fails=True)
        assert words in result.stderr
    assert not (tmp_path / "run").exists()


def test_there_is_help_with_examples(call: Callable[..., Any]) -> None:
    text = call("analyse", "--help").output
    assert "Examples" in text
    assert "bigain analyse -m lgtm-0.5" in text
