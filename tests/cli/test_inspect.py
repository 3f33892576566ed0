"""``bigain inspect``: a picture of a numbered image or of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_numbered_image_and_a_file(call: Callable[..., Any], tiny_model: str, letters: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.png"
    text = call("inspect", "-m", "lgtm-0.5", "-i", 4, "--model", tiny_model, "--out", out).output
    assert "glyphs-test-000004" in text
    assert "64 tokens in 32 groups" in text
    assert out.stat().st_size > 0
    file = letters / "glyphs-test-000000.png"
    text = call("inspect", "-m", "todo-2", "-i", file, "-t", 900, "--layer", 1, "--condition", 3, "--model", tiny_model,
                "--out", tmp_path / "b.png").output  # fmt: skip
    assert "64 tokens in 16 groups" in text


def test_bad_input_is_named(call: Callable[..., Any], tiny_model: str) -> None:
    for more, words in (
        (["-i", "5000"], "below 5000"),
        (["-i", "missing.png"], "missing.png"),
        (["-t", "1000"], "timestep"),
        (["-m", "none"], "one compression method"),
        (["--condition", "Q"], "unknown class 'Q'"),
    ):
        assert words in call("inspect", "--model", tiny_model, *more, fails=True).stderr
