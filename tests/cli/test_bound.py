"""`bigain bound` and `bigain models`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigain.zoo.supported import REFUSED, SUPPORTED


def test_a_table_has_a_column_per_size(call: Callable[..., Any]) -> None:
    text = call("bound", "wan2.1-1.3b", "--size", "832x480 1280x720", "--text", 256).output
    for words in ("Wan2.1-1.3B", "832x480x81", "1280x720x81", "32,760", "75,600", "256"):
        assert words in text
    lines = {line.strip("│ ").partition("│")[0].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert "keys and values pooled 2×2" in lines
    assert "keys and values pooled 2×2×2" in lines


def test_a_table_leaves_out_what_the_model_has_not(call: Callable[..., Any]) -> None:
    text = call("bound", "glyphs-sd").output
    assert "64x64" in text
    assert "256 64" in text  # two levels
    assert "2×2×2" not in text


def test_everything_is_in_the_json(call: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "bound.json"
    printed = json.loads(call("bound", "glyphs-dit", "--json", "-").output)
    assert "512" in call("bound", "Z-Image", "--size", "512x512", "--json", file).output
    written = json.loads(file.read_text())
    assert printed["model"] == "glyphs-dit"
    assert printed["sizes"][0]["tokens"] == [256]
    [size] = written["sizes"]
    assert (size["width"], size["height"], size["frames"], size["text"]) == (512, 512, 1, 128)
    assert size["flops"] == pytest.approx(13.7e12, rel=1e-2)
    assert size["speed_ups"]["pooled-2"] == pytest.approx(1.03, abs=0.005)
    assert size["speed_ups"]["pooled-2x2x2"] is None
    assert 1 < size["speed_ups"]["pooled-2"] < size["ceiling"]


def test_a_picture_is_drawn(call: Callable[..., Any], tmp_path: Path) -> None:
    picture = tmp_path / "new" / "bound.png"
    call("bound", "Z-Image", "--size", "512x512 1024x1024", "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_folders_and_files_are_read(call: Callable[..., Any], tiny_model: str, pipeline_folder: Path) -> None:
    content = json.loads(call("bound", tiny_model, "--json", "-").output)
    assert content["sizes"][0]["width"] == 16  # pixels, without an autoencoder
    assert content["sizes"][0]["tokens"] == [64]
    content = json.loads(call("bound", "glyphs-flux", "--json", "-").output)
    assert (content["sizes"][0]["width"], content["sizes"][0]["tokens"]) == (256, [1024])  # as its sample.json says
    assert content["sizes"][0]["text"] == 48  # as its tokeniser says
    content = json.loads(call("bound", pipeline_folder, "--json", "-").output)
    assert (content["sizes"][0]["width"], content["sizes"][0]["tokens"]) == (32, [256, 64])  # halved once
    content = json.loads(call("bound", Path(tiny_model) / "transformer" / "config.json", "--json", "-").output)
    assert content["sizes"][0]["tokens"] == [64]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flux1-dev",), "Error: MODEL must be one of SD-1.5, .*; did you mean 'FLUX.1-dev'?"),
        (("Z-Image", "--size", "512"), "Error: --size must be width x height in pixels, such as 1024x1024, not '512'"),
        (("Z-Image", "--size", "520x512"), "Error: the width of --size must be a multiple of 16 pixels"),
        (("Wan2.1-14B", "--frames", "80"), "Error: --frames must be one more than a multiple of 4"),
        (("glyphs-recogniser",), "must name the model's class as its _class_name, not None"),
    ],
)
def test_what_is_wrong_is_named(call: Callable[..., Any], arguments: tuple[str, ...], words: str) -> None:
    stderr = call("bound", *arguments, fails=True).stderr
    assert re.search(words, stderr), stderr
    assert stderr.count("\n") == 1


def test_a_folder_without_a_config_and_one_of_another_class_are_named(call: Callable[..., Any], tmp_path: Path) -> None:
    words = "must hold config.json, transformer/config.json or unet/config.json"
    assert words in call("bound", tmp_path, fails=True).stderr
    (tmp_path / "config.json").write_text('{"_class_name": "SanaTransformer2DModel"}')
    assert "not SanaTransformer2DModel" in call("bound", tmp_path, fails=True).stderr
    (tmp_path / "config.json").write_text("[1]")
    assert "must be a config of diffusers, a JSON object, not a list" in call("bound", tmp_path, fails=True).stderr
    (tmp_path / "config.json").write_text("{")
    assert "must be a config of diffusers, as JSON" in call("bound", tmp_path, fails=True).stderr


def test_models_are_listed_with_what_they_can_do_and_what_is_refused(call: Callable[..., Any]) -> None:
    text = call("models").output
    for one in SUPPORTED:
        assert one.network in text
    for refusal in REFUSED:
        assert refusal.what in text
        assert refusal.why in text
    [row] = [line for line in text.splitlines() if "StableDiffusionXL" in line]
    assert row.split()[-1] == "random"
