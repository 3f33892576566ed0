"""The noise of an image at a timestep: one for all classes, so that their errors are paired."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigain.diffusion.seeding import seeded_generator


def paired_noise(seed: int, image_id: str, timestep: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise that depends on ``(seed, image_id, timestep)`` alone.

    So it does not depend on the batch, the order, the worker, the classes, the method or a resumed run, and a
    timestep has the same noise however many timesteps are drawn.

    Args:
        seed: of the run.
        image_id: what names the image in its data set.
        timestep: its value, not its position in a schedule.
        shape: (C, h, w) of one sample.

    Returns:
        float32 of that shape, on the CPU.
    """
    return torch.randn(*shape, generator=seeded_generator("classify", seed, image_id, timestep))
