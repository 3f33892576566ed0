"""The joint run: what it keeps, how it goes on, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigain.classify import DiffusionClassifier
from bigain.data import load, preprocess
from bigain.data.glyphs import CLASSES
from bigain.diffusion import open_model
from bigain.metrics import features
from bigain.metrics.features import Recogniser, RecogniserConfig
from bigain.run import engine, work
from bigain.run.engine import run
from bigain.run.files import fingerprint
from bigain.run.settings import Settings
from bigain.run.store import Store
from bigain.run.summary import summarise

Make = Callable[..., Settings]
Contents = Callable[[Path], list[Any]]


def test_every_method_gets_a_row_per_image(tiny_settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    run(tiny_settings(timing_rounds=1), path)
    with Store(path) as store:
        found = summarise(store)
        assert store.timing()[1].keys() == {"none", "lgtm:ratio=0.5", "todo:factor=2"}
    assert [(row.method, row.classified, row.generated) for row in found.rows] == [
        ("none", 5, 4),
        ("lgtm:ratio=0.5", 5, 4),
        ("todo:factor=2", 5, 4),
    ]
    assert found.rows[2].flops_change < 0
    assert found.rows[1].psnr is not None
    assert found.facts["forwards_per_classified_image"] == 10 + 2


def test_predictions_are_those_of_the_classifier_alone(tiny_settings: Make, tmp_path: Path) -> None:
    settings, path = tiny_settings(methods=("todo-2",), generate=0), tmp_path / "r.sqlite"
    run(settings, path)
    denoiser = open_model(settings.model.model)
    classifier = DiffusionClassifier(denoiser, range(10), to_keep=(2, 1), n_samples=(1, 2), batch_size=3)
    items = [load("glyphs", image_size=16)[i] for i in range(5)]
    with work.applied(denoiser, "todo-2"):
        alone = classifier.predict(torch.stack([preprocess(i.image, 16) for i in items]), [i.id for i in items])
    with Store(path) as store:
        for kept, wanted, item in zip(store.classified("todo:factor=2"), alone, items, strict=True):
            assert (kept.id, kept.labels, kept.prediction) == (item.id, item.labels, wanted.prediction)
            np.testing.assert_allclose(kept.errors, wanted.errors, rtol=1e-5)


@pytest.mark.parametrize("stop", ["add_classified", "add_generated"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str, contents: Contents
) -> None:
    settings = tiny_settings(batch_size=2)
    run(settings, tmp_path / "whole.sqlite")
    path = tmp_path / "stopped.sqlite"
    kept, calls = getattr(Store, stop), []

    def stopping(self: Store, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        kept(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Store, stop, stopping)
        with pytest.raises(KeyboardInterrupt):
            run(settings, path)
    assert contents(path) != contents(tmp_path / "whole.sqlite")
    run(settings, path)
    assert contents(path) == contents(tmp_path / "whole.sqlite")


def test_methods_and_images_can_be_added_and_nothing_is_done_twice(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    path = tmp_path / "r.sqlite"
    run(tiny_settings(methods=("todo-2",), classify=2, generate=1), path)
    before = contents(path)
    run(tiny_settings(methods=("abm-0.3", "todo-2"), classify=3, generate=2), path)
    after = contents(path)
    assert {*before[1]} < {*after[1]}
    assert {*before[2]} < {*after[2]}
    with Store(path) as store:
        rows = [(row.method, row.classified, row.generated) for row in summarise(store).rows]
    assert rows == [("none", 3, 2), ("abm:ratio=0.3", 3, 2), ("todo:factor=2", 3, 2)]
    monkeypatch.setattr(DiffusionClassifier, "predict", None)
    monkeypatch.setattr(work, "sample", None)
    run(tiny_settings(methods=("abm-0.3", "todo-2"), classify=3, generate=2, batch_size=5), path)
    assert contents(path) == after


def test_features_of_real_and_generated_images_are_kept(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser = Recogniser(RecogniserConfig(classes=CLASSES, size=16, widths=(2, 2, 2, 2), features=3)).eval()
    monkeypatch.setattr(features, "load_recogniser", lambda: recogniser)
    monkeypatch.setattr(engine, "REFERENCE_IMAGES", 12)
    run(tiny_settings(features="auto", methods=("todo-2",), classify=0), tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        facts, real = store.reference()
        rows = summarise(store).rows
        kept = [*store.generated("none")]
    real_images = {"data": "glyphs", "split": "validation", "images": 12}
    assert facts == real_images | {"network": "glyphs-recogniser", "dimensions": 3}
    validation = np.stack([item.image for item in load("glyphs", image_size=16, split="validation", limit=12)])
    np.testing.assert_allclose(real, recogniser.features(validation), rtol=1e-5)
    assert [row.label for row in kept] == [0, 1, 2, 3]
    assert all(row.fid > 0 and row.kid is not None and 0 <= row.recognised <= 1 for row in rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"n_samples": (1, 3)}, "n_samples"),
        ({"guidance": 2.0}, "guidance"),
        ({"split": "validation"}, "split"),
    ],
)
def test_results_of_other_settings_are_refused(tiny_settings: Make, tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "r.sqlite"
    run(tiny_settings(methods=(), classify=1, generate=0), path)
    with pytest.raises(ValueError, match=words):
        run(tiny_settings(methods=(), classify=1, generate=0, **change), path)


def test_results_of_other_weights_are_refused(tiny_settings: Make, tiny_model: Path, tmp_path: Path) -> None:
    settings, path = tiny_settings(methods=(), classify=1, generate=0), tmp_path / "r.sqlite"
    run(settings, path)
    denoiser = open_model(str(tiny_model))
    before = fingerprint(denoiser.model)
    with torch.no_grad():
        denoiser.model.proj_out_2.bias.add_(1)
    assert fingerprint(denoiser.model) != before
    denoiser.model.save_pretrained(tiny_model / "transformer")
    with pytest.raises(ValueError, match="weights is "):
        run(settings, path)


def test_a_method_that_does_not_fit_the_model_is_found_before_any_image(tiny_settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with pytest.raises(ValueError, match=r"cells of 2x2 allow 48 to merge, not 0\.9"):
        run(tiny_settings(methods=("todo-2", "lgtm-0.9")), path)
    with Store(path) as store:
        assert not store.classified_ids("none")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classify": 5001}, r"\[0, 5000\], as many as glyphs has with a label, not 5001"),
        ({"features": "recogniser"}, "16"),
        ({"to_keep": (11, 1)}, "10 conditions"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, words: str
) -> None:
    recogniser = Recogniser(RecogniserConfig(classes=CLASSES, size=32, widths=(2, 2, 2, 2), features=3)).eval()
    monkeypatch.setattr(features, "load_recogniser", lambda: recogniser)
    with pytest.raises(ValueError, match=words):
        run(tiny_settings(**change), tmp_path / "r.sqlite")
    assert not (tmp_path / "r.sqlite").exists(), "refused before anything is done"


def test_inception_features_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="torch-fidelity"):
        features.InceptionFeatures(torch.device("cpu"))


def test_a_folder_of_images_with_a_bad_one(tiny_settings: Make, tmp_path: Path) -> None:
    glyphs = load("glyphs", image_size=16)
    for index in range(10):
        folder = tmp_path / "data" / CLASSES[index]
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(work.encode_png(glyphs[index].image))
    (tmp_path / "data" / "B" / "0.png").write_text("no image")
    settings = tiny_settings(data=f"folder:{tmp_path / 'data'}", methods=(), classify=3, generate=0)
    with pytest.raises(ValueError, match=r"B.0\.png"):
        run(settings, tmp_path / "r.sqlite")
    skipping = tiny_settings(data=f"folder:{tmp_path / 'data'}", methods=(), classify=3, generate=0, bad_images="skip")
    with pytest.warns(UserWarning, match="skipped"):
        run(skipping, tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        assert [row.position for row in store.classified("none")] == [0, 2]


def test_steps_that_the_model_cannot_take_are_refused_before_anything_is_done(
    tiny_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="steps must be at most the model's 1000 timesteps, not 1001"):
        run(tiny_settings(steps=1001), tmp_path / "r.sqlite")
    assert not (tmp_path / "r.sqlite").exists()
