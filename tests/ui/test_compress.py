"""Two images from the same noise, and what is told of them on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bigain.backbones import applied_to
from bigain.generate import Sampling, sample
from bigain.methods import Compression
from bigain.run.cost import applied
from bigain.ui.compress import LONGEST, Comparison, compare
from bigain.ui.models import Models, Opened

SAMPLING = Sampling(steps=4, guidance=3.0, seed=5)


def compared(opened: Opened, condition: str | int, methods: str) -> list[Comparison]:
    told: list[Comparison] = []
    compare(opened, condition, Compression.of(methods), SAMPLING, told.append)
    return told


@pytest.mark.parametrize("name", ["glyphs-dit", "glyphs-sd"])
@pytest.mark.parametrize("methods", ["lgtm-0.5", "avgpool-2", "none"])
def test_the_images_are_those_of_generate(models: Models, name: str, methods: str) -> None:
    opened = models[name]
    condition: str | int = 3 if name == "glyphs-dit" else "a photo of the letter G."
    last = compared(opened, condition, methods)[-1]
    encoded = opened.denoiser.conditions([condition])  # type: ignore[list-item]
    for side, text in ((last.plain, "none"), (last.compressed, methods)):
        with applied(opened.denoiser, text):
            [image] = sample(opened.denoiser, encoded, [0], [0], SAMPLING)
        np.testing.assert_array_equal(side.image, image)
    assert (last.psnr == math.inf) == (methods == "none")
    assert (last.saved > 0) == (methods != "none")
    assert not applied_to(opened.denoiser)


def test_every_step_is_told_first_without_then_with_the_method(opened: Opened) -> None:
    told = compared(opened, 0, "lgtm-0.5")
    assert [(known.plain.steps, known.compressed.steps) for known in told] == [
        *((step, 0) for step in range(5)),
        *((4, step) for step in range(5)),
        (4, 4),
    ]
    assert told[4].plain.image is None
    assert told[5].plain.image is not None
    assert told[5].plain.seconds > 0


def test_the_tokens_of_each_step_and_layer_are_kept(opened: Opened) -> None:
    last = compared(opened, 0, "tome:ratio=0.5,layers=1/4,destinations=random")[-1]
    assert last.layers == ("transformer_blocks.1", "transformer_blocks.4")
    assert len(last.groupings) == 4
    for step in last.groupings:
        assert set(step) == set(last.layers)
        assert all(len(one.kept) == 128 for one in step.values())
    first, second = (step["transformer_blocks.1"].groups for step in last.groupings[:2])
    assert (first != second).any()


@pytest.mark.parametrize(
    ("name", "conditions"),
    [("glyphs-dit", (0, 9)), ("glyphs-sd", ("a photo of the letter A.", "a photo of the letter X."))],
)
def test_the_row_with_the_condition_is_looked_at(models: Models, name: str, conditions: tuple[str | int, ...]) -> None:
    opened = models[name]
    last = len(opened.layers) - 1
    groupings = [compared(opened, one, f"tome:ratio=0.5,layers={last}")[-1].groupings[0] for one in conditions]
    first, second = (grouping[opened.layers[last]].groups for grouping in groupings)
    assert (first != second).any()  # the null row is the same for both in the first step


@pytest.mark.parametrize("prompt", ["", "  ", "x" * (LONGEST + 1)])
def test_a_prompt_must_have_a_length(models: Models, prompt: str) -> None:
    with pytest.raises(ValueError, match=f"the prompt must have 1 to {LONGEST} characters, not "):
        compared(models["glyphs-sd"], prompt, "lgtm-0.5")


def test_what_stops_it_leaves_nothing_on_the_model(opened: Opened) -> None:
    def stop(known: Comparison) -> None:
        if known.compressed.steps == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        compare(opened, 0, Compression.of("lgtm-0.5"), SAMPLING, stop)
    assert not applied_to(opened.denoiser)
