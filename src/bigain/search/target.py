"""The largest saving that keeps a target of accuracy or of generated images, by bisection.

Allocations of more and more FLOPs saved are judged by a joint run: each is a row, beside no compression, on the same
images and noise. That more saved is never better is an assumption; neighbours differ by the noise of few images. Not in
a paper.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bigain.diffusion import Denoiser
from bigain.metrics.fidelity import decibels, squared_errors
from bigain.run.engine import run
from bigain.run.paired import Paired
from bigain.run.results import Gain
from bigain.run.settings import CountSettings, DataSettings, ModelSettings, Settings, TimingSettings
from bigain.run.store import Store
from bigain.search.allocation import Allocation, allocate, most_saved
from bigain.search.offers import Offers
from bigain.search.settings import TargetSettings

STEPS = 6  # of the bisection, which tells 2^6 - 1 savings apart
_RESAMPLES = 200
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """One saving that was tried.

    Args:
        methods: spec of its allocation.
        saved: share of the FLOPs of a forward.
        accuracy: minus that without compression, as a share, with its paired 95% interval; None where not asked for.
        psnr: dB to the uncompressed images from the same noise, with a 95% bootstrap interval; None where not asked
            for. Infinite where no image changes.
        keeps: whether the values (not their intervals) keep the target.
    """

    methods: str
    saved: float
    accuracy: Gain | None
    psnr: Gain | None
    keeps: bool


def joint_settings(target: TargetSettings, model: ModelSettings, data: DataSettings, seed: int) -> Settings:
    """The joint run in which allocations are judged; nothing is timed, and no FID taken."""
    counts = CountSettings(
        classify=0 if target.lose_at_most is None else target.classify,
        generate=0 if target.psnr is None else target.generate,
        features="none",
        seed=seed,
    )
    return Settings(model=model, data=data.unseen(), counts=counts, timing=TimingSettings(timing_rounds=0))


def largest_saving(
    offers: Offers,
    target: TargetSettings,
    settings: Settings,
    path: Path,
    *,
    denoiser: Denoiser,
    progress: bool = False,
) -> tuple[Allocation, tuple[Step, ...]]:
    """The allocation that saves most of those that keep the target, and all that were tried.

    Savings are 63rds of what all layers together save. A step that the results file holds is not measured again.

    Args:
        target: with lose_at_most, psnr or both.
        settings: of the joint run, see ``joint_settings``.
        path: of its results file (.sqlite), which is made if it does not exist.
        denoiser: the model that ``settings`` names, open.
        progress: whether to say each step and to show a bar that counts its forwards.

    Raises:
        ValueError: the least saving does not keep the target, says what it costs; or as `bigain.run.engine.run`.
    """
    most, steps, tried = most_saved(offers.offers), [], {}
    low, high = 0, 2**STEPS  # no saving keeps the target, and one that is too large does not
    for number in range(1, STEPS + 1):
        middle = (low + high) // 2
        saving = max(1, round(middle * most / (2**STEPS - 1)))
        tried[middle] = allocate(offers.offers, saving, target.contrast)
        text = tried[middle].methods.text
        saved = tried[middle].saved / offers.flops
        if progress:
            print(f"Step {number} of {STEPS}: {saved:.1%} of the FLOPs saved", file=sys.stderr)
        run(replace(settings, methods=(text,)), path, progress=progress, denoiser=denoiser)
        with Store(path) as store:
            steps.append(_judge(store, text, saved, target))
        low, high = (middle, high) if steps[-1].keeps else (low, middle)
    if low == 0:
        raise ValueError(_refusal(target, min(steps, key=lambda step: step.saved)))
    return tried[low], tuple(steps)


def _judge(store: Store, methods: str, saved: float, target: TargetSettings) -> Step:
    accuracy = None if target.lose_at_most is None else Paired(store).accuracy(methods, "none")
    psnr = None if target.psnr is None else _psnr(store, methods)
    step = Step(methods, saved, accuracy, psnr, keeps=True)
    return Step(methods, saved, accuracy, psnr, keeps=not _missed(target, step))


def _missed(target: TargetSettings, step: Step) -> dict[str, str]:
    """Of each target that a step does not keep, what it would keep."""
    missed = {}
    if target.lose_at_most is not None and step.accuracy is not None:
        lost = -100 * step.accuracy.value
        if lost > target.lose_at_most + _ROUNDING:
            missed["lose_at_most"] = f"at least {lost:.2f}"
    if target.psnr is not None and step.psnr is not None and step.psnr.value < target.psnr:
        missed["psnr"] = f"at most {step.psnr.value:.2f}"
    return missed


def _refusal(target: TargetSettings, least: Step) -> str:
    parts = [f"{name} must be {value}, not {target.given[name]:g}" for name, value in _missed(target, least).items()]
    return (
        f"{' and '.join(parts)}: already the least saving, {least.saved:.1%} of the FLOPs, comes to that. Give "
        f"candidates that merge or pool less, or more images"
    )


def _psnr(store: Store, methods: str) -> Gain | None:
    """Of the squared error over all images that no compression generated too."""
    plain = {image.image: image.pixels for image in store.generated("none")}
    images = [image for image in store.generated(methods) if image.image in plain]
    if not images:
        return None
    errors = squared_errors(
        np.stack([image.pixels for image in images]), np.stack([plain[image.image] for image in images])
    )
    value = float(decibels(errors.mean()))
    if not errors.any():
        return Gain(value, value, value)
    rng = np.random.default_rng(0)
    means = np.array([errors[rng.integers(len(errors), size=len(errors))].mean() for _ in range(_RESAMPLES)])
    low, high = decibels(np.quantile(means, [0.975, 0.025]))  # the larger error has fewer dB
    return Gain(value, float(low), float(high))
