"""The models that ship with the package, end to end in small: they classify, generate, and are compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bigain
from bigain.classify import DiffusionClassifier, Scoring
from bigain.data import load
from bigain.data.glyphs import CLASSES
from bigain.data.moving import DIRECTIONS, MOVES, VIDEO
from bigain.diffusion import EMBEDDED, open_model
from bigain.generate import Sampling, sample
from bigain.metrics.moving import MovingGlyphs
from bigain.run import engine
from bigain.run.cost import flops
from bigain.run.engine import run
from bigain.run.settings import Settings
from bigain.run.store import Store
from bigain.run.summary import summarise
from bigain.zoo.presets import text_of


@pytest.mark.parametrize("model", [name for name in EMBEDDED if name != "glyphs-video"])
def test_they_classify_and_generate_letters(
    make_settings: Callable[..., Settings], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REFERENCE_IMAGES", 20)  # FID is not what is tested here
    images = {"glyphs-dit-64": 4, "glyphs-flux": 2}.get(model, 10)  # these have four times the tokens
    settings = make_settings(
        model=model,
        methods=("abm:ratio=0.3,queries=full" if model == "glyphs-flux" else "abm-0.3", "iekvd-2"),
        classify=images,
        generate=images,
        to_keep=(3, 1),
        n_samples=(2, 8),
        steps=10,
        timing_rounds=0,
    )
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        plain, *compressed = summarise(store).rows
    assert plain.accuracy is not None
    assert plain.accuracy >= 0.5  # where guessing has 0.1; the models' cards say what they reach
    assert plain.recognised is not None
    assert plain.recognised >= 0.5
    for row in compressed:
        assert (row.classified, row.generated) == (images, images)
        assert row.psnr is not None
        assert 5 < row.psnr < 60, "neither the same images nor noise"
        assert row.flops < plain.flops


def test_the_model_of_videos_tells_and_draws_a_letter_that_moves() -> None:
    denoiser, video = open_model("glyphs-video"), load("glyphs-moving", image_size=64)[0].image
    classes = ("A moving to the left", "A moving to the right", "E moving to the left", "E moving up")
    prompts = [VIDEO.format(name) for name in classes]
    scoring = Scoring(spacing="scheduler")
    classifier = DiffusionClassifier(denoiser, prompts, to_keep=(1,), n_samples=(2,), loss=scoring)
    [told] = classifier.predict([video])
    assert told.name == prompts[0]
    with bigain.compressed(denoiser.model, "avgpool-2"):
        [compressed] = classifier.predict([video])
    assert compressed.forwards == told.forwards == 8
    assert compressed.errors.tolist() != told.errors.tolist()
    [drawn] = sample(denoiser, denoiser.conditions(prompts[:1]), [0], [0], Sampling(steps=10, guidance=5))
    network = MovingGlyphs(torch.device("cpu"), tuple(DIRECTIONS.values()))
    assert MOVES[network.recognise(drawn[None])[0]] == classes[0]


def test_several_letters_in_one_image_are_told_by_one_of_them(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(
        model="glyphs-sd",
        data="glyphs-scenes",
        classify=8,
        generate=2,
        to_keep=(3, 1),
        n_samples=(2, 8),
        steps=2,
        features="none",
        timing_rounds=0,
    )
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        [row] = summarise(store).rows
        assert store.facts["classes"] == list(CLASSES)
        assert all(image.condition.startswith("a photo of") for image in store.generated("none"))
    assert row.accuracy is not None  # precision@1: the winner is one of the letters shown
    assert row.accuracy >= 0.5
    assert row.class_map is not None


@pytest.mark.parametrize(
    ("model", "shares"), [("glyphs-dit", (0.20, 0.28, 0.35)), ("glyphs-sd", (0.07, 0.14, 0.20))], ids=lambda each: each
)
def test_the_presets_save_what_they_were_asked_to(model: str, shares: tuple[float, ...]) -> None:
    denoiser = open_model(model)
    condition = 0 if denoiser.kind == "class" else ""
    plain = flops(denoiser, "none", condition)
    for name, share in zip(("quality", "balanced", "fast"), shares, strict=True):
        assert share <= 1 - flops(denoiser, text_of(f"{model}/{name}"), condition) / plain < share + 0.015
