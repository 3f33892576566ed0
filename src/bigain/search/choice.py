"""An allocation from the target to the preset file: measure what layers offer, choose, judge, write.

The largest saving that keeps a target of accuracy or of generated images is found by bisection: allocations of more and
more FLOPs saved are rows of a joint run, beside no compression, on the same images and noise. That more saved is never
better is an assumption; neighbours differ by the noise of few images. Not in a paper.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigain.backbones.presets import preset_file
from bigain.diffusion import Denoiser
from bigain.progress import progress_bar
from bigain.run.engine import run
from bigain.run.files import versions, write_whole
from bigain.run.probe import Probe
from bigain.run.results import Gain
from bigain.run.settings import (
    ClassifierSettings,
    CountSettings,
    DataSettings,
    ModelSettings,
    ProbeSettings,
    Settings,
    TimingSettings,
)
from bigain.run.store import Store
from bigain.run.summary import Paired
from bigain.search.clock import Clocked, clock_offers, clock_together, kept_times
from bigain.search.correction import Judge, Settled, settle
from bigain.search.knapsack import allocate, most_saved
from bigain.search.measuring import measure_offers, whole
from bigain.search.offers import Allocation, Offers
from bigain.search.ranges import Range, ranges_of, use_timesteps
from bigain.search.target import TargetSettings

STEPS = 6  # of the bisection, which tells 2^6 - 1 savings apart
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Step:
    """One saving that was tried; its gains are None where they were not asked for."""

    methods: str  # spec of its allocation
    saved: float  # share of the FLOPs of a forward
    accuracy: Gain | None  # minus that without compression, paired
    psnr: Gain | None  # dB to the uncompressed images from the same noise; infinite where no image changes
    keeps: bool  # whether the values (not their intervals) keep the target


def joint_settings(target: TargetSettings, model: ModelSettings, data: DataSettings, probe: ProbeSettings) -> Settings:
    """The joint run in which allocations are judged; nothing is timed, and no FID taken."""
    counts = CountSettings(
        classify=0 if target.lose_at_most is None else target.classify,
        generate=0 if target.psnr is None else target.generate,
        features="none",
        seed=probe.seed,
    )
    return Settings(
        model=model,
        data=data.unseen(),
        classifier=ClassifierSettings(spacing=probe.spacing),
        counts=counts,
        timing=TimingSettings(timing_rounds=0),
    )


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
    ValueError where the least saving does not keep the target; and as `bigain.run.engine.run`.

    Args:
        target: with lose_at_most, psnr or both.
        settings, path: of the joint run, see ``joint_settings``, and of its results file (.sqlite), new or not.
        denoiser: the model that ``settings`` names, open.
    """
    most = most_saved(offers.offers)
    tried: dict[int, Allocation] = {}
    steps: list[Step] = []

    def misses(number: int) -> bool:
        """Whether so many 63rds are too much to save."""
        saving = max(1, round(number * most / (2**STEPS - 1)))
        tried[number] = allocate(offers.offers, saving, target.contrast)
        text, saved = tried[number].methods.text, tried[number].saved / offers.flops
        if progress:
            print(f"Step {len(tried)} of {STEPS}: {saved:.1%} of the FLOPs saved", file=sys.stderr)
        run(replace(settings, methods=(text,)), path, progress=progress, denoiser=denoiser)
        with Store(path) as store:
            steps.append(_judge(store, text, saved, target))
        return not steps[-1].keeps

    kept = bisect_left(range(1, 2**STEPS), True, key=misses)
    if kept == 0:
        least = min(steps, key=lambda step: step.saved)
        missed = " and ".join(
            f"{name} must be {value}, not {target.given[name]:g}" for name, value in _missed(target, least).items()
        )
        raise ValueError(
            f"{missed}: already the least saving, {least.saved:.1%} of the FLOPs, comes to that. Give candidates that "
            f"merge or pool less, or more images"
        )
    return tried[kept], tuple(steps)


def _judge(store: Store, methods: str, saved: float, target: TargetSettings) -> Step:
    paired = Paired(store)
    accuracy = None if target.lose_at_most is None else paired.accuracy(methods, "none")
    psnr = None if target.psnr is None else paired.psnr_to_plain(methods)
    step = Step(methods, saved, accuracy, psnr, keeps=True)
    return replace(step, keeps=not _missed(target, step))


def _missed(target: TargetSettings, step: Step) -> dict[str, str]:
    """Of each target that a step does not keep, what it would keep."""
    missed = {}
    lost = None if step.accuracy is None else -100 * step.accuracy.value
    if target.lose_at_most is not None and lost is not None and lost > target.lose_at_most + _ROUNDING:
        missed["lose_at_most"] = f"at least {lost:.2f}"
    if target.psnr is not None and step.psnr is not None and step.psnr.value < target.psnr:
        missed["psnr"] = f"at most {step.psnr.value:.2f}"
    return missed


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it rests on."""

    target: TargetSettings
    offers: Offers  # of all layers
    allocation: Allocation  # that was chosen, in FLOPs
    ranges: tuple[Range, ...] = (Range(),)  # of t
    settled: Settled | None = None  # what it changes as a whole; None where steps judged it
    clocked: Clocked | None = None  # the times of the offers, with a target of speed
    speed: dict[str, float] | None = None  # times as fast: by the layers alone ("expected"), together ("measured")
    steps: tuple[Step, ...] = ()  # of the bisection, in the order in which they were tried

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what was written, the preset first."""
        more = ("times.json",) if self.clocked is not None else ("results.sqlite",) if self.steps else ()
        return ("preset.json", "offers.json", *more)

    @property
    def kept(self) -> Step | None:
        """The step of the bisection that was chosen."""
        chosen = self.allocation.methods.text
        return next((step for step in self.steps if step.methods == chosen), None)


def choose(
    target: TargetSettings,
    folder: Path,
    *,
    model: ModelSettings,
    data: DataSettings,
    probe: ProbeSettings,
    candidates: Sequence[str] | None = None,
    timing_rounds: int = 7,
    progress: bool = False,
) -> Choice:
    """Gives every layer, in every range of t, the method that changes the predictions least, for the target.

    Writes preset.json into ``folder``, which keeps what was measured (offers.json, times.json, results.sqlite): another
    target, or a call after one that was interrupted, measures only what is missing. Embedded data are the validation
    split where no split is named. ``candidates`` are specs of one method each that a layer may take, `usual_candidates`
    if left out; with a target of speed ``timing_rounds`` count.

    ValueError for no target, or one that cannot be reached; and as `measure_offers`, `clock_offers`, `largest_saving`.
    """
    target.check()
    data = data.unseen()
    denoiser = model.open()
    times: dict[str, Any] = {"dtype": model.dtype, "batch_size": model.batch_size}
    if target.speed_up is not None:  # what does not compare is refused now rather than at the end
        kept_times(denoiser, folder / "times.json", **times)
    images = Probe.of(model, data, probe, denoiser)
    ranges = ranges_of(denoiser, target.ranges, target.for_, images.classifier.timesteps.tolist(), probe.spacing)
    with _counting(progress, "offer" if target.exact else "row", "allocate") as counted:
        path = folder / "offers.json"
        record = measure_offers(images, path, candidates=candidates, exact=target.exact, counted=counted)
    offers = record.offers(ranges)
    judge = Judge(lambda methods: whole(images, path, methods, target.exact), record.timesteps, ranges, target.contrast)
    if target.speed_up is not None:
        with _counting(progress, "forward", "time") as counted:
            clocked = clock_offers(
                denoiser, offers.offers, folder / "times.json", rounds=timing_rounds, counted=counted, **times
            )
        nanoseconds = clocked.saving(offers.offers, target.speed_up)
        with _counting(progress, "choice", "correct") as counted:
            settled = settle(clocked.in_time(offers.offers), nanoseconds, judge, counted)
        chosen = offers.in_flops(settled.allocation)
        among = use_timesteps(denoiser, target.for_, probe.spacing) if len(ranges) > 1 else None
        speed = clock_together(denoiser, chosen, clocked, timing_rounds, among)
        choice = Choice(target, offers, chosen, ranges, settled, clocked=clocked, speed=speed)
    elif target.save is not None:
        saving = _flops(target.save, offers)
        with _counting(progress, "choice", "correct") as counted:
            settled = settle(offers.offers, saving, judge, counted)
        choice = Choice(target, offers, offers.in_flops(settled.allocation), ranges, settled)
    else:
        settings = joint_settings(target, model, data, probe)
        chosen, steps = largest_saving(
            offers, target, settings, folder / "results.sqlite", denoiser=denoiser, progress=progress
        )
        choice = Choice(target, offers, chosen, ranges, steps=steps)
    about = _about(choice, data, probe)
    content = preset_file(choice.allocation.methods, denoiser.model, name=model.model, data=data.data, about=about)
    write_whole(folder / "preset.json", content)
    return choice


def _flops(share: float, offers: Offers) -> int:
    """What a share of the FLOPs of a forward comes to, if all layers together can save it."""
    most = math.floor(1000 * most_saved(offers.offers) / offers.flops) / 1000
    if share > most:
        raise ValueError(
            f"save must be at most {most:g}, which all layers together save with these candidates, not {share:g}"
        )
    return round(share * offers.flops)


def _about(choice: Choice, data: DataSettings, probe: ProbeSettings) -> dict[str, Any]:
    """What the preset is for, and what was measured."""
    allocation, target = choice.allocation, choice.target
    about: dict[str, Any] = {
        "targets": target.given,
        "saved": round(allocation.saved / choice.offers.flops, 4),
        "change": allocation.change,
        "contrast": allocation.contrast,
        "contrast_weight": target.contrast,
        "split": data.split,
        "images": probe.images,
        "timesteps": probe.timesteps,
        "spacing": probe.spacing,
        "seed": probe.seed,
        "exact": target.exact,
        "versions": versions(),
    }
    if choice.settled is not None:
        about["together"] = {"change": choice.settled.change, "contrast": choice.settled.contrast}
    if len(choice.ranges) > 1:
        about["for"] = target.for_
        about["ranges"] = {"-".join(map(str, one.timesteps or ())): one.weight for one in choice.ranges}
    if choice.clocked is not None and choice.speed is not None:
        about["speed_up"] = {"asked": target.speed_up, **choice.speed, **choice.clocked.environment}
    if choice.kept is not None:
        counts = {"lose_at_most": ("classified", target.classify), "psnr": ("generated", target.generate)}
        about["measured"] = {
            name: {field: round(value, 6) if math.isfinite(value) else None for field, value in vars(gain).items()}
            for name, gain in (("accuracy", choice.kept.accuracy), ("psnr", choice.kept.psnr))
            if gain is not None
        } | dict(counts[name] for name in target.given)
    return about


@contextmanager
def _counting(progress: bool, unit: str, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, and what tells it how many are done and how many in all."""
    with progress_bar(0, progress, unit=unit, desc=description) as bar:

        def counted(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield counted
