"""``bigain inspect``: a picture of a numbered image or of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bigain.data.glyphs import CLASSES
from bigain.explain import inspection as looking
from bigain.report import explain as drawing
from bigain.run.settings import ModelSettings


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
        (["--condition", "Q"], "a class must be a label in [0, 10), not 'Q'"),
        (["-m", "todo-2 lgtm-0.5"], "--methods must be one method here, not 2: todo:factor=2 lgtm:ratio=0.5"),
    ):
        assert words in call("inspect", "--model", tiny_model, *more, fails=True).stderr


@pytest.mark.parametrize(
    ("kind", "more", "asked"),
    [
        ("text", ("-i", 4), f"a photo of the letter {CLASSES[4]}"),
        ("text", ("-i", 4, "--condition", "a horse"), "a horse"),
        ("text", ("-i", 4, "--condition", ""), ""),
        ("text", ("-i", "file"), ""),
        ("class", ("-i", 4), 4),
        ("class", ("-i", "file"), 0),
    ],
)
def test_the_model_is_asked_with_the_images_own_class(
    call: Callable[..., Any],
    letters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    more: tuple[Any, ...],
    asked: Any,
) -> None:
    heard: list[Any] = []
    seen = SimpleNamespace(grouping=SimpleNamespace(kept=[0], layer_name="block", grid=SimpleNamespace(tokens=1)))

    def look(*_: Any, condition: Any, **__: Any) -> Any:
        heard.append(condition)
        return seen

    denoiser = SimpleNamespace(
        kind=kind, image_size=16, is_video=False, labels={}, classes=10, any_condition=0 if kind == "class" else ""
    )
    monkeypatch.setattr(ModelSettings, "open", lambda _: denoiser)
    monkeypatch.setattr(looking, "inspect_method", look)
    monkeypatch.setattr(drawing, "draw_inspection", lambda *_: None)
    file = letters / "glyphs-test-000000.png"
    call("inspect", *(file if word == "file" else word for word in more), "--out", tmp_path / "a.png")
    assert heard == [asked]
