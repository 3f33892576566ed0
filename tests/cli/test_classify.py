"""``bigain classify``: predictions as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--to-keep", "2 1", "--n-samples", "1 2", "--quiet")


def test_a_folder_is_classified_image_by_image(
    call: Callable[..., Any], tiny_model: str, letters: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    text = call("classify", letters, "--model", tiny_model, *SMALL, "--json", out).output
    found = json.loads(out.read_text())
    assert [Path(row["image"]).name for row in found["images"]] == [f"glyphs-test-{i:06d}.png" for i in range(3)]
    for row in found["images"]:
        assert row["prediction"] == row["ranking"][0]["class"]
        assert sorted(int(place["class"]) for place in row["ranking"]) == list(range(10))
        assert [place["stages"] for place in row["ranking"]] == [2, 1] + [0] * 8
        kept = [place["error"] for place in row["ranking"][1:] if place["stages"] == 0]
        assert kept == sorted(kept)
    assert "12 forwards per image" in text


def test_json_alone_goes_to_standard_output(call: Callable[..., Any], tiny_model: str, letters: Path) -> None:
    first = sorted(letters.iterdir())[0]
    result = call("classify", first, "--model", tiny_model, *SMALL, "-m", "lgtm-0.5", "--json", "-")
    assert json.loads(result.stdout)["method"] == "lgtm:ratio=0.5"


def test_a_bad_image_is_fatal_or_skipped_as_asked(call: Callable[..., Any], tiny_model: str, letters: Path) -> None:
    (letters / "bad.png").write_text("no image")
    asked = ("classify", letters, "--model", tiny_model, *SMALL)
    assert "bad.png must be a readable image" in call(*asked, fails=True).stderr
    result = call(*asked, "--bad-images", "skip", "--json", "-")
    assert "skipped: " in result.stderr
    assert len(json.loads(result.stdout)["images"]) == 3


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("letters/missing.png", [], "missing.png"),
        ("empty", [], "has no image"),
        ("letters", ["-p", "a cat"], "class-conditional"),
        ("letters", ["--dtype", "int8"], "--dtype must be one of"),
    ],
)
def test_bad_input_is_named(
    call: Callable[..., Any], tiny_model: str, letters: Path, path: str, more: list[str], words: str
) -> None:
    (letters.parent / "empty").mkdir()
    assert words in call("classify", letters.parent / path, "--model", tiny_model, *SMALL, *more, fails=True).stderr
