"""Trains the autoencoder of the embedded text-to-image model: `python training/train_autoencoder.py --help`.

An `AutoencoderKL` that turns 64×64 pixels into 16×16 latents of 4 channels, on single letters and on scenes of several.
The loss is the mean squared error and a small pull of the latents towards a standard normal distribution; there is
neither a perceptual nor an adversarial part. At the end the scale of the latents is measured and kept as the model's
``scaling_factor``, so that the diffusion model sees unit variance.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from images import letters, scenes, to_pixels
from trainer import Trainer, options, train

SIZE = 64
CONFIG: dict[str, Any] = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(16, 32, 96),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=8,
    sample_size=SIZE,
    mid_block_add_attention=False,
)


class Reconstruction(nn.Module):
    """The model as a function of pixels and noise to the two parts of its loss."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error, and mean KL divergence per latent value, of pixels (B, 3, S, S)."""
        mean, log_variance = self.model.quant_conv(self.model.encoder(pixels)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (0.5 * log_variance).exp() * noise
        decoded = self.model.decoder(self.model.post_quant_conv(latents.to(pixels.dtype)))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return (decoded.float() - pixels.float()).square().mean(), divergence


def export(trainer: Trainer, images: np.ndarray, folder: Path) -> None:
    """Writes the averaged weights in diffusers' format, with the scale of the latents of ``images``."""
    model = AutoencoderKL(**CONFIG)
    trainer.average_into(Reconstruction(model))
    with torch.no_grad():
        means = [model.encode(to_pixels(images[i : i + 64])).latent_dist.mean for i in range(0, len(images), 64)]
    model.register_to_config(scaling_factor=round(1 / torch.cat(means).std().item(), 5))
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=40_000, decay=20_000, folder="runs/glyphs-vae")
    parser.add_argument("--kl-weight", type=float, default=1e-4, help="of the divergence, beside the squared error")
    parser.add_argument("--train-length", type=int, default=25_000, help="single letters, and scenes, to draw")
    args = parser.parse_args()

    cache = args.folder.parent / "cache"
    data = [draw("train", SIZE, args.train_length, cache) for draw in (letters, scenes)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        wrapped = Reconstruction(AutoencoderKL(**CONFIG)).to(memory_format=torch.channels_last)
    trainer = Trainer(wrapped, lambda name, p: ".conv" in name, args)
    forward = torch.compile(trainer.model) if args.compile else trainer.model

    def loss_of(generator: torch.Generator) -> Tensor:
        half = args.batch // 2
        index = torch.randint(args.train_length, (args.batch,), generator=generator).numpy()
        images = np.concatenate([data[0][index[:half]], data[1][index[half:]]])
        noise = torch.randn(args.batch, CONFIG["latent_channels"], SIZE // 4, SIZE // 4, generator=generator)
        pixels = to_pixels(images).to(args.device, trainer.dtype, memory_format=torch.channels_last)
        error, divergence = forward(pixels, noise.to(args.device))
        return error + args.kl_weight * divergence

    some = np.concatenate([part[:256] for part in data])
    train(trainer, args, loss_of, partial(export, trainer, some, args.folder / "export"))


if __name__ == "__main__":
    main()
