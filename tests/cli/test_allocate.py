"""``bigain allocate``, and the preset that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bigain
from bigain.diffusion import open_model
from bigain.evaluate import read_offers
from bigain.evaluate.allocation import CONTRAST_WEIGHT, most_saved
from bigain.evaluate.timing import flops
from bigain.methods import parse

SMALL = (
    "--images",
    2,
    "--timesteps",
    1,
    "--quiet",
    "--split",
    "test",
    "--candidates",
    "todo-2 tome:ratio=0.5,cell=4x4",
)


def test_the_preset_saves_what_was_asked_for_and_is_taken_everywhere(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, families: Any
) -> None:
    denoiser = open_model(tiny_model)
    plain = flops(denoiser, "none", 0)
    call("allocate", "--save", 0.001, "--model", tiny_model, *SMALL, "--out", tmp_path)
    most = sum(most_saved(read_offers(tmp_path / "offers.json").offers).values()) / plain
    written = []
    for save in (most / 4, most * 0.9):
        text = call("allocate", "--save", save, "--model", tiny_model, *SMALL, "--out", tmp_path).output
        content = json.loads((tmp_path / "preset.json").read_text())
        assert content["methods"] in " ".join(text.split())
        assert content["saved"] == pytest.approx(1 - flops(denoiser, content["methods"], 0) / plain, abs=1e-3)
        assert content["saved"] >= save - 1e-4
        written.append(content["methods"])
    assert written[0] != written[1]
    preset = tmp_path / "preset.json"
    with bigain.compressed(families["dit"].build(), preset) as handle:
        assert handle.methods == parse(preset)


def test_the_weight_of_the_contrast_is_the_librarys_or_as_asked_for(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    contents = []
    for options in ((), ("--contrast", 0)):
        call("allocate", "--save", 0.02, *options, "--model", tiny_model, *SMALL, "--out", tmp_path)
        contents.append(json.loads((tmp_path / "preset.json").read_text()))
    assert [content["contrast_weight"] for content in contents] == [CONTRAST_WEIGHT, 0]
    assert contents[1]["change"] <= contents[0]["change"]
    assert all(content["contrast"] > 0 for content in contents)


def test_the_flops_may_be_those_of_a_method(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    denoiser = open_model(tiny_model)
    call("allocate", "--flops-of", "todo-2", "--model", tiny_model, *SMALL, "--out", tmp_path)
    content = json.loads((tmp_path / "preset.json").read_text())
    assert flops(denoiser, content["methods"], 0) <= flops(denoiser, "todo-2", 0)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ((), "give either --save"),
        (("--save", 0.1, "--flops-of", "todo-2"), "give either --save"),
        (("--save", 1.5), "--save must lie between 0 and 1, not 1.5"),
        (("--save", 0.99), "FLOPs cannot be saved: the candidates save at most"),
        (("--flops-of", "none"), "none saves no FLOPs in this model"),
    ],
)
def test_what_cannot_be_allocated_is_refused(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, target: tuple[Any, ...], words: str
) -> None:
    result = call("allocate", *target, "--model", tiny_model, *SMALL, "--out", tmp_path, fails=True)
    assert words in result.stderr
    assert not (tmp_path / "preset.json").exists()
