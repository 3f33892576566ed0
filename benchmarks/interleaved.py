"""Times several things against each other: every round visits each in turn, so that a disturbance falls on all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import median

import torch

from bigain.run.cost import synchronise

Visit = tuple[Callable[[], AbstractContextManager[object]], Callable[[], object]]
"""What is entered around a visit, and what is timed in it."""


def interleaved(visits: Mapping[str, Visit], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each call in each round; a call is warmed up by one that is not timed, in every round."""
    times: dict[str, list[float]] = {name: [] for name in visits}
    for _ in range(rounds):
        for name, (prepared, call) in visits.items():
            with prepared():
                call()
                synchronise(device)
                started = time.perf_counter()
                call()
                synchronise(device)
                times[name].append((time.perf_counter() - started) * 1000)
    return times


def speed_up(reference: list[float], times: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest over the rounds of reference / time, round by round."""
    ratios = [before / after for before, after in zip(reference, times, strict=True)]
    return median(ratios), min(ratios), max(ratios)
