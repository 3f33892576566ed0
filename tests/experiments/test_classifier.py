"""The experiment on what each part of the classifier saves: it resumes, compares and refuses what does not belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigain.classify import Racing, Stages
from bigain.run.settings import DataSettings, ModelSettings
from experiments import classifier

FEW = {
    classifier.REFERENCE: (Stages((2, 1), (1, 2)), False),
    "racing, telling timesteps": (Racing(2), True),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "variants", lambda model: FEW)
    monkeypatch.setattr(classifier, "_CHUNK", 2)


def go(path: Path, images: int, dtype: str = "float32") -> dict:
    classifier.run(ModelSettings(dtype=dtype), DataSettings(), images, path, progress=False)
    return json.loads(path.read_text())["variants"]


def test_it_goes_on_where_it_was_stopped(small: None, tmp_path: Path) -> None:
    first = go(tmp_path / "a.json", 2)
    assert [len(own["right"]) for own in first.values()] == [2, 2]
    resumed, whole = go(tmp_path / "a.json", 4), go(tmp_path / "b.json", 4)
    for name in FEW:
        for what in ("right", "probability", "forwards"):
            assert resumed[name][what] == whole[name][what]
            assert resumed[name][what][:2] == first[name][what]
    assert whole[classifier.REFERENCE]["forwards"] == [12] * 4
    lines = classifier.table(tmp_path / "b.json").splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:4]] == list(FEW)
    assert "12.0 (1/1.0)" in lines[2]


def test_another_setting_in_the_same_file_is_refused(small: None, tmp_path: Path) -> None:
    go(tmp_path / "a.json", 2)
    with pytest.raises(ValueError, match=r"environment in .*a\.json must be .*bfloat16"):
        go(tmp_path / "a.json", 4, "bfloat16")


@pytest.mark.parametrize("model", classifier.MANY)
def test_all_variants_fit_the_embedded_models(model: str) -> None:
    variants = classifier.variants(model)
    assert next(iter(variants)) == classifier.REFERENCE
    for elimination, _ in variants.values():
        elimination.check(10, 1000)
