"""How well `bigain allocate` estimates what a candidate changes in a layer, and in what time, beside measuring each.

    python -m experiments.estimates glyphs-dit
    python -m experiments.estimates sdxl

Models: glyphs-dit, glyphs-sd, glyphs-dit-64, and sdxl, a small U-Net of SDXL's shape with random weights, on pixels.
Prints Spearman's rank correlation between estimates and measured values over all candidates and layers, of the change
of the prediction, of that of the difference between two classes, and of the cost that an allocation weighs; the
quotients of the two; and the processor time of both. Times count no FLOPs, which both ways count alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from scipy.stats import spearmanr

from bigain.backbones import compressed
from bigain.diffusion import Conditions, Denoiser
from bigain.diffusion.denoiser import Pixels
from bigain.operators.random import seeded_generator
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.search.estimate import estimate
from bigain.search.offers import CANDIDATES, CONTRAST_WEIGHT, Space, in_layers

SDXL: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 4),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
    "norm_num_groups": 8,
}


class RandomSDXL(Denoiser):
    """A U-Net of SDXL's shape with random weights, and random embeddings for prompts."""

    kind = "text"
    model_name = "unet"

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = UNet2DConditionModel(**SDXL)
        super().__init__(space=Pixels(), model=model, scheduler=DDIMScheduler())

    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """Embeddings that depend on the prompt alone."""

        def drawn(what: str, *shape: int) -> torch.Tensor:
            return torch.stack(
                [torch.randn(*shape, generator=seeded_generator(what, str(prompt))) for prompt in conditions]
            )

        added = {"text_embeds": drawn("pooled", 32), "time_ids": torch.ones(len(conditions), 6)}
        return Conditions(
            tuple(conditions), {"encoder_hidden_states": drawn("text", 7, 64), "added_cond_kwargs": added}
        )


@dataclass(frozen=True)
class Comparison:
    """Estimates beside measured values, of all candidates in all layers."""

    placed: tuple[str, ...]  # the candidates in their layers
    estimated: np.ndarray  # (2, candidates) change and contrast
    measured: np.ndarray
    seconds: tuple[float, float]  # of the processor: to estimate and to measure

    def costs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Estimates and measured values by what they are of."""
        pairs = (self.estimated, self.measured)
        cost = [change + CONTRAST_WEIGHT * contrast for change, contrast in pairs]
        return {
            "change": (self.estimated[0], self.measured[0]),
            "contrast": (self.estimated[1], self.measured[1]),
            "cost": (cost[0], cost[1]),
        }

    def correlations(self) -> dict[str, float]:
        """Spearman's, by what they are of."""
        return {name: float(spearmanr(*pair).statistic) for name, pair in self.costs().items()}

    def __str__(self) -> str:
        lines = []
        for name, (estimated, measured) in self.costs().items():
            ratio = np.quantile(estimated / measured, [0, 0.1, 0.5, 0.9, 1])
            quotients = " ".join(f"{value:.2f}" for value in ratio)
            rank = self.correlations()[name]
            lines.append(
                f"{name}: Spearman {rank:.3f}, estimated / measured (least, 10%, median, 90%, most) {quotients}"
            )
        quick, slow = self.seconds
        lines.append(f"processor seconds: {quick:.1f} to estimate, {slow:.1f} to measure, {slow / quick:.1f} times")
        return "\n".join(lines)


def compare(probe: Probe, candidates: Sequence[str]) -> Comparison:
    """Estimates and measures every candidate in every layer."""
    placed = in_layers(candidates, Space.of(probe.denoiser))
    probe.plain()  # which measuring needs once, whatever the candidates
    probe.plain(other=True)
    started = time.process_time()
    estimated = np.array([[np.mean(one) for one in pair] for pair in estimate(probe, placed)])
    quick = time.process_time() - started
    started = time.process_time()
    measured = []
    for _, method in placed:
        with compressed(probe.denoiser.model, method):
            measured.append([np.mean(one) for one in probe.changes()])
    slow = time.process_time() - started
    names = tuple(str(method) for _, method in placed)
    return Comparison(names, estimated.T, np.array(measured).T, (quick, slow))


def opened(model: str, images: int, timesteps: int) -> Probe:
    """A model with validation images."""
    settings, probe = ModelSettings(model=model), ProbeSettings(images=images, timesteps=timesteps)
    denoiser = RandomSDXL() if model == "sdxl" else settings.open(quiet=True)
    return Probe.of(settings, DataSettings(split="validation"), probe, denoiser)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("glyphs-dit", "glyphs-sd", "glyphs-dit-64", "sdxl"))
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--candidates", nargs="*", default=CANDIDATES)
    given = parser.parse_args(arguments)
    print(compare(opened(given.model, given.images, given.timesteps), given.candidates))


if __name__ == "__main__":
    main()
