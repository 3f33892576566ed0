"""What a search for a method finds, the targets it is to keep, and the choice among the trials."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

TARGETS: dict[str, str] = {
    "speed-up": "at least this many times as fast as no compression",
    "accuracy-loss": "at most this many points of accuracy below no compression",
    "psnr": "at least this many dB to the uncompressed images from the same noise",
}


SAME_IMAGES = 100.0
"""PSNR in dB that stands for infinity."""


@dataclass(frozen=True)
class Target:
    """A bound that the choice must keep: ``kind`` is one of ``TARGETS``.

    Raises:
        ValueError: names the kinds, or the range of the value.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            raise ValueError(f"a target is one of {', '.join(TARGETS)}, not {self.kind!r}")
        low = 1.0 if self.kind == "speed-up" else 0.0
        if not (math.isfinite(self.value) and self.value >= low):
            raise ValueError(f"the target {self.kind} must be at least {low:g}, not {self.value}")

    def met(self, trial: Trial) -> bool:
        """Whether a trial keeps it."""
        if self.kind == "speed-up":
            return trial.speed_up >= self.value
        if self.kind == "psnr":
            return trial.psnr is not None and trial.psnr >= self.value
        return trial.change is not None and 100 * trial.change >= -self.value - 1e-9

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"


@dataclass(frozen=True)
class Trial:
    """One method: its spec and what was found.

    Args:
        speed_up: time (or FLOPs) of no compression over its own.
        accuracy: share of images; ``change`` is that minus the accuracy of no compression on the same images.
        psnr: dB to the uncompressed images; `SAME_IMAGES` where not a pixel differs.
    """

    method: str
    speed_up: float
    accuracy: float | None
    change: float | None
    psnr: float | None

    def values(self) -> tuple[float, ...]:
        """What is maximised, as far as it was measured."""
        return tuple(value for value in (self.speed_up, self.accuracy, self.psnr) if value is not None)


def parse_target(text: str) -> Target:
    """Reads "speed-up=1.3".

    Raises:
        ValueError: it is no target; says what one looks like.
    """
    kind, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        raise ValueError(f"a target is written KIND=NUMBER, such as speed-up=1.3 or accuracy-loss=2, not {text!r}")
    return Target(kind, float(value))


def choose(trials: Sequence[Trial], targets: Sequence[Target]) -> Trial:
    """The best trial that is faster than no compression and keeps all targets.

    That is the fastest; or, where a speed-up is asked for, the truest.

    The truest has the highest accuracy, and on ties (or without classification) the highest PSNR.

    Raises:
        ValueError: no trial keeps them; says how near the nearest came.
    """
    kept = [trial for trial in trials if trial.speed_up > 1 and all(target.met(trial) for target in targets)]
    if not kept:
        bounds = " and ".join(map(str, targets))
        nearest = ", ".join(
            f"{trial.method} (speed-up {trial.speed_up:.2f}{_points(trial)}{_decibels(trial)})"
            for trial in front(trials)[:5]
        )
        raise ValueError(
            f"no trial of {len(trials)} keeps {bounds} and is faster than no compression; give more trials or an "
            f"easier target. Near: {nearest}"
        )
    by_speed = any(target.kind == "speed-up" for target in targets)
    return max(kept, key=lambda trial: (trial.values()[1:] if by_speed else ()) + trial.values()[:1])


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in every value, fastest first."""
    kept = [
        trial
        for trial in trials
        if not any(
            other.values() != trial.values()
            and all(b >= a for a, b in zip(trial.values(), other.values(), strict=True))
            for other in trials
        )
    ]
    return sorted(kept, key=lambda trial: -trial.speed_up)


def _points(trial: Trial) -> str:
    return "" if trial.change is None else f", accuracy {100 * trial.change:+.1f} points"


def _decibels(trial: Trial) -> str:
    return "" if trial.psnr is None else f", PSNR {trial.psnr:.1f} dB"
