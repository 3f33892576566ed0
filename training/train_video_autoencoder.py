"""Trains the autoencoder of the embedded video model: `python training/train_video_autoencoder.py --help`.

An `AutoencoderKLWan` that turns frames of 64×64 pixels into 32×32 latents of 4 channels, as many as frames. It trains
on stills of moving letters: weights by which a convolution sees earlier frames are zero, and have no gradient where
there is no earlier frame, so each frame of a video is encoded as if alone. As in `train_autoencoder.py` the loss is the
mean squared error and a small pull of the latents towards a standard normal distribution. At the end mean and deviation
of each channel are measured and kept in the config, by which the diffusion model's latents are normalised.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor, nn

from images import to_pixels, videos
from trainer import Trainer, options, train

SIZE = 64
CONFIG: dict[str, Any] = dict(
    base_dim=32,
    z_dim=4,
    dim_mult=[1],
    num_res_blocks=2,
    temperal_downsample=[],
    patch_size=2,
    in_channels=12,
    out_channels=12,
    scale_factor_temporal=1,
    scale_factor_spatial=2,
    latents_mean=[0.0] * 4,
    latents_std=[1.0] * 4,
)


def alone(model: AutoencoderKLWan) -> AutoencoderKLWan:
    """The model, with no weight left on earlier frames."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv3d):
                module.weight[:, :, :-1] = 0
    return model


class Reconstruction(nn.Module):
    """The model as a function of stills and noise to the two parts of its loss."""

    def __init__(self, model: AutoencoderKLWan) -> None:
        super().__init__()
        self.model = model

    def forward(self, stills: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error, and mean KL divergence per latent value, of stills (B, 3, 1, S, S)."""
        model = self.model
        inside = model.encoder(patchify(stills, model.config.patch_size))
        mean, log_variance = model.quant_conv(inside).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (0.5 * log_variance).exp() * noise
        decoded = model.decoder(model.post_quant_conv(latents.to(stills.dtype)))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        error = (unpatchify(decoded, model.config.patch_size).float() - stills.float()).square().mean()
        return error, divergence


def frames_first(videos: np.ndarray) -> Tensor:
    """uint8 (B, T, S, S, 3) as float32 (B, 3, T, S, S) in [-1, 1]."""
    batch = len(videos)
    return to_pixels(videos.reshape(-1, *videos.shape[2:])).unflatten(0, (batch, -1)).transpose(1, 2)


def export(trainer: Trainer, data: np.ndarray, folder: Path) -> None:
    """Writes the averaged weights in diffusers' format, with the mean and deviation of the latents of ``data``."""
    model = AutoencoderKLWan(**CONFIG)
    trainer.average_into(Reconstruction(model))
    with torch.no_grad():
        parts = [model.encode(frames_first(data[i : i + 16])).latent_dist.mean for i in range(0, len(data), 16)]
    latents = torch.cat(parts).transpose(0, 1).flatten(1)
    model.register_to_config(
        latents_mean=[round(x, 5) for x in latents.mean(1).tolist()],
        latents_std=[round(x, 5) for x in latents.std(1).tolist()],
    )
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=20_000, decay=12_000, folder="runs/glyphs-video-vae")
    parser.set_defaults(batch=8, warmup_steps=100)
    parser.add_argument("--kl-weight", type=float, default=1e-4, help="of the divergence, beside the squared error")
    parser.add_argument("--train-length", type=int, default=8_000, help="stills to draw")
    args = parser.parse_args()

    data = videos("train", SIZE, 1, args.train_length, args.folder.parent / "cache")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        wrapped = Reconstruction(alone(AutoencoderKLWan(**CONFIG)))
    trainer = Trainer(wrapped, lambda name, p: ".conv1" in name or ".conv2" in name, args)
    forward = torch.compile(trainer.model) if args.compile else trainer.model

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(args.train_length, (args.batch,), generator=generator).numpy()
        stills = frames_first(data[index]).to(args.device, trainer.dtype)
        noise = torch.randn(args.batch, CONFIG["z_dim"], 1, SIZE // 2, SIZE // 2, generator=generator)
        error, divergence = forward(stills, noise.to(args.device))
        return error + args.kl_weight * divergence

    train(trainer, args, loss_of, partial(export, trainer, data[:128], args.folder / "export"))


if __name__ == "__main__":
    main()
