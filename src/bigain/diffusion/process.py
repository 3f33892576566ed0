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

With the noised sample fixed, the errors of all these are multiples of each other: that of the noise is ``signal``
times, that of x0 ``spread`` times the error of the velocity, which is v_prediction's target or flow's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PREDICTIONS: tuple[str, ...] = ("epsilon", "v_prediction", "sample", "flow")
WEIGHTINGS: tuple[str, ...] = ("prediction", "velocity", "epsilon", "likelihood")
"""What an error is measured in; see :meth:`Process.scale`."""


@dataclass(frozen=True)
class Convention:
    """How a network is told its timestep, and which way its output points.

    Args:
        unit: timesteps in one unit of the network's time: 1 where it takes 0 to T, T where it takes 0 to 1.
        reverses: whether its time runs from noise to image, and its output with it: it takes T - t, and predicts
            x0 - noise (Z-Image, Lumina 2).
    """

    unit: float = 1.0
    reverses: bool = False

    def told(self, t: Tensor, steps: int) -> Tensor:
        """What the network takes for timesteps (B,) of ``steps``; as they are where its time is theirs."""
        if self.reverses:
            t = steps - t
        return t if self.unit == 1 else t / self.unit

    def pointed(self, output: Tensor) -> Tensor:
        """The network's output as noise - x0, or as it is where it points that way."""
        return -output if self.reverses else output


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

    def x0(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean sample that a prediction at x_t stands for; shapes and dtypes as in :meth:`noise`."""
        signal, spread = self._coefficients(t, x_t)
        if self.prediction == "epsilon":
            return (x_t - spread * prediction) / signal
        if self.prediction == "v_prediction":
            return signal * x_t - spread * prediction
        if self.prediction == "sample":
            return prediction.to(signal.dtype)
        return x_t - spread * prediction

    def scale(self, t: Tensor, weighting: str) -> Tensor:
        """What turns the error of a prediction at timesteps (B,) into another one: (B,) float32, on the device of t.

        Args:
            t: as in :meth:`noise`.
            weighting: ``"prediction"``, the error of what the network predicts, is as it is. ``"velocity"`` and
                ``"epsilon"`` are the errors of the velocity and of the noise that follow from the prediction.
                ``"likelihood"``, squared, is the integrand of the variational bound: half the rate at which the ratio
                of signal to noise falls, times the squared error of x0 (Kingma et al. 2021, eq. 13 and 17). Of the
                squared error of a flow's velocity that is (1 - s) / s.

        Raises:
            ValueError: for another weighting, and for the likelihood at timestep 0, where the bound has no such term.
        """
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, not {weighting!r}")
        signal, spread = self._coefficients(t, torch.empty(len(t), device=t.device))
        one = torch.ones_like(signal)
        own = {"epsilon": signal, "sample": spread}.get(self.prediction, one)
        if weighting == "prediction" or weighting == self.prediction:
            return one
        if weighting == "likelihood":
            return spread * self._falling(t).sqrt() / own
        return (signal if weighting == "epsilon" else one) / own

    def _falling(self, t: Tensor) -> Tensor:
        """Half the rate at which the ratio of signal to noise falls, per share of all timesteps: (B,) float32."""
        if (t <= 0).any():
            raise ValueError("timesteps must lie above 0 where errors are weighted by the likelihood, not at 0")
        if self.alphas_cumprod is None:
            s = t.float() / self.steps
            return (1 - s) / s**3
        alphas = self.alphas_cumprod.to(t.device, torch.float64)
        ratio = alphas / (1 - alphas)
        return (self.steps / 2 * (ratio[t - 1] - ratio[t])).float()

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
