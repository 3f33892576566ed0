"""The largest saving that keeps a target: against trying all savings, and that it resumes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigain.diffusion import Denoiser
from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import mean_psnr
from bigain.run.results import Gain
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.run.store import Store
from bigain.run.summary import Paired
from bigain.search import choice as module
from bigain.search.choice import STEPS, joint_settings, largest_saving
from bigain.search.knapsack import allocate, most_saved
from bigain.search.offers import Offer, Offers
from bigain.search.target import TargetSettings

OFFERS = Offers(
    {},
    1000,
    tuple(
        Offer(layer, f"todo:factor={factor},layers={layer}", saved, 0.1 * factor * (1 + layer), 0.0)
        for layer in (0, 1)
        for factor, saved in ((2, 100 + layer), (4, 250 + layer), (8, 400 + layer))
    ),
)
MOST = most_saved(OFFERS.offers)


def small(**changes: Any) -> TargetSettings:
    return TargetSettings(**({"classify": 6, "generate": 3} | changes))


def joint(target: TargetSettings, model: ModelSettings) -> Any:
    return joint_settings(target, model, DataSettings(), ProbeSettings())


def test_steps_are_judged_as_the_probe_is_spaced() -> None:
    settings = joint_settings(small(psnr=20.0), ModelSettings(), DataSettings(), ProbeSettings(spacing="scheduler"))
    assert (settings.classifier.spacing, settings.counts.seed) == ("scheduler", ProbeSettings().seed)


@pytest.mark.parametrize("limit", [0.12, 0.2, 0.55, 0.79])
def test_no_saving_that_keeps_the_target_is_larger(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    """With an accuracy that falls by one point per percent saved, in place of a measured one."""
    judged: list[float] = []

    def judge(_: Store, methods: str, saved: float, target: TargetSettings) -> module.Step:
        judged.append(saved)
        gain = Gain(-saved, -1.0, 1.0)
        step = module.Step(methods, saved, gain, None, keeps=True)
        return module.Step(methods, saved, gain, None, keeps=not module._missed(target, step))

    monkeypatch.setattr(module, "run", lambda *_, **__: None)
    monkeypatch.setattr(module, "Store", nullcontext)
    monkeypatch.setattr(module, "_judge", judge)
    target = small(lose_at_most=100 * limit)
    found, steps = largest_saving(OFFERS, target, joint(target, model), tmp_path / "r.sqlite", denoiser=denoiser)
    every = [allocate(OFFERS.offers, max(1, round(number * MOST / 63))).saved / 1000 for number in range(1, 64)]
    assert found.saved / 1000 == max(saved for saved in every if saved <= limit)
    assert len(steps) == len(judged) == STEPS


def test_each_step_is_a_row_of_a_joint_run_that_resumes(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = small(lose_at_most=100, psnr=1)
    path = tmp_path / "results.sqlite"
    forwards: list[int] = []
    denoiser.model.register_forward_hook(lambda *_: forwards.append(1))
    chosen, steps = largest_saving(OFFERS, target, joint(target, model), path, denoiser=denoiser)
    assert chosen.saved == MOST, "everything is kept, so all is saved"
    with Store(path) as store:
        assert store.identity["split"] == "validation"
        assert {*store.methods()} == {"none", *(step.methods for step in steps)}
        for step in steps:
            assert_measured(store, step)
    measured = len(forwards)
    assert largest_saving(OFFERS, target, joint(target, model), path, denoiser=denoiser) == (chosen, steps)
    assert len(forwards) == measured
    fewer = small(psnr=1)
    assert largest_saving(OFFERS, fewer, joint(fewer, model), path, denoiser=denoiser)[0] == chosen
    assert len(forwards) == measured, "another target is answered from what was measured"


def assert_measured(store: Store, step: module.Step) -> None:
    plain, own = ({row.id: row.prediction in row.labels for row in store.classified(name)}
                  for name in ("none", step.methods))  # fmt: skip
    assert len(own) == 6
    difference = paired_difference([own[name] for name in own], [plain[name] for name in own])
    assert step.accuracy == Gain(*difference)
    images = [np.stack([image.frames[0] for image in store.generated(name)]) for name in ("none", step.methods)]
    assert len(images[1]) == 3
    assert step.psnr is not None
    assert step.psnr.value == pytest.approx(mean_psnr(images[1], images[0]))
    assert step.psnr.low <= step.psnr.value <= step.psnr.high


def test_a_target_that_the_least_saving_misses_is_refused_with_what_it_costs(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path
) -> None:
    target = small(psnr=200)
    words = r"psnr must be at most \d+\.\d\d, not 200: already the least saving, 10.0% of the FLOPs"
    with pytest.raises(ValueError, match=words):
        largest_saving(OFFERS, target, joint(target, model), tmp_path / "r.sqlite", denoiser=denoiser)


def test_both_targets_are_kept() -> None:
    target = small(lose_at_most=2, psnr=25)
    for accuracy, psnr, missed in (
        (-0.02, 25.0, set()),
        (-0.03, 30.0, {"lose_at_most"}),
        (0.01, 24.9, {"psnr"}),
        (-0.05, 10.0, {"lose_at_most", "psnr"}),
        (0.0, math.inf, set()),
    ):
        step = module.Step("m", 0.1, Gain(accuracy, -1, 1), Gain(psnr, psnr, psnr), keeps=True)
        assert module._missed(target, step).keys() == missed


def test_images_that_do_not_change_keep_any_psnr(known_store: Store) -> None:
    assert Paired(known_store).psnr_to_plain("none") == Gain(math.inf, math.inf, math.inf)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "the target must be one of save .*, not none"),
        ({"save": 0.1, "speed_up": 1.2}, "not save and speed_up"),
        ({"save": 0.1, "psnr": 25}, "not save and psnr"),
        ({"save": 1.5}, "save must lie between 0 and 1, not 1.5"),
        ({"speed_up": 1.0}, "speed_up must be above 1, not 1"),
        ({"speed_up": math.nan}, "speed_up must be above 1, not nan"),
        ({"lose_at_most": -1.0}, "lose_at_most must be at least 0, not -1"),
        ({"psnr": math.nan}, "psnr must be at least 0, not nan"),
        ({"save": 0.1, "contrast": math.inf}, "contrast must be at least 0, not inf"),
        ({"psnr": 25.0, "generate": 0}, "generate must be at least 1, not 0"),
    ],
)
def test_what_is_no_target_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TargetSettings(**given).check()
