"""An allocation from the target to the preset file: measure what layers offer, choose, judge, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigain.backbones.presets import preset_file
from bigain.run.files import write_whole
from bigain.run.opening import progress_bar, versions
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.search.allocation import Allocation, allocate, most_saved
from bigain.search.clock import Clocked, clock_offers, clock_together, kept_times
from bigain.search.offers import CANDIDATES, Offers, measure_offers
from bigain.search.settings import TargetSettings
from bigain.search.target import Step, joint_settings, largest_saving


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it rests on.

    Args:
        offers: of all layers.
        allocation: that was chosen, in FLOPs.
        clocked: the times of the offers, with a target of speed.
        speed: how many times as fast a forward is, by the layers alone ("expected") and together ("measured").
        steps: of the bisection, in the order in which they were tried.
        files: names of what was written, the preset first.
    """

    target: TargetSettings
    offers: Offers
    allocation: Allocation
    clocked: Clocked | None = None
    speed: dict[str, float] | None = None
    steps: tuple[Step, ...] = ()
    files: tuple[str, ...] = ("preset.json", "offers.json")

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
    candidates: Sequence[str] = CANDIDATES,
    timing_rounds: int = 7,
    progress: bool = False,
) -> Choice:
    """Gives every layer the method that changes the predictions least, for the target.

    Writes preset.json into ``folder``, which keeps what was measured (offers.json, times.json, results.sqlite), so that
    another target, or a call that was interrupted, measures only what is missing.

    Args:
        target: what is to be saved, or what may be lost.
        model, data, probe: see the groups; embedded data are the validation split where no split is named.
        candidates: specs of one method each that a layer may take.
        timing_rounds: that count, with a target of speed.
        progress: whether to show progress.

    Raises:
        ValueError: no target, or one that cannot be reached, says what can; or as `measure_offers`, `clock_offers` and
            `largest_saving`.
    """
    target.check()
    data = data.unseen()
    denoiser = model.open()
    times: dict[str, Any] = {"dtype": model.dtype, "batch_size": model.batch_size}
    if target.speed_up is not None:  # what does not compare is refused now rather than at the end
        kept_times(denoiser, folder / "times.json", **times)
    with _counting(progress, "offer", "allocate") as counted:
        offers = measure_offers(
            denoiser,
            folder / "offers.json",
            model=model,
            data=data,
            settings=probe,
            candidates=candidates,
            counted=counted,
        )
    if target.speed_up is not None:
        with _counting(progress, "forward", "time") as counted:
            clocked = clock_offers(
                denoiser, offers.offers, folder / "times.json", rounds=timing_rounds, counted=counted, **times
            )
        nanoseconds = clocked.saving(offers.offers, target.speed_up)
        chosen = offers.in_flops(allocate(clocked.in_time(offers.offers), nanoseconds, target.contrast))
        speed = clock_together(denoiser, chosen, clocked, timing_rounds)
        files = ("preset.json", "offers.json", "times.json")
        choice = Choice(target, offers, chosen, clocked=clocked, speed=speed, files=files)
    elif target.save is not None:
        choice = Choice(target, offers, allocate(offers.offers, _flops(target.save, offers), target.contrast))
    else:
        settings = joint_settings(target, model, data, probe.seed)
        chosen, steps = largest_saving(
            offers, target, settings, folder / "results.sqlite", denoiser=denoiser, progress=progress
        )
        files = ("preset.json", "offers.json", "results.sqlite")
        choice = Choice(target, offers, chosen, steps=steps, files=files)
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
        "seed": probe.seed,
        "versions": versions(),
    }
    if choice.clocked is not None and choice.speed is not None:
        about["speed_up"] = {"asked": target.speed_up, **choice.speed, **choice.clocked.environment}
    if choice.kept is not None:
        gains = {"accuracy": choice.kept.accuracy, "psnr": choice.kept.psnr}
        about["measured"] = {
            name: {field: round(value, 6) if math.isfinite(value) else None for field, value in vars(gain).items()}
            for name, gain in gains.items()
            if gain is not None
        }
        counts = {"lose_at_most": ("classified", target.classify), "psnr": ("generated", target.generate)}
        about["measured"] |= dict(counts[name] for name in target.given)
    return about


@contextmanager
def _counting(progress: bool, unit: str, description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, and what tells it how many are done and how many in all."""
    with progress_bar(0, progress, unit=unit, desc=description) as bar:

        def counted(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield counted
