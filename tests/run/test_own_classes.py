"""A user's own classes on a class-conditional model: it must be asked for these, whatever their numbers are."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler
from PIL import Image

from bigain import zoo
from bigain.data import ImageCollection, Item, load
from bigain.data.glyphs import CLASSES, Glyphs
from bigain.diffusion import ClassConditional, open_model
from bigain.metrics.features import load_recogniser
from bigain.run.engine import run
from bigain.run.files import class_conditions
from bigain.run.settings import (
    ClassifierSettings,
    CountSettings,
    DataSettings,
    ModelSettings,
    SamplingSettings,
    Settings,
    TimingSettings,
)
from bigain.run.store import Store

LETTERS = "KRX"


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Four drawn images of each of three letters, in folders that are named by them."""
    data = Glyphs("test", 32)
    for letter in LETTERS:
        (tmp_path / "letters" / letter).mkdir(parents=True)
        for turn in range(4):
            image = data.pixels(turn * len(CLASSES) + CLASSES.index(letter))
            Image.fromarray(image).save(tmp_path / "letters" / letter / f"{turn}.png")
    return tmp_path / "letters"


def test_a_folder_of_three_letters_is_classified_and_generated_as_these_three(letters: Path, tmp_path: Path) -> None:
    settings = Settings(
        model=ModelSettings(model="glyphs-dit"),
        data=DataSettings(data=f"folder:{letters}"),
        classifier=ClassifierSettings(to_keep=(1,), n_samples=(8,)),
        sampling=SamplingSettings(steps=8),
        timing=TimingSettings(timing_rounds=0),
        counts=CountSettings(classify=12, generate=6, features="none"),
    )
    run(settings, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        classified, generated = [*store.classified("none")], [*store.generated("none")]
    right = sum(row.prediction in row.labels for row in classified)
    assert right >= 10, f"{right} of {len(classified)} are right; chance is a third"
    assert [LETTERS[row.label] for row in generated if row.label is not None] == list("KRXKRX")
    images = np.stack([row.frames[0] for row in generated])
    recognised = "".join(CLASSES[label] for label in load_recogniser().predict(images))
    assert sum(a == b for a, b in zip(recognised, "KRXKRX", strict=True)) >= 5, recognised


def test_a_letter_that_the_model_does_not_know_is_refused_with_the_way_out(letters: Path) -> None:
    (letters / "R").rename(letters / "Q")
    denoiser = open_model("glyphs-dit")
    with pytest.raises(ValueError, match=r"fit one label .*\(A, B, E, .*\), not 'Q': give a prompts csv"):
        class_conditions(denoiser, load(letters, image_size=32))


def test_embedded_letters_keep_their_labels_on_the_embedded_models() -> None:
    for name in ("glyphs-dit", "glyphs-dit-64"):
        denoiser = open_model(name)
        assert denoiser.labels == {letter: label for label, letter in enumerate(CLASSES)}
        conditions = class_conditions(denoiser, load("glyphs", image_size=denoiser.image_size))
        assert conditions == tuple((label,) for label in range(10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"labels\.json must be JSON"),
        ('["A"]', r"labels\.json must hold a JSON object, not list"),
        ('{"A": 10}', r"the label of 'A' must be an integer in \[0, 10\), not 10"),
        ('{"A": "0"}', r"the label of 'A' must be an integer in \[0, 10\), not '0'"),
    ],
)
def test_names_of_labels_that_do_not_fit_the_model_are_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(zoo.path("glyphs-dit"), tmp_path / "model")
    (folder / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_model(folder)


def test_a_pipelines_own_names_are_used(families: Any) -> None:
    model = families["dit"].build()
    pipe = SimpleNamespace(transformer=model, vae=None, scheduler=DDIMScheduler(), labels={"cat": 3, "dog": 7})
    images = tuple(Item(str(label), bytes, (label,)) for label in (0, 1))  # type: ignore[arg-type]
    assert class_conditions(ClassConditional(pipe), ImageCollection("pets", ("Dog", "cat"), images)) == ((7,), (3,))
