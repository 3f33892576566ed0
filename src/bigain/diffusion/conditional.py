"""The model families: DiT, conditioned on classes; Stable Diffusion 1, 2 and XL and PixArt, conditioned on prompts."""

from __future__ import annotations

import inspect
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bigain.diffusion.denoiser import Conditions, Denoiser
from bigain.diffusion.space import Latents, Pixels


class ClassConditional(Denoiser):
    """A ``DiTTransformer2DModel`` with a scheduler, from a ``DiTPipeline`` or as parts.

    Args:
        pipe: a ``DiTPipeline``; the other arguments are then left out.
        model, scheduler: a ``DiTTransformer2DModel`` and a diffusers scheduler.
        vae: an ``AutoencoderKL``; None for a model that denoises pixels.
        labels: the model's label, in [0, classes), by name of the class, where it is known.
    """

    kind = "class"

    def __init__(
        self,
        pipe: Any = None,
        *,
        model: Any = None,
        scheduler: Any = None,
        vae: Any = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        vae = vae if pipe is None else pipe.vae
        space = Pixels() if vae is None else Latents(vae)
        super().__init__(space=space, pipe=pipe, model=model, scheduler=scheduler)
        # Of a pipeline: the synonyms of its id2label, each on its own.
        self.labels: dict[str, int] = dict(labels or getattr(pipe, "labels", None) or {})
        for name, label in self.labels.items():
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < self.classes:
                raise ValueError(f"the label of {name!r} must be an integer in [0, {self.classes}), not {label!r}")

    @property
    def classes(self) -> int:
        """Number of class labels; the label after the last is the unconditional one."""
        return int(self.model.config.num_embeds_ada_norm)

    @property
    def names(self) -> tuple[str, ...]:
        """What each label is called: by the first name that it has, else by its number."""
        names: dict[int, str] = {}
        for name, label in self.labels.items():
            names.setdefault(label, name)
        return tuple(names.get(label, str(label)) for label in range(self.classes))

    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """Class labels, integers in [0, classes), and the unconditional one as another row at ``null_index``."""
        labels: list[int] = []
        for value in conditions:
            if isinstance(value, (str, bool)) or not hasattr(value, "__index__"):
                raise ValueError(f"conditions must be class labels, integers in [0, {self.classes}), not {value!r}")
            label = operator.index(value)
            if not 0 <= label < self.classes:
                raise ValueError(f"conditions must be class labels in [0, {self.classes}), not {label}")
            labels.append(label)
        table = torch.tensor([*labels, self.classes], dtype=torch.long, device=self.device)
        return Conditions(tuple(labels), {"class_labels": table}, null_index=len(labels))


_CHUNK = 32  # prompts per pass of the text encoder

EachStep = Callable[[int], None]


class TextConditional(Denoiser):
    """A pipeline whose conditions are prompts."""

    kind = "text"
    suffix: ClassVar[str] = ""
    """Of the text encoder's and the tokenizer's name in the pipeline."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(space=self._space(pipe), pipe=pipe)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()

    def _space(self, pipe: Any) -> Pixels | Latents:
        return Latents(pipe.vae)

    @torch.no_grad()
    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """Encodes prompts with the pipeline's own text encoder: no guidance, no negative prompt."""
        prompts: list[Any] = list(conditions)
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise ValueError(f"conditions must be prompts, not {prompt!r}")
        if not prompts:
            return Conditions((), {})
        encoder = f"text_encoder{self.suffix}"
        if getattr(self.pipe, encoder) is None:
            raise ValueError(f"the pipeline must have a {encoder} to encode prompts; or give ready-made Conditions")
        chunks = [self._encode(prompts[i : i + _CHUNK]) for i in range(0, len(prompts), _CHUNK)]
        arguments = {name: _joined([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return Conditions(tuple(prompts), arguments, read=self._tokens(prompts))

    def unload_encoders(self) -> None:
        """Takes the text encoders out of the pipeline, and so out of memory where nobody else holds them.

        For after the last prompt: `conditions` raises from then on, and so does a sampler whose guidance encodes the
        empty prompt. The :class:`Conditions` that were made before stay good.
        """
        for name, part in self.pipe.components.items():
            if name.startswith("text_encoder") and part is not None:
                setattr(self.pipe, name, None)

    def _tokens(self, prompts: list[str], length: int | None = None) -> tuple[tuple[Any, ...], ...]:
        """What the text encoder sees of each prompt, cut to its length."""
        tokenizer = getattr(self.pipe, f"tokenizer{self.suffix}")
        read = tokenizer(prompts, truncation=True, max_length=length or tokenizer.model_max_length)
        return tuple(map(tuple, read.input_ids))

    @abstractmethod
    def _encode(self, prompts: list[str]) -> dict[str, Any]:
        """The model's keyword arguments for ``prompts``, one row each."""

    def latents_of(self, noise: Tensor) -> Tensor:
        """Noise (B, C, ...) as the pipeline takes it for its ``latents``."""
        return noise.to(self.dtype)

    def samples_of(self, latents: Tensor) -> Tensor:
        """The latents that the pipeline gives as samples (B, C, ...)."""
        return latents

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Keyword arguments for a call of the pipeline that stand for the prompts and their guidance.

        ``rows`` are the images' conditions, of :meth:`Conditions.rows`; ``each_step`` is called after each step with
        the number of steps done.
        """
        return {
            "prompt_embeds": rows["encoder_hidden_states"],
            "guidance_scale": guidance,
            "callback_on_step_end": callback_of(each_step),
        }


def callback_of(each_step: EachStep) -> Callable[..., dict[str, Any]]:
    """``each_step`` as the pipelines call it at the end of a step."""

    def callback(_pipe: Any, step: int, _t: Any, _tensors: Any) -> dict[str, Any]:
        each_step(step + 1)
        return {}

    return callback


class StableDiffusion(TextConditional):
    """``StableDiffusionPipeline``: Stable Diffusion 1.x and 2.x (Rombach et al., CVPR 2022)."""

    model_name = "unet"

    def _encode(self, prompts: list[str]) -> dict[str, Any]:
        embeds, _ = self.pipe.encode_prompt(prompts, self.device, 1, False)
        return {"encoder_hidden_states": embeds.to(self.dtype)}


class StableDiffusionXL(TextConditional):
    """``StableDiffusionXLPipeline`` (Podell et al., 2023), conditioned on its full size without a crop."""

    model_name = "unet"
    suffix = "_2"  # SDXL runs without its first text encoder, not without its second

    def _encode(self, prompts: list[str]) -> dict[str, Any]:
        embeds, _, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, do_classifier_free_guidance=False)
        size = self.image_size
        time_ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=self.dtype, device=self.device)
        added = {"text_embeds": pooled.to(self.dtype), "time_ids": time_ids.repeat(len(prompts), 1)}
        return {"encoder_hidden_states": embeds.to(self.dtype), "added_cond_kwargs": added}

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """Also ``pooled_prompt_embeds``; the pipeline makes its size conditions."""
        pooled = rows["added_cond_kwargs"]["text_embeds"]
        return super().pipeline_arguments(rows, guidance, each_step) | {"pooled_prompt_embeds": pooled}


class PixArt(TextConditional):
    """``PixArtAlphaPipeline`` and ``PixArtSigmaPipeline`` (Chen et al., 2023 and 2024)."""

    def _tokens(self, prompts: list[str], length: int | None = None) -> tuple[tuple[Any, ...], ...]:
        length = length or inspect.signature(self.pipe.encode_prompt).parameters["max_sequence_length"].default
        return super()._tokens(self.pipe._text_preprocessing(list(prompts)), length)

    def _encode(self, prompts: list[str]) -> dict[str, Any]:
        embeds, mask, _, _ = self.pipe.encode_prompt(prompts, do_classifier_free_guidance=False, device=self.device)
        arguments = {"encoder_hidden_states": embeds.to(self.dtype), "encoder_attention_mask": mask}
        if self.model.use_additional_conditions:
            size = torch.full((len(prompts), 2), float(self.image_size), dtype=self.dtype, device=self.device)
            arguments["added_cond_kwargs"] = {"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])}
        return arguments

    def pipeline_arguments(self, rows: Mapping[str, Any], guidance: float, each_step: EachStep) -> dict[str, Any]:
        """With the prompts' mask; at the model's own size, so without resolution bins."""
        return {
            "guidance_scale": guidance,
            "prompt_embeds": rows["encoder_hidden_states"],
            "prompt_attention_mask": rows["encoder_attention_mask"],
            "callback": lambda step, _t, _latents: each_step(step + 1),
            "clean_caption": False,
            "use_resolution_binning": False,
        }


def _joined(parts: list[Any]) -> Any:
    """Chunks of one argument as one tensor, or as one mapping of tensors; with zeros up to the longest text."""
    if not isinstance(parts[0], Tensor):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(parts)
    rows, longest = sum(len(part) for part in parts), max(part.shape[1] for part in parts)
    result = parts[0].new_zeros(rows, longest, *parts[0].shape[2:])
    first = 0
    for part in parts:
        result[first : first + len(part), : part.shape[1]] = part
        first += len(part)
    return result
