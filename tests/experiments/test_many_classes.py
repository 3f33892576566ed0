"""The experiment with many classes: images show what their prompt says, trees hold every class, and a run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bigain.classify import Hierarchy, Racing, Stages
from bigain.run.settings import ModelSettings
from experiments import classifier, many_classes

QUADRANTS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


@pytest.mark.parametrize("count", many_classes.PARTS)
def test_all_variants_fit_the_classes(count: int) -> None:
    kinds = many_classes.classes(count)
    assert len(kinds) == count
    variants = many_classes.variants("glyphs-sd", kinds)
    assert next(iter(variants)) == classifier.REFERENCE
    for elimination, _ in variants.values():
        elimination.check(count, 1000)


def test_a_tree_asks_about_letters_first_in_the_words_of_training() -> None:
    kinds = many_classes.classes(100)
    tree = many_classes.tree(kinds)
    assert list(tree) == [f"a photo of a letter {letter}" for letter in "ABEGH"]
    assert tree["a photo of a letter A"]["a photo of an orange letter A"] == [
        f"a photo of an orange letter A at the {place}" for place in QUADRANTS
    ]
    hierarchy = Hierarchy.of(tree, list(kinds))
    assert (hierarchy.classes, hierarchy.depth, len(hierarchy.held)) == (100, 2, 5 + 25)


def test_an_image_shows_one_letter_at_its_place_and_any_hundred_show_all() -> None:
    kinds = many_classes.classes(100)
    test = many_classes.alone(kinds, "test", 64)
    assert sorted(entry.labels[0] for entry in test.entries[300:400]) == list(range(100))
    assert test.prompts is not None
    assert test.prompts[7] == (list(kinds)[7],)
    item = test[3]
    quadrant = list(kinds.values())[item.labels[0]].place
    parts = {place: item.image[32 * row :, 32 * column :][:32, :32] for place, (row, column) in QUADRANTS.items()}
    busiest = max(parts, key=lambda place: float(np.abs(np.diff(parts[place].astype(float), axis=0)).mean()))
    assert busiest == quadrant
    same, other = many_classes.alone(kinds, "test", 64)[3], many_classes.alone(kinds, "validation", 64)[3]
    assert np.array_equal(same.image, item.image)
    assert not np.array_equal(other.image, item.image)


def test_it_fits_once_and_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(many_classes, "PARTS", {16: (2, 2)})
    monkeypatch.setattr(many_classes, "_FIT", {"candidates": 3, "error_rate": 0.5})
    monkeypatch.setattr(many_classes, "_FIT_IMAGES", 4)
    few = {classifier.REFERENCE: (Stages((2, 1), (1, 2)), False), "racing": (Racing(3), True)}
    monkeypatch.setattr(many_classes, "variants", lambda model, kinds: few)
    monkeypatch.setattr(classifier, "_CHUNK", 1)
    model, path = ModelSettings(model="glyphs-sd"), tmp_path / "a.json"
    many_classes.run(model, 16, 1, path, progress=False)
    fit = tmp_path / "a.fit-16.json"
    assert json.loads(fit.read_text())["data"] == "16 classes, validation split"
    fitted, first = fit.stat().st_mtime_ns, json.loads(path.read_text())["variants"]
    many_classes.run(model, 16, 2, path, progress=False)
    assert fit.stat().st_mtime_ns == fitted
    for name, own in json.loads(path.read_text())["variants"].items():
        assert len(own["right"]) == 2
        assert own["forwards"][:1] == first[name]["forwards"]
    assert "test images of 16 classes" in classifier.table(path)
    changed = json.loads(fit.read_text()) | {"threshold": 5.0}
    fit.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"fit in .*a\.json must be .*5\.0"):
        many_classes.run(model, 16, 3, path, progress=False)
