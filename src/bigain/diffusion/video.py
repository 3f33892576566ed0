"""The families of videos: Wan, HunyuanVideo, LTX-Video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bigain.diffusion.conditional import EachStep
from bigain.diffusion.denoiser import check_images
from bigain.diffusion.flow import FlowConditional
from bigain.diffusion.space import HunyuanVideoLatents, LTXVideoLatents, VideoLatents


class VideoConditional(FlowConditional):
    """A pipeline that makes videos. Videos are (B, T, 3, H, W), samples of them (B, C, t, h, w).

    Args:
        pipe, image_size: as for :class:`FlowConditional`.
        frames: T; left out, the pipeline's own number. With 1 it is a model of images (B, 3, H, W).
    """

    sizes: ClassVar[tuple[str, ...]] = ("image_size", "frames")
    autoencoder = VideoLatents

    def __init__(self, pipe: Any, *, image_size: int | None = None, frames: int | None = None) -> None:
        super().__init__(pipe, image_size=image_size)
        self._frames = int(self._call_default("num_frames")) if frames is None else frames
        factor = self.space.frame_factor
        if self._frames < 1 or (self._frames - 1) % factor:
            raise ValueError(f"frames must be 1 more than a multiple of {factor} for this model, not {self._frames}")

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self._frames

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, t, h, w) of what is denoised."""
        channels, height, width = super().sample_shape
        return channels, (self._frames - 1) // self.space.frame_factor + 1, height, width

    @property
    def patch(self) -> int:
        """Samples along one side that are one token."""
        patch = self.model.config.patch_size
        return int(patch if isinstance(patch, int) else patch[1])

    def encode(self, images: Tensor) -> Tensor:
        """Clean samples x0 of videos (B, T, 3, H, W), or where T is 1 of images: (B, C, t, h, w) float32.

        Raises as :meth:`Denoiser.encode`, and a ValueError where the autoencoder leaves frames out.
        """
        if images.ndim == 4 and self._frames == 1:
            images = images[:, None]
        check_images(images, (self._frames, 3, self._image_size, self._image_size))
        samples = self.space.encode(images.to(self.device).transpose(1, 2))
        if samples.shape[2] != self.sample_shape[1]:  # Wan's takes the first frame, then four at a time
            raise ValueError(
                f"frames must be a number of which the autoencoder leaves none out, such as 5 or 9, not {self._frames}"
            )
        return samples

    def decode(self, x0: Tensor) -> Tensor:
        """(B, C, t, h, w) clean samples to (B, T, 3, H, W) float32 videos in [-1, 1]; (B, 3, H, W) where T is 1."""
        videos = self.space.decode(x0).transpose(1, 2)
        return videos[:, 0] if self._frames == 1 else videos

    def latents_of(self, noise: Tensor) -> Tensor:
        """In float32, as the pipelines keep them."""
        return noise

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the number of frames, which the pipeline counts as it does the size."""
        frames = (self.sample_shape[1] - 1) * self._pipeline_factors[1] + 1
        return super().pipeline_arguments(rows, guidance, each_step) | {"num_frames": frames}

    @property
    def _pipeline_factors(self) -> tuple[int, int]:
        """Pixels and frames per latent as the pipeline counts them."""
        return int(self.pipe.vae_scale_factor_spatial), int(self.pipe.vae_scale_factor_temporal)

    @property
    def _asked_side(self) -> int:
        return int(self.sample_shape[-1]) * self._pipeline_factors[0]


class Wan(VideoConditional):
    """``WanPipeline``: Wan 2.1 and 2.2 (Wan Team, 2025).

    Wan 2.2 A14B has two transformers: above the pipeline's ``boundary_ratio`` of all timesteps ``transformer``, below
    ``transformer_2``.
    """

    @property
    def models(self) -> tuple[Any, ...]:
        """The transformer; with a boundary, that for much noise and that for little."""
        second = getattr(self.pipe, "transformer_2", None)
        return (self.model,) if self._boundary is None else (self.model, second)

    @property
    def _boundary(self) -> float | None:
        """The timestep under which the second transformer denoises."""
        ratio = self.pipe.config.boundary_ratio
        return None if ratio is None else ratio * self.process.steps

    def alike(self, t: Tensor) -> list[Tensor]:
        """Those above the boundary, then those below."""
        if self._boundary is None:
            return super().alike(t)
        late = t.cpu() < self._boundary
        return [rows for rows in ((~late).nonzero().flatten(), late.nonzero().flatten()) if len(rows)]

    def _texts(self, prompts: list[str]) -> list[str]:
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean  # which imports transformers

        return [prompt_clean(prompt) for prompt in prompts]

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"encoder_hidden_states": embeds.to(self.dtype)}

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        parts = self.alike(t)
        if len(parts) == 1:
            return self._denoised(x_t, t, rows)
        result = torch.empty_like(x_t)
        for part in parts:
            own = part.to(x_t.device)
            result[own] = self._denoised(x_t[own], t[own], {name: value[own] for name, value in rows.items()})
        return result

    def _denoised(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        """Of rows that one of the transformers denoises."""
        late = self._boundary is not None and float(t[0]) < self._boundary
        if self.pipe.config.expand_timesteps:  # Wan 2.2 5B: one for each token
            t = t[:, None].expand(-1, x_t[0, 0].numel() // self.patch**2)
        output: Tensor = self.models[int(late)](x_t, timestep=t, **rows, return_dict=False)[0]
        return output

    @property
    def _asked_side(self) -> int:
        """A multiple of 16, which the pipeline asks for; it goes by its latents."""
        return -(-super()._asked_side // 16) * 16


class HunyuanVideo(VideoConditional):
    """``HunyuanVideoPipeline``: HunyuanVideo (Kong et al., 2024). Guidance is an input, and 1 in :meth:`predict`."""

    autoencoder = HunyuanVideoLatents
    readers = ("_2", "")
    embeds_guidance = True

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, pooled, mask = self.pipe.encode_prompt(
            prompts, device=self.device, max_sequence_length=self.text_length
        )
        texts = {"encoder_hidden_states": embeds, "pooled_projections": pooled, "encoder_attention_mask": mask}
        return {name: value.to(self.dtype) for name, value in texts.items()}

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        guidance = torch.full((len(x_t),), 1000.0, dtype=x_t.dtype, device=x_t.device)  # in thousandths
        return super()._forward(x_t, t, rows | {"guidance": guidance})

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the mask and the pooled prompts."""
        return super().pipeline_arguments(rows, guidance, each_step) | {
            "pooled_prompt_embeds": rows["pooled_projections"],
            "prompt_attention_mask": rows["encoder_attention_mask"],
        }


class LTXVideo(VideoConditional):
    """``LTXPipeline``: LTX-Video 0.9 (HaCohen et al., 2024), at 25 frames a second."""

    autoencoder = LTXVideoLatents

    @property
    def _pipeline_factors(self) -> tuple[int, int]:
        return int(self.pipe.vae_spatial_compression_ratio), int(self.pipe.vae_temporal_compression_ratio)

    @property
    def _patches(self) -> tuple[int, int]:
        """Latents that are one token along one side, and along time."""
        return self.patch, int(self.model.config.patch_size_t)

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, mask, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"encoder_hidden_states": embeds.to(self.dtype), "encoder_attention_mask": mask}

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        grid = dict(zip(("num_frames", "height", "width"), x_t.shape[-3:], strict=True))
        spatial, temporal = self._pipeline_factors
        scale = (temporal / self._call_default("frame_rate"), spatial, spatial)
        tokens = self.pipe._pack_latents(x_t, *self._patches)
        output = super()._forward(tokens, t, rows | grid | {"rope_interpolation_scale": scale})
        return self._unpacked(output, x_t.shape)

    def _unpacked(self, tokens: Tensor, shape: Sequence[int]) -> Tensor:
        unpacked: Tensor = self.pipe._unpack_latents(tokens, *shape[-3:], *self._patches)
        return unpacked

    def latents_of(self, noise: Tensor) -> Tensor:
        """Packed."""
        packed: Tensor = self.pipe._pack_latents(noise, *self._patches)
        return packed

    def samples_of(self, latents: Tensor) -> Tensor:
        """Unpacked."""
        return self._unpacked(latents, self.sample_shape)

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the mask of the prompts."""
        mask = {"prompt_attention_mask": rows["encoder_attention_mask"]}
        return super().pipeline_arguments(rows, guidance, each_step) | mask
