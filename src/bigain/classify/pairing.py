"""What an error is made of: the noise and the draws that pair an image's forwards, the prediction, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bigain.backbones import row_keys
from bigain.diffusion import Conditions, Denoiser
from bigain.operators.random import image_key, mix_keys, seeded_generator


def paired_noise(seed: int, image_id: str, timestep: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise (C, h, w), float32 on the CPU, that depends on ``(seed, image_id, timestep)`` alone.

    So it does not depend on the batch, the order, the worker, the classes, the method or a resumed run, and a timestep,
    which is its value and not its position in a schedule, has the same noise however many timesteps are drawn.
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
    """What a model predicts, (B, C, h, w) float32, with the draws of its compression fixed by what is given.

    Draws that are one per image depend on seed and image alone; those that are one per forward on condition and
    timestep too.

    Args:
        x_t: (B, C, h, w), from :func:`noised`.
        ids: B names of the images.
        t: (B,) int64 timesteps, on the CPU.
        conditions: as the denoiser encoded them.
        index: (B,) int64, each row's condition, on the CPU.
        seed: of the run.
    """
    keys = torch.tensor([image_key(name, seed) for name in ids]).to(denoiser.device)
    with row_keys(denoiser.model, image=keys, draw=mix_keys(index, t).to(denoiser.device)):
        return denoiser.predict(x_t, t, conditions, index)


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.mse_loss(prediction.float(), target.float(), reduction="none"))


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.l1_loss(prediction.float(), target.float(), reduction="none"))


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Huber loss with delta = 1 over all but the batch: (B, ...) to (B,)."""
    return _reduced(functional.huber_loss(prediction.float(), target.float(), reduction="none"))


def _reduced(difference: Tensor) -> Tensor:
    # In float32 whatever the model's dtype: half precision resolves about 6e-5, the size of the gaps between classes.
    return difference.flatten(1).mean(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "l1": l1, "huber": huber}
