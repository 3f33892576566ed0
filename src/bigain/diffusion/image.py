"""Families of images that are trained by flow matching: SD 3, Qwen-Image, Z-Image, Lumina 2, AuraFlow, FLUX.2 klein."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bigain.diffusion.conditional import EachStep
from bigain.diffusion.flow import UNIT_TIME, FlowConditional, Packed
from bigain.diffusion.process import Convention
from bigain.diffusion.space import FoldedLatents, Latents, StillLatents

_REVERSED = Convention(unit=1000, reverses=True)


class StableDiffusion3(FlowConditional):
    """``StableDiffusion3Pipeline``: Stable Diffusion 3 and 3.5 (Esser et al., 2024), with or without its T5."""

    readers = ("", "_2", "_3")
    optional = ("_3",)

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_length,
            device=self.device,
        )
        return {"encoder_hidden_states": embeds.to(self.dtype), "pooled_projections": pooled.to(self.dtype)}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also ``pooled_prompt_embeds``."""
        pooled = {"pooled_prompt_embeds": rows["pooled_projections"]}
        return super().pipeline_arguments(rows, guidance, each_step) | pooled


class QwenImage(Packed):
    """``QwenImagePipeline``: Qwen-Image (Wu et al., 2025). Guidance compares with the prompt " ", as its authors do."""

    autoencoder = StillLatents

    @property
    def usual_guidance(self) -> float:
        """The pipeline's own; 1, none, for a distilled model."""
        return 1.0 if self.distilled else float(self._call_default("true_cfg_scale"))

    def _texts(self, prompts: list[str]) -> list[str]:
        return [self.pipe.prompt_template_encode.format(prompt) for prompt in prompts]

    def _tokens(self, prompts: list[str], length: int | None = None) -> tuple[tuple[Any, ...], ...]:
        return super()._tokens(prompts, self.text_length + int(self.pipe.prompt_template_encode_start_idx))

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, mask = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.text_length)
        if mask is None:  # of texts of one length
            mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        return {"encoder_hidden_states": embeds.to(self.dtype), "encoder_hidden_states_mask": mask}

    def _unpacked(self, tokens: Tensor, height: int, width: int) -> Tensor:
        return super()._unpacked(tokens, height, width)[:, :, 0]

    def _beside(self, x_t: Tensor, rows: Mapping[str, Any]) -> dict[str, Any]:
        height, width = (side // 2 for side in x_t.shape[-2:])
        return {"img_shapes": [[(1, height, width)]] * len(x_t)}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the mask of the prompts."""
        mask = {"prompt_embeds_mask": rows["encoder_hidden_states_mask"]}
        return super().pipeline_arguments(rows, guidance, each_step) | mask

    def _guided(self, guidance: float, rows: int) -> dict[str, Any]:
        return {"true_cfg_scale": guidance} | ({} if guidance == 1 else {"negative_prompt": [" "] * rows})


class ZImage(FlowConditional):
    """``ZImagePipeline``: Z-Image (Z-Image Team, 2025), whose time runs from noise to image.

    The pipeline counts guidance from 0, which is none: it gets 1 less than :class:`bigain.generate.Sampling` has.
    """

    convention = _REVERSED

    @property
    def patch(self) -> int:
        """Samples along one side that are one token."""
        return int(self.model.config.all_patch_size[0])

    @property
    def usual_guidance(self) -> float:
        """The pipeline's own, counted from 1; 1, none, for a distilled model."""
        return super().usual_guidance + (0 if self.distilled else 1)

    def _texts(self, prompts: list[str]) -> list[str]:
        return [
            self.pipe.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            for prompt in prompts
        ]

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        texts = self._listed(prompts)
        embeds = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(embeds.shape[1]) < lengths[:, None]
        return {"encoder_hidden_states": embeds.to(self.dtype), "encoder_attention_mask": mask}

    def _listed(self, prompts: list[str]) -> list[Tensor]:
        """Each prompt's (L, C), of its own length."""
        embeds: list[Tensor] = self.pipe.encode_prompt(
            list(prompts),  # which it writes into
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_length,
            device=self.device,
        )[0]
        return embeds

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        output = self.model(list(x_t[:, :, None]), t, _unpadded(rows), return_dict=False)[0]
        return torch.stack(output)[:, :, 0]

    def latents_of(self, noise: Tensor) -> Tensor:
        """In float32, as the pipeline keeps them."""
        return noise

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """With the prompts, and the empty one of guidance, in lists."""
        return super().pipeline_arguments(rows, guidance, each_step) | {"prompt_embeds": _unpadded(rows)}

    def _guided(self, guidance: float, rows: int) -> dict[str, Any]:
        negative = None if guidance == 1 else [text.to(self.dtype) for text in self._listed([""])] * rows
        return {"guidance_scale": guidance - 1, "negative_prompt_embeds": negative}


class Lumina2(FlowConditional):
    """``Lumina2Pipeline``: Lumina-Image 2.0 (Qin et al., 2025), whose time runs from noise to image."""

    convention = _REVERSED

    def _texts(self, prompts: list[str]) -> list[str]:
        return [f"{self.pipe.system_prompt} <Prompt Start> {prompt}" for prompt in prompts]

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, mask, _, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"encoder_hidden_states": embeds.to(self.dtype), "encoder_attention_mask": mask}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the mask of the prompts."""
        mask = {"prompt_attention_mask": rows["encoder_attention_mask"]}
        return super().pipeline_arguments(rows, guidance, each_step) | mask


class AuraFlow(FlowConditional):
    """``AuraFlowPipeline``: AuraFlow (fal, 2024)."""

    convention = UNIT_TIME

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, *_ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"encoder_hidden_states": embeds.to(self.dtype)}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also a mask, which the pipeline asks for and does not use: it has zeros for what is masked."""
        mask = {"prompt_attention_mask": torch.ones_like(rows["encoder_hidden_states"])}
        return super().pipeline_arguments(rows, guidance, each_step) | mask


class Flux2Klein(FlowConditional):
    """``Flux2KleinPipeline``: FLUX.2 klein and klein base (Black Forest Labs, 2026)."""

    convention = UNIT_TIME
    autoencoder = FoldedLatents

    def __init__(self, pipe: Any, *, image_size: int | None = None) -> None:
        super().__init__(pipe, image_size=image_size)
        self._ids: tuple[tuple[Any, ...], Tensor, Tensor] | None = None  # the latest, which hooks know by identity

    @property
    def distilled(self) -> str | None:
        """What the pipeline says itself."""
        return "its pipeline's is_distilled" if self.pipe.config.is_distilled else None

    def shift(self, steps: int) -> float:
        """As the pipeline measured it."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return float(compute_empirical_mu(self.tokens, steps))

    def _space(self, pipe: Any) -> Latents:
        return self.autoencoder(pipe.vae)  # without one the pipeline cannot end

    def _texts(self, prompts: list[str]) -> list[str]:
        return [
            self.pipe.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for prompt in prompts
        ]

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.text_length)
        return {"encoder_hidden_states": embeds.to(self.dtype)}

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        tokens = self.pipe._pack_latents(x_t)
        key = (*x_t.shape, *rows["encoder_hidden_states"].shape, x_t.device)
        if self._ids is None or self._ids[0] != key:
            image = self.pipe._prepare_latent_ids(x_t).to(x_t.device)
            self._ids = key, image, self.pipe._prepare_text_ids(rows["encoder_hidden_states"]).to(x_t.device)
        beside: dict[str, Any] = {"img_ids": self._ids[1], "txt_ids": self._ids[2], "guidance": None}
        output = self.model(tokens, timestep=t, **beside, **rows, return_dict=False)[0]
        return output.transpose(1, 2).reshape(x_t.shape)

    def samples_of(self, latents: Tensor) -> Tensor:
        """The pipeline gives them as its autoencoder takes them."""
        normalised: Tensor = self.space.normalised(latents)  # type: ignore[union-attr]
        return normalised

    @property
    def _asked_side(self) -> int:
        return 2 * super()._asked_side

    def _guided(self, guidance: float, rows: int) -> dict[str, Any]:
        if guidance == 1:
            return {"guidance_scale": 1.0}
        negative = self._embedded([""])["encoder_hidden_states"].expand(rows, -1, -1)
        return {"guidance_scale": guidance, "negative_prompt_embeds": negative}


def _unpadded(rows: Mapping[str, Any]) -> list[Tensor]:
    """Each prompt's (L, C), without padding."""
    lengths = rows["encoder_attention_mask"].sum(1).tolist()
    return [text[:length] for text, length in zip(rows["encoder_hidden_states"], lengths, strict=True)]
