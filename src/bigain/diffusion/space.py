"""The space that a model denoises in: pixels, or latents of an autoencoder, of images or of videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

_CHUNK = 8  # images per pass of the autoencoder, whose activations are far larger than the denoiser's


class Pixels:
    """The model denoises RGB pixels."""

    factor = 1
    """Pixels per sample along one side."""
    frame_factor = 1
    """Frames per sample along time, after the first, which is one of its own."""
    channels = 3

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1] to (B, C, H / factor, W / factor) float32 samples; videos (B, 3, T, H, W)."""
        return images.float()

    def decode(self, x0: Tensor) -> Tensor:
        """(B, C, h, w) samples to (B, 3, h * factor, w * factor) float32 images, cut to [-1, 1]; videos likewise."""
        return x0.float().clamp(-1, 1)


class Latents:
    """The model denoises the latents of an ``AutoencoderKL``; a ValueError for another autoencoder.

    A latent is the posterior's mean, normalised as the autoencoder's config says: ``scaling_factor``,
    ``shift_factor`` (SD3, Flux) or ``latents_mean`` and ``latents_std`` (SDXL variants).
    """

    autoencoders: ClassVar[tuple[str, ...]] = ("AutoencoderKL",)
    frame_factor = 1

    def __init__(self, vae: Any) -> None:
        name = type(getattr(vae, "_orig_mod", vae)).__name__  # torch.compile wraps the class
        if name not in self.autoencoders:
            raise ValueError(f"the autoencoder must be an {' or '.join(self.autoencoders)}, not {name}")
        self.vae = vae.eval()
        self.factor, self.channels = self._sizes(vae)

    def _sizes(self, vae: Any) -> tuple[int, int]:
        """Pixels per sample along one side, and channels."""
        return 2 ** (len(vae.config.block_out_channels) - 1), int(vae.config.latent_channels)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """As :meth:`Pixels.encode`."""
        with self._float32_where_needed() as dtype:
            means = [self.vae.encode(chunk.to(dtype)).latent_dist.mean.float() for chunk in images.split(_CHUNK)]
        return self.normalised(torch.cat(means))

    def normalised(self, latents: Tensor) -> Tensor:
        """The autoencoder's own latents as samples."""
        mean, scale = self._normalisation(latents)
        return (latents - mean) * scale

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """As :meth:`Pixels.decode`."""
        mean, scale = self._normalisation(x0)
        with self._float32_where_needed() as dtype:
            chunks = self._unfolded(x0.float() / scale + mean).split(_CHUNK)
            images = [self.vae.decode(chunk.to(dtype), return_dict=False)[0].float() for chunk in chunks]
        return torch.cat(images).clamp(-1, 1)

    def _unfolded(self, latents: Tensor) -> Tensor:
        """Latents in the shape in which the autoencoder decodes them."""
        return latents

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is subtracted from a posterior mean, and what multiplies the difference; (1, C, 1, ...) or scalars."""
        config, shape = self.vae.config, (1, -1, *[1] * (like.ndim - 2))
        scale = torch.tensor(float(config.get("scaling_factor", 1.0)), device=like.device)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean = torch.tensor(config.latents_mean, device=like.device).view(shape)
            return mean, scale / torch.tensor(config.latents_std, device=like.device).view(shape)
        return torch.tensor(float(config.get("shift_factor") or 0.0), device=like.device), scale

    @contextmanager
    def _float32_where_needed(self) -> Iterator[torch.dtype]:
        """Runs a float16 autoencoder that overflows (``force_upcast``, as SDXL's) in float32, then puts it back."""
        dtype: torch.dtype = self.vae.dtype
        upcast = dtype == torch.float16 and bool(self.vae.config.get("force_upcast"))
        if not upcast:
            yield dtype
            return
        self.vae.to(torch.float32)
        try:
            yield torch.float32
        finally:
            self.vae.to(dtype)


class FoldedLatents(Latents):
    """Latents of which 2 x 2 lie on top of each other, normalised by a batch norm's running statistics (FLUX.2)."""

    autoencoders = ("AutoencoderKLFlux2",)

    def _sizes(self, vae: Any) -> tuple[int, int]:
        factor, channels = super()._sizes(vae)
        return 2 * factor, 4 * channels

    def normalised(self, latents: Tensor) -> Tensor:
        """The autoencoder's own latents, (B, C, 2 h, 2 w), as samples, (B, 4 C, h, w)."""
        return super().normalised(pixel_unshuffle(latents, 2))

    def _unfolded(self, latents: Tensor) -> Tensor:
        return pixel_shuffle(latents, 2)

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        spread = torch.sqrt(norm.running_var.float() + self.vae.config.batch_norm_eps)
        mean, spread = (values.to(like.device).view(1, -1, 1, 1) for values in (norm.running_mean.float(), spread))
        return mean, 1 / spread


class VideoLatents(Latents):
    """The model denoises the latents of an autoencoder of videos, which takes images as videos of one frame.

    Videos are (B, 3, T, H, W), latents (B, C, t, h, w), where the first latent stands for the first frame alone: t is
    (T - 1) / ``frame_factor`` + 1. They are normalised by ``latents_mean`` and ``latents_std`` for each channel.
    """

    autoencoders = ("AutoencoderKLWan",)

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.frame_factor = self._frame_factor(vae)

    def _sizes(self, vae: Any) -> tuple[int, int]:
        return int(vae.config.scale_factor_spatial), int(vae.config.z_dim)

    def _frame_factor(self, vae: Any) -> int:
        """Frames per latent, after the first."""
        return int(vae.config.scale_factor_temporal)


class StillLatents(VideoLatents):
    """The same of images alone, for a model of images whose autoencoder is one of videos (Qwen-Image)."""

    autoencoders = ("AutoencoderKLQwenImage",)

    def _sizes(self, vae: Any) -> tuple[int, int]:
        return 2 ** len(vae.config.temperal_downsample), int(vae.config.z_dim)

    def _frame_factor(self, vae: Any) -> int:
        return 1

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1] to (B, C, h, w) float32 samples."""
        return super().encode(images[:, :, None])[:, :, 0]

    def decode(self, x0: Tensor) -> Tensor:
        """(B, C, h, w) samples to (B, 3, H, W) float32 images, cut to [-1, 1]."""
        return super().decode(x0[:, :, None])[:, :, 0]


class HunyuanVideoLatents(VideoLatents):
    """Those of HunyuanVideo's autoencoder, which has one scale for all channels."""

    autoencoders = ("AutoencoderKLHunyuanVideo",)

    def _sizes(self, vae: Any) -> tuple[int, int]:
        return int(vae.spatial_compression_ratio), int(vae.config.latent_channels)

    def _frame_factor(self, vae: Any) -> int:
        return int(vae.temporal_compression_ratio)


class LTXVideoLatents(HunyuanVideoLatents):
    """Those of LTX-Video's autoencoder, which keeps mean and spread of each channel beside its weights."""

    autoencoders = ("AutoencoderKLLTXVideo",)

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        if vae.config.timestep_conditioning:
            raise ValueError(
                "the autoencoder must decode without a timestep, not with timestep_conditioning (LTX 0.9.1)"
            )

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = (
            values.to(like.device, torch.float32).view(1, -1, 1, 1, 1)
            for values in (self.vae.latents_mean, self.vae.latents_std)
        )
        return mean, self.vae.config.scaling_factor / spread
