"""What the page offers for a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigain import zoo
from bigain.methods import METHODS, Compression
from bigain.run.files import fingerprint
from bigain.run.settings import ModelSettings
from bigain.search.measuring import read_record
from bigain.ui.models import Models, Opened, chosen, merges, pools


def test_the_named_model_comes_first_and_once(models: Models) -> None:
    assert models.names[0] == "glyphs-dit"
    assert models["glyphs-dit"] is models["glyphs-dit"]
    named = Models(ModelSettings(model="glyphs-sd")).names
    assert named[0] == "glyphs-sd"
    assert sorted(named) == sorted(models.names)
    assert Models(ModelSettings(model="./other")).names[0] == "./other"


def test_embedded_models_of_videos_are_not_offered(models: Models) -> None:
    assert set(zoo.denoisers()) - set(models.names) == {"glyphs-video"}


def test_only_what_is_offered_is_opened(models: Models) -> None:
    for name in ("/etc", "glyphs-recogniser"):
        with pytest.raises(ValueError, match=r"model must be one of glyphs-dit, .*, not "):
            models[name]


def test_a_model_of_videos_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSettings, "open", lambda *_, **__: SimpleNamespace(is_video=True))
    with pytest.raises(ValueError, match="model must be one of images on this page, not 'glyphs-dit-64'"):
        replace_settings(models)["glyphs-dit-64"]


def replace_settings(models: Models) -> Models:
    """The same, with nothing open."""
    return Models(replace(models.settings))


@pytest.mark.parametrize("method", METHODS)
def test_a_choice_is_the_method_with_its_strength(method: str) -> None:
    assert merges(method) != pools(method)
    strength = "ratio=0.3" if merges(method) else "factor=3"
    assert chosen(method, 0.3, 3, []) == Compression.of(f"{method}:{strength}")
    assert chosen(method, 0.3, 3, [2, 0]) == Compression.of(f"{method}:{strength},layers=0/2")


def test_a_preset_is_a_choice_of_its_own(opened: Opened) -> None:
    (_, first), *_ = opened.methods
    assert first.startswith("glyphs-dit/")
    assert not merges(first)
    assert not pools(first)
    assert chosen(first, 0.3, 3, [1]) == chosen(first, 0.9, 2, [])


@pytest.mark.parametrize("name", ["glyphs-dit", "glyphs-dit-64", "glyphs-sd"])
def test_embedded_models_have_a_fit_and_offers_of_their_own_weights(models: Models, name: str) -> None:
    own = models[name]
    assert own.fitted is not None
    assert own.offers is not None
    assert read_record(own.offers).identity["weights"] == fingerprint(*own.denoiser.networks)


def test_a_run_of_allocate_here_goes_before(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("runs", "allocate", "glyphs-dit", "offers.json")
    own.parent.mkdir(parents=True)
    own.touch()
    assert opened.offers == own
    assert replace(opened, name="./elsewhere").offers is None
