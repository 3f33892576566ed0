"""The race as the page shows it."""

from __future__ import annotations

import numpy as np
import pytest

from bigain.backbones import applied_to
from bigain.classify import DiffusionClassifier, Racing
from bigain.data.glyphs import Glyphs
from bigain.images import Pixels
from bigain.methods import Compression
from bigain.ui.classify import LONGEST, MOST, Verdict, check, classify
from bigain.ui.models import Models, Opened

METHODS = "lgtm-0.5"


@pytest.fixture(scope="module")
def letter() -> Pixels:
    return Glyphs("test").pixels(3)


def judged(opened: Opened, letter: Pixels, rule: str = "racing", fitted: bool = True, methods: str = METHODS) -> list:
    told: list[Verdict] = []
    classify(opened, letter, [], Compression.of(methods), rule, fitted, True, told.append)
    return told


def test_both_races_are_those_of_the_classifier(opened: Opened, letter: Pixels) -> None:
    last = judged(opened, letter)[-1]
    for race, methods in ((last.compressed, (METHODS, "none")), (last.plain, ())):
        classifier = DiffusionClassifier("glyphs-dit", range(10), elimination=Racing(20, methods=methods))
        [expected] = classifier.use("glyphs-dit").predict(letter)
        np.testing.assert_array_equal(race.prediction.errors, expected.errors)
        assert race.prediction.name == race.standings[0].name == expected.name
        assert race.forwards == expected.forwards
    assert last.papers == 125
    assert not applied_to(opened.denoiser)


def test_classes_drop_out_and_stay_out(opened: Opened, letter: Pixels) -> None:
    told = judged(opened, letter, fitted=False)
    races = [known.compressed for known in told if known.plain is None]
    alive = [sum(one.alive for one in race.standings) for race in races]
    assert alive == sorted(alive, reverse=True)
    assert len(races) > 3
    for race in races:
        assert race.standings[0].behind == 0
        evaluated = [sum(one is not None for one in standing.differences) for standing in race.standings]
        assert sum(evaluated) == race.forwards
        assert all(count == evaluated[0] for count, one in zip(evaluated, race.standings, strict=True) if one.alive)


def test_stages_are_compressed_throughout(opened: Opened, letter: Pixels) -> None:
    last = judged(opened, letter, rule="staged", fitted=False)[-1]
    assert last.compressed.forwards == last.plain.forwards == last.papers
    errors = last.compressed.prediction.errors, last.plain.prediction.errors
    assert not np.isclose(*errors, rtol=1e-6, equal_nan=True).any(where=np.isfinite(errors[0]))


def test_without_a_method_it_is_done_once(opened: Opened, letter: Pixels) -> None:
    assert all(known.plain is None for known in judged(opened, letter, methods="none"))


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (["a"], "the prompts must be 2 to 100, one on each line, not 1"),
        ([str(number) for number in range(MOST + 1)], "not 101"),
        (["a", "b" * (LONGEST + 1)], "a prompt must have at most 300 characters, not 301: 'bbb"),
        (["a", "a"], "the prompts must differ"),
    ],
)
def test_prompts_that_cannot_be_are_refused(models: Models, prompts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(models["glyphs-sd"], prompts)


def test_a_model_of_prompts_is_asked_with_them(models: Models) -> None:
    told: list[Verdict] = []
    prompts = ["a photo of the letter H.", "a photo of the letter S."]
    image = Glyphs("test", 64).pixels(4)
    classify(models["glyphs-sd"], image, prompts, Compression(), "racing", False, False, told.append)
    assert {one.name for one in told[-1].compressed.standings} == set(prompts)
    assert told[-1].papers == 40
