"""What the pipelines of flow matching have in common, and those that pack 2 x 2 latents into a token: FLUX, Chroma."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bigain.diffusion.conditional import EachStep, TextConditional, callback_of
from bigain.diffusion.denoiser import Conditions
from bigain.diffusion.process import Convention
from bigain.diffusion.space import Latents, Pixels

UNIT_TIME = Convention(unit=1000)
"""Of networks whose time runs from 0, the image, to 1."""


class FlowConditional(TextConditional):
    """A pipeline of a transformer that takes images of many sizes, so that theirs is chosen when it is opened.

    Prompts are encoded by the pipeline's own ``encode_prompt`` and kept on the CPU; a batch's rows move to the device.

    Args:
        pipe: the pipeline; without an autoencoder its transformer denoises pixels.
        image_size: height and width in pixels. Left out, what the configs say: ``sample_size`` of the transformer, else
            of the autoencoder, else the pipeline's ``default_sample_size``, else 512.

    Raises:
        ValueError: for a size that the transformer cannot take, and as :class:`bigain.diffusion.Denoiser`.
    """

    sizes: ClassVar[tuple[str, ...]] = ("image_size",)
    autoencoder: ClassVar[type[Latents]] = Latents
    readers: ClassVar[tuple[str, ...]] = ("",)
    """Endings of the names of the text encoders and tokenizers, the one of the longest texts last."""

    optional: ClassVar[tuple[str, ...]] = ()
    """Of these, what the pipeline can do without."""

    def __init__(self, pipe: Any, *, image_size: int | None = None) -> None:
        super().__init__(pipe)
        self._image_size = self._usual_size() if image_size is None else image_size
        multiple = self.space.factor * self.patch
        if self._image_size < 1 or self._image_size % multiple:
            raise ValueError(f"image_size must be a multiple of {multiple} for this model, not {self._image_size}")

    def _space(self, pipe: Any) -> Pixels | Latents:
        return Pixels() if pipe.vae is None else self.autoencoder(pipe.vae)

    def _usual_size(self) -> int:
        """The image size where none is chosen."""
        own, vae = self.model.config.get("sample_size"), getattr(self.space, "vae", None)
        if isinstance(own, int):
            return own * self.space.factor
        if vae is not None and isinstance(vae.config.get("sample_size"), int):
            return int(vae.config.sample_size)
        default = getattr(self.pipe, "default_sample_size", None)
        return 512 if default is None else int(default) * self.space.factor

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, h, w) of what is denoised, before it is packed."""
        side = self._image_size // self.space.factor
        return self.space.channels, side, side

    @property
    def usual_guidance(self) -> float:
        """The pipeline's own; 1, none, for a distilled model."""
        return 1.0 if self.distilled else float(self._call_default("guidance_scale"))

    def _call_default(self, name: str) -> Any:
        """The default of an argument of the pipeline's call."""
        return inspect.signature(type(self.pipe).__call__).parameters[name].default

    @property
    def text_length(self) -> int:
        """Tokens that the longest text encoder reads: as the pipeline's call, or its tokenizer if that is less."""
        usual, tokenizer = self._call_default("max_sequence_length"), getattr(self.pipe, f"tokenizer{self.readers[-1]}")
        return int(usual if tokenizer is None else min(usual, tokenizer.model_max_length))

    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """As :meth:`TextConditional.conditions`; the prompts' tensors lie on the CPU."""
        self._check_encoders()
        return super().conditions(conditions)

    def _check_encoders(self) -> None:
        """Raises where a text encoder is missing without which the pipeline encodes nothing."""
        for suffix in self.readers:
            if suffix not in self.optional and getattr(self.pipe, f"text_encoder{suffix}") is None:
                raise ValueError(
                    f"the pipeline must have a text_encoder{suffix} to encode prompts; or give ready-made Conditions"
                )

    def _encode(self, prompts: list[str]) -> dict[str, Any]:
        return {name: value.to("cpu") for name, value in self._embedded(prompts).items()}

    @abstractmethod
    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        """The model's arguments for ``prompts``, one row each, by the pipeline's own encoders."""

    def _texts(self, prompts: list[str]) -> list[str]:
        """What the tokenizers get of prompts."""
        return prompts

    def _tokens(self, prompts: list[str], length: int | None = None) -> tuple[tuple[Any, ...], ...]:
        """What each text encoder sees of each prompt, cut to its length."""
        read = []
        for suffix in self.readers:
            tokenizer = getattr(self.pipe, f"tokenizer{suffix}")
            if tokenizer is None or getattr(self.pipe, f"text_encoder{suffix}") is None:
                continue
            longest = min(length or self.text_length, tokenizer.model_max_length)
            read.append(tokenizer(self._texts(prompts), truncation=True, max_length=longest).input_ids)
        return tuple(tuple(map(tuple, texts)) for texts in zip(*read, strict=True))

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the size, and the length of the empty prompt that guidance compares with."""
        return {
            "prompt_embeds": rows["encoder_hidden_states"],
            "height": self._asked_side,
            "width": self._asked_side,
            "max_sequence_length": self.text_length,
            "callback_on_step_end": callback_of(each_step),
            **self._guided(guidance, len(rows["encoder_hidden_states"])),
        }

    @property
    def _asked_side(self) -> int:
        """The size as the pipeline counts it, which takes pixels without an autoencoder for latents, too."""
        return int(self.sample_shape[-1] * self.pipe.vae_scale_factor)

    def _guided(self, guidance: float, rows: int) -> dict[str, Any]:
        """What asks the pipeline for guidance."""
        return {"guidance_scale": guidance}


class Packed(FlowConditional):
    """A transformer that takes 2 x 2 latents as one token, in one sequence (B, N, 4 C)."""

    convention = UNIT_TIME
    packing = 2

    def latents_of(self, noise: Tensor) -> Tensor:
        """Packed."""
        return self._packed(super().latents_of(noise))

    def samples_of(self, latents: Tensor) -> Tensor:
        """Unpacked."""
        return self._unpacked(latents, *self.sample_shape[-2:])

    def _packed(self, x: Tensor) -> Tensor:
        packed: Tensor = self.pipe._pack_latents(x, *x.shape)
        return packed

    def _unpacked(self, tokens: Tensor, height: int, width: int) -> Tensor:
        unpacked: Tensor = self.pipe._unpack_latents(tokens, height, width, 1)
        return unpacked

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        arguments = rows | self._beside(x_t, rows)
        output = self.model(self._packed(x_t), timestep=t, **arguments, return_dict=False)[0]
        return self._unpacked(output, *x_t.shape[-2:])

    @abstractmethod
    def _beside(self, x_t: Tensor, rows: Mapping[str, Any]) -> dict[str, Any]:
        """What the network takes beside the prompts, for x_t (B, C, h, w) as it is before it is packed."""


class Placed(Packed):
    """A transformer that is told where its tokens are."""

    def __init__(self, pipe: Any, *, image_size: int | None = None) -> None:
        super().__init__(pipe, image_size=image_size)
        self._ids: tuple[tuple[Any, ...], Tensor, Tensor] | None = None  # the latest, which hooks know by identity

    def _beside(self, x_t: Tensor, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Places of the image's tokens (N, 3), and of the text's (L, 3), which are none."""
        height, width = (side // 2 for side in x_t.shape[-2:])
        key = (height, width, rows["encoder_hidden_states"].shape[1], x_t.device, x_t.dtype)
        if self._ids is None or self._ids[0] != key:
            image = self.pipe._prepare_latent_image_ids(len(x_t), height, width, x_t.device, x_t.dtype)
            self._ids = key, image, torch.zeros(key[2], 3, device=x_t.device, dtype=x_t.dtype)
        return {"img_ids": self._ids[1], "txt_ids": self._ids[2]}


class Flux(Placed):
    """``FluxPipeline``: FLUX.1 dev and schnell (Black Forest Labs, 2024).

    Where guidance is an input of the network, it is 1 in :meth:`predict`, and as asked for in sampling. Where it is
    not, sampling takes the empty prompt for classifier-free guidance.
    """

    readers = ("", "_2")

    @property
    def embeds_guidance(self) -> bool:
        """As the config says: FLUX.1 dev does."""
        return bool(self.model.config.guidance_embeds)

    @property
    def distilled(self) -> str | None:
        """Also FLUX.1 schnell, under any name."""
        config, schedule = self.model.config, self.scheduler.config
        shifted = schedule.get("use_dynamic_shifting") or schedule.get("shift", 1.0) != 1
        if config.num_layers >= 19 and not config.get("guidance_embeds") and not shifted:
            return "no guidance_embeds and a schedule without shift, as FLUX.1 schnell"
        return super().distilled

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self.text_length)
        return {"encoder_hidden_states": embeds.to(self.dtype), "pooled_projections": pooled.to(self.dtype)}

    def _beside(self, x_t: Tensor, rows: Mapping[str, Any]) -> dict[str, Any]:
        beside = super()._beside(x_t, rows)
        if self.embeds_guidance:
            beside["guidance"] = torch.ones(len(x_t), device=x_t.device)
        return beside

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also ``pooled_prompt_embeds``."""
        pooled = {"pooled_prompt_embeds": rows["pooled_projections"]}
        return super().pipeline_arguments(rows, guidance, each_step) | pooled

    def _guided(self, guidance: float, rows: int) -> dict[str, Any]:
        if self.embeds_guidance:
            return {"guidance_scale": guidance}
        return {} if guidance == 1 else {"true_cfg_scale": guidance, "negative_prompt": [""] * rows}


class Chroma(Placed):
    """``ChromaPipeline``: Chroma1 (Lodestone Rock, 2025), FLUX.1 schnell made whole again, with T5 alone."""

    def _embedded(self, prompts: list[str]) -> dict[str, Tensor]:
        embeds, _, mask, *_ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.device
        )
        return {"encoder_hidden_states": embeds.to(self.dtype), "attention_mask": mask}

    def _beside(self, x_t: Tensor, rows: Mapping[str, Any]) -> dict[str, Any]:
        tokens = x_t[0, 0].numel() // self.patch**2
        mask = self.pipe._prepare_attention_mask(len(x_t), tokens, x_t.dtype, rows["attention_mask"])
        return super()._beside(x_t, rows) | {"attention_mask": mask}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also the mask of the prompts."""
        mask = {"prompt_attention_mask": rows["attention_mask"]}
        return super().pipeline_arguments(rows, guidance, each_step) | mask
