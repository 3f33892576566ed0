"""What pairs the forwards of an image: its noise at a timestep, one for all classes, and the keys of random draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigain.backbones import row_keys
from bigain.diffusion import Conditions, Denoiser, image_key, seeded_generator
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


def noised(denoiser: Denoiser, x0: Tensor, ids: Sequence[str], t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples under the paired noise of their images, and what the network should predict of them.

    Args:
        x0: (B, C, h, w) clean samples, as ``denoiser.encode`` gives them.
        ids: B names of the images.
        t: (B,) int64 timesteps, on the CPU.
        seed: of the run.

    Returns:
        x_t and the target, (B, C, h, w) float32 on the device of ``x0``.
    """
    shape = x0.shape[1:]
    rows = [paired_noise(seed, name, step, shape) for name, step in zip(ids, t.tolist(), strict=True)]
    noise = torch.stack(rows).to(x0.device)
    return denoiser.process.noise(x0, noise, t), denoiser.process.target(x0, noise, t)


def predictions(
    denoiser: Denoiser,
    x_t: Tensor,
    ids: Sequence[str],
    t: Tensor,
    conditions: Conditions,
    index: Tensor,
    seed: int,
) -> Tensor:
    """What a model predicts, with the random draws of its compression fixed by seed, image, condition and timestep.

    Draws that are one per image depend on seed and image alone; those that are one per forward on condition and
    timestep too.

    Args:
        x_t: (B, C, h, w), from :func:`noised`.
        ids: B names of the images.
        t: (B,) int64 timesteps, on the CPU.
        conditions: as the denoiser encoded them.
        index: (B,) int64, each row's condition, on the CPU.
        seed: of the run.

    Returns:
        (B, C, h, w) float32.
    """
    keys = torch.tensor([image_key(name, seed) for name in ids]).to(denoiser.device)
    with row_keys(denoiser.model, image=keys, draw=mix_keys(index, t).to(denoiser.device)):
        return denoiser.predict(x_t, t, conditions, index)
