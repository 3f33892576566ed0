"""What pairs the forwards of an image: its noise at a timestep, one for all classes, and the keys of random draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigain.backbones import row_keys
from bigain.diffusion import Conditions, Denoiser
from bigain.diffusion.seeding import seeded_generator
from bigain.operators.random import mix_keys


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


def keyed_prediction(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, conditions: Conditions, index: Tensor, keys: Tensor
) -> Tensor:
    """What a model predicts, with the random draws of its compression fixed by image, condition and timestep.

    Draws that are one per image depend on its key alone; those that are one per forward on condition and timestep too.

    Args:
        x_t: (B, C, h, w), noised.
        t: (B,) int64, on the CPU.
        index: (B,) int64, of the conditions, on the CPU.
        keys: (B,) int64, `bigain.diffusion.image_key` of each row's image.

    Returns:
        (B, C, h, w) float32.
    """
    device = denoiser.device
    with row_keys(denoiser.model, image=keys.to(device), draw=mix_keys(index, t).to(device)):
        return denoiser.predict(x_t, t, conditions, index)
