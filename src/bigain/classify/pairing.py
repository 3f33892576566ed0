"""What an error is made of: the noise and the draws that pair an image's forwards, the prediction, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bigain.backbones import row_keys
from bigain.classify.elimination import Ask
from bigain.diffusion import Conditions, Denoiser, Process
from bigain.diffusion.process import WEIGHTINGS
from bigain.diffusion.schedule import SPACINGS
from bigain.operators.random import image_key, mix_keys, seeded_generator


def paired_noise(seed: int, image_id: str, timestep: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise (C, h, w), float32 on the CPU, that depends on ``(seed, image_id, timestep)`` alone.

    So it does not depend on the batch, the order, the worker, the classes, the method or a resumed run, and a timestep,
    which is its value and not its position in a schedule, has the same noise however many timesteps are drawn.
    """
    return torch.randn(*shape, generator=seeded_generator("classify", seed, image_id, timestep))


def noised(denoiser: Denoiser, x0: Tensor, ids: Sequence[str], t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """x_t of clean samples under the paired noise of their images, and the target, (B, C, h, w) float32.

    ``x0`` is (B, C, h, w) as ``denoiser.encode`` gives it, ``ids`` are B names of images, ``t`` (B,) int64 on the CPU.
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
    alike: Tensor | None = None,
) -> Tensor:
    """What a model predicts of x_t from :func:`noised`, (B, C, h, w) float32, under each row's condition.

    ``index``, the condition, and ``t`` are (B,) int64 on the CPU. The random draws of its compression are fixed: those
    that are one per image by seed and image, those that are one per forward by condition and timestep too. ``alike``
    (B,) int64 is equal for rows that differ in the condition alone. ValueError where methods of a range of t are
    applied, and ``t`` lie on both sides of one of its bounds.
    """
    parts = denoiser.alike(t)
    if len(parts) > 1:  # so that the keys of a forward are those of its rows
        own = [
            predictions(
                denoiser, x_t[rows.to(x_t.device)], [ids[i] for i in rows], t[rows], conditions, index[rows], seed
            )
            for rows in parts
        ]
        return torch.cat(own)[torch.cat(parts).argsort().to(x_t.device)]
    keys = torch.tensor([image_key(name, seed) for name in ids]).to(denoiser.device)
    draw = mix_keys(index, t).to(denoiser.device)
    with row_keys(denoiser, image=keys, draw=draw, alike=alike, timesteps=t):
        return denoiser.predict(x_t, t, conditions, index)


def _per_row(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of prediction and target, (B, ...), as its mean over all but the batch: (B,) float32."""

    def mean(prediction: Tensor, target: Tensor) -> Tensor:
        # Half precision resolves about 6e-5, the size of the gaps between classes.
        return loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(1)

    return mean


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": _per_row(functional.mse_loss),
    "l1": _per_row(functional.l1_loss),
    "huber": _per_row(functional.huber_loss),
}


@dataclass(frozen=True)
class Scoring:
    """What an error is, and at which timesteps.

    Args:
        loss: one of ``LOSSES``.
        weighting: what it is measured in: "prediction", as the model predicts, which is the velocity of a model trained
            by flow matching; "velocity", "epsilon" or "likelihood", which follow from it in any model: see
            :meth:`bigain.diffusion.Process.scale`. Both sides are scaled before the loss.
        spacing: of the timesteps: "uniform"; or "scheduler", by the shifted schedule of a model trained by flow
            matching, which is refused for others.
    """

    loss: str = "l2"
    weighting: str = "prediction"
    spacing: str = "uniform"

    def __post_init__(self) -> None:
        for name, choices in (("loss", LOSSES), ("weighting", WEIGHTINGS), ("spacing", SPACINGS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")

    def errors(self, process: Process, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """(B,) float32 errors of predictions (B, ...) at timesteps (B,)."""
        if self.weighting != "prediction":
            scale = process.scale(t, self.weighting).to(prediction.device).view(-1, *[1] * (prediction.ndim - 1))
            prediction, target = scale * prediction.float(), scale * target.float()
        return LOSSES[self.loss](prediction, target)


def batches(wave: Mapping[int, Ask], size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Image, position and condition of the rows of a wave, ``size`` at a time: over images, timesteps, conditions.

    Rows are made as they are needed: ImageNet's first round has millions.
    """
    waiting: list[npt.NDArray[np.int64]] = []
    count = 0
    for image, ask in wave.items():
        positions, conditions = np.meshgrid(ask.positions, ask.conditions, indexing="ij")
        rows = np.stack([np.full(positions.size, image), positions.ravel(), conditions.ravel()])
        waiting.append(rows)
        count += rows.shape[1]
        if count >= size:
            rows = np.concatenate(waiting, axis=1)
            whole = count - count % size
            for first in range(0, whole, size):
                yield _tensors(rows[:, first : first + size])
            waiting, count = [rows[:, whole:]], count - whole
    if count:
        yield _tensors(np.concatenate(waiting, axis=1))


def _tensors(rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    image, position, condition = torch.from_numpy(rows)
    return image, position, condition
