"""A look inside one forward: it shows what the method did, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigain.backbones import compressed
from bigain.backbones.application import session_of
from bigain.data import load, preprocess
from bigain.diffusion import ClassConditional
from bigain.explain.inspection import Inspection, inspect_method
from bigain.report.explain import draw_inspection


@pytest.fixture
def image() -> torch.Tensor:
    return preprocess(load("glyphs", image_size=16)[0].image, 16)


def look(denoiser: ClassConditional, method: str, image: torch.Tensor, **changes: object) -> Inspection:
    options = {"timestep": 300, "condition": 3} | changes
    return inspect_method(denoiser, method, image, "glyphs-test-000000", **options)


@pytest.mark.parametrize("method", ["lgtm-0.5", "quadtree-0.5", "tome:ratio=0.5,destinations=random", "sito-0.5"])
def test_half_of_the_tokens_merge_into_one_destination_per_cell(
    denoiser: ClassConditional, image: torch.Tensor, method: str
) -> None:
    found = look(denoiser, method, image)
    assert found.grouping.merges
    assert (len(found.grouping.groups), len(found.grouping.kept)) == (64, 32)
    np.testing.assert_array_equal(found.grouping.groups[found.grouping.kept], np.arange(32))
    sizes = np.bincount(found.grouping.groups)
    ends = found.grouping.kept[sizes > 1]
    if method != "sito-0.5":  # which recovers from any kept token
        cells = (ends // 8 // 2) * 4 + ends % 8 // 2
        assert len(set(cells)) == len(ends)


def test_destinations_are_the_lowest_scores_of_their_cells(denoiser: ClassConditional, image: torch.Tensor) -> None:
    found = look(denoiser, "lgtm-0.5", image, layer=1)
    lowest = found.scores.reshape(4, 2, 4, 2).min(axis=(1, 3))
    for group, size in enumerate(np.bincount(found.grouping.groups)):
        if size > 1:
            row, column = divmod(int(found.grouping.kept[group]), 8)
            assert found.scores[row, column] == lowest[row // 2, column // 2]


def test_downsampling_shows_its_windows(denoiser: ClassConditional, image: torch.Tensor) -> None:
    found = look(denoiser, "iekvd-3", image)
    assert not found.grouping.merges
    assert found.grouping.kept.tolist() == [9, 12, 15, 33, 36, 39, 57, 60, 63]
    assert found.grouping.groups.reshape(8, 8)[7, 7] == 8


def test_the_noise_is_the_classifiers(denoiser: ClassConditional, image: torch.Tensor) -> None:
    found = look(denoiser, "lgtm-0.5", image, timestep=0)
    assert np.abs(found.noised.astype(int) - found.image).mean() < 5
    late = look(denoiser, "lgtm-0.5", image, timestep=999)
    assert np.abs(late.noised.astype(int) - late.image).mean() > 30
    np.testing.assert_array_equal(late.noised, look(denoiser, "todo-2", image, timestep=999).noised)


def test_nothing_is_left_on_the_model(denoiser: ClassConditional, image: torch.Tensor) -> None:
    found = look(denoiser, "lgtm-0.5", image)
    assert found.grouping.layer_name == "transformer_blocks.0"
    assert session_of(denoiser.model) is None
    with compressed(denoiser.model, "todo-2"):  # refused where something is applied still
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "none"}, "one compression method"),
        ({"method": "lgtm-0.5+todo-2"}, "one compression method"),
        ({"timestep": 1000}, r"timestep must lie in \[0, 1000\)"),
        ({"layer": 2}, r"\[0, 1\], not 2"),
        ({"layer": 1, "method": "lgtm:ratio=0.5,cached=true"}, r"\[0\], not 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    denoiser: ClassConditional, image: torch.Tensor, changes: dict, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        look(denoiser, **({"method": "lgtm-0.5", "image": image} | changes))
    assert session_of(denoiser.model) is None


@pytest.mark.parametrize("method", ["abm-0.5", "avgpool-2"])
def test_a_picture_is_drawn(denoiser: ClassConditional, image: torch.Tensor, tmp_path: Path, method: str) -> None:
    draw_inspection(look(denoiser, method, image), tmp_path / "inspect.png")
    with Image.open(tmp_path / "inspect.png") as picture:
        assert picture.width > 3 * picture.height / 1.2
