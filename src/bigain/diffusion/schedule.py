"""The schedule of a scheduler for flow matching, which may follow the number of tokens."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

SPACINGS: tuple[str, ...] = ("uniform", "scheduler")
"""How the timesteps of a classifier are spaced; see :meth:`bigain.diffusion.Denoiser.timesteps`."""


def set_timesteps(scheduler: Any, steps: int, shift: float, device: torch.device | None = None) -> None:
    """Makes a scheduler ready for ``steps``, with a shift where it takes one."""
    options = {"mu": shift} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(steps, device=device, **options)


def scheduled(scheduler: Any, count: int, shift: float) -> Tensor:
    """``count`` timesteps of all in a scheduler's schedule, evenly over their places with half a stride of offset.

    So a shifted schedule puts more of them where there is more noise. (count,) long, ascending, to the nearest integer.
    A ValueError for so many that two would be one. The scheduler is copied.
    """
    scheduler = copy.deepcopy(scheduler)
    steps = int(scheduler.config["num_train_timesteps"])
    if not 1 <= count <= steps:
        raise ValueError(f"the number of timesteps must be from 1 to {steps}, not {count}")
    set_timesteps(scheduler, steps, shift)
    schedule = scheduler.timesteps.double().sort().values
    places = [(2 * i + 1) * len(schedule) // (2 * count) for i in range(count)]
    timesteps = schedule[places].round().long().clamp(0, steps - 1).cpu()
    if len(timesteps.unique()) < count:
        raise ValueError(f"the number of timesteps must be so small that all differ in the schedule, not {count}")
    return timesteps


def shift_of(config: Any, tokens: int) -> float:
    """What the pipelines of diffusers tell a scheduler that follows the number of tokens: a line through two points."""
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(low + (high - low) * (tokens - least) / (most - least))
