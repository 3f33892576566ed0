"""The forward process of a diffusion model, and what its network is asked to predict.

Every supported model noises as ``x_t = signal(t) * x0 + spread(t) * noise``:

============== ========================== ======================== ===================================
prediction     signal, spread             target                   source
============== ========================== ======================== ===================================
epsilon        sqrt(a_t), sqrt(1 - a_t)   noise                    Ho et al. 2020, eq. 14
v_prediction   the same                   signal*noise - spread*x0 Salimans & Ho 2022, appendix D
sample         the same                   x0                       Ho et al. 2020, section 3.2
flow           1 - s, s with s = t / T    noise - x0               Lipman et al. 2023; Liu et al. 2023
============== ========================== ======================== ===================================

``a_t`` is the cumulative product of 1 - beta, ``T`` the number of training timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PREDICTIONS: tuple[str, ...] = ("epsilon", "v_prediction", "sample", "flow")


@dataclass(frozen=True, eq=False)
class Process:
    """How clean samples are noised and what the network predicts from the noised ones."""

    prediction: str  # one of PREDICTIONS
    steps: int  # the number of training timesteps T; timesteps run from 0 to T - 1
    alphas_cumprod: Tensor | None = None  # (T,) cumulative products of 1 - beta; None for flow matching

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if (self.alphas_cumprod is None) != (self.prediction == "flow"):
            raise ValueError("alphas_cumprod must be given for every prediction but 'flow', and not for that")
        if self.alphas_cumprod is not None and self.alphas_cumprod.shape != (self.steps,):
            raise ValueError(f"alphas_cumprod must have shape ({self.steps},), not {tuple(self.alphas_cumprod.shape)}")

    def noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noised sample x_t of clean samples and standard normal noise, (B, ...), at timesteps (B,).

        Timesteps are integers in [0, steps) for a table of alphas, any real number in [0, steps] for flow. The result
        is in float32, or float64 where ``x0`` is.
        """
        signal, spread = self._coefficients(t, x0)
        return signal * x0 + spread * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict at x_t; shapes and dtypes as in :meth:`noise`."""
        signal, spread = self._coefficients(t, x0)
        if self.prediction == "epsilon":
            return noise.to(signal.dtype)
        if self.prediction == "v_prediction":
            return signal * noise - spread * x0
        if self.prediction == "sample":
            return x0.to(signal.dtype)
        return noise.to(signal.dtype) - x0

    def timesteps(self, count: int) -> Tensor:
        """``count`` evenly spaced timesteps with half a stride of offset, int((i + 0.5) * T / count), as (count,) long.

        For 20 of 1000: 25, 75, ..., 975 (Li et al. 2023). ``count`` lies in [1, T].
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"the number of timesteps must be from 1 to {self.steps}, not {count}")
        return torch.tensor([(2 * i + 1) * self.steps // (2 * count) for i in range(count)])

    def _coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and spread as (B, 1, ...) on the device of ``like``, in at least float32."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (-1, *[1] * (like.ndim - 1))
        if self.alphas_cumprod is None:
            s = t.to(like.device, dtype).view(shape) / self.steps
            return 1 - s, s
        # Looked up where t is, so that a batch moves B numbers to the device, not the table.
        alpha = self.alphas_cumprod.to(t.device)[t].to(like.device, dtype).view(shape)
        return alpha.sqrt(), (1 - alpha).sqrt()


def process_of(scheduler: Any) -> Process:
    """The process that a diffusers scheduler samples from; a ValueError for EDM, consistency decoders and the like."""
    name = type(scheduler).__name__
    config = getattr(scheduler, "config", {})
    prediction = "flow_prediction" if name.startswith("FlowMatch") else config.get("prediction_type")
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if prediction == "flow_prediction":
        return Process("flow", int(config["num_train_timesteps"]))
    if prediction in PREDICTIONS and isinstance(alphas, Tensor):
        return Process(prediction, len(alphas), alphas)
    raise ValueError(
        "the scheduler must have alphas_cumprod and the prediction_type epsilon, v_prediction or sample (DDIM, DDPM, "
        "PNDM, Euler, DPM-Solver++, ...), or be for flow matching (FlowMatch*, or prediction_type flow_prediction), "
        f"not {name} with prediction_type {prediction!r}"
    )
