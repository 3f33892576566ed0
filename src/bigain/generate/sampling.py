"""Sampling with a seed per image: any batch size gives the same images, to rounding."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from bigain.backbones import row_keys
from bigain.diffusion import Conditions, Denoiser, image_key, seeded_generator

Image = npt.NDArray[np.uint8]

SAMPLERS: dict[str, str] = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}
"""Samplers by name, and their class in diffusers: what the paper uses for DiT and for Stable Diffusion."""
USUAL_GUIDANCE: dict[str, float] = {"class": 4.0, "text": 7.5}
"""Guidance at which the papers generate, by what the model's conditions are: DiT, Stable Diffusion."""


@dataclass(frozen=True)
class _Batch:
    """Images that are sampled together."""

    index: Tensor  # (B,) long, conditions
    noise: Tensor  # (B, C, h, w) float32
    generators: list[torch.Generator]  # for samplers that add noise at each step
    keys: Tensor  # (B,) long


def sample(
    denoiser: Denoiser,
    conditions: Conditions,
    index: Sequence[int],
    image_ids: Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    sampler: str | None = None,
    progress: bool = False,
) -> Iterator[Image]:
    """Draws one image per entry of ``index``.

    An image's noise depends on ``(seed, image id)`` alone, also the noise that ancestral samplers add at each step.
    The model's own scheduler is copied, never changed.

    Args:
        denoiser: an open model.
        conditions: as it encoded them.
        index: each image's condition, in [0, len(conditions)).
        image_ids: each image's number, all different.
        steps: of the sampler.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); 1 is none.
        seed: of the run.
        batch_size: images per batch; a forward with guidance has twice as many rows.
        sampler: one of ``SAMPLERS``; None for the model's own.
        progress: whether to show a bar that counts sampling steps.

    Yields:
        (H, W, 3) uint8 arrays in the order of ``index``, as soon as their batch is done.

    Raises:
        ValueError: at the call, for lengths that differ, ids that are doubled, conditions out of range, fewer than one
            step or image per batch, a guidance below 1, an unknown sampler, or guidance where there is no null class.
        FloatingPointError: where a sample is not finite.
    """
    index, image_ids = [int(i) for i in index], [int(i) for i in image_ids]
    if len(index) != len(image_ids):
        raise ValueError(f"index has {len(index)} entries and image_ids {len(image_ids)}; there must be equally many")
    if len(set(image_ids)) < len(image_ids):
        raise ValueError("image_ids must differ, or images would have the same noise")
    wrong = [i for i in index if not 0 <= i < len(conditions)]
    if wrong:
        raise ValueError(f"condition {wrong[0]} is out of range; it must be in [0, {len(conditions)})")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if not (math.isfinite(guidance) and guidance >= 1):
        raise ValueError(f"guidance is {guidance}; it must be finite and at least 1, which is none")
    if denoiser.kind == "class" and guidance > 1 and conditions.null_index is None:
        raise ValueError(f"guidance is {guidance}, but the conditions have no null class; it must be 1")
    scheduler = _scheduler(denoiser, sampler)
    return _batches(denoiser, conditions, index, image_ids, scheduler, steps, guidance, seed, batch_size, progress)


def _scheduler(denoiser: Denoiser, sampler: str | None) -> Any:
    """A scheduler of our own, which may keep state."""
    if sampler is None:
        return copy.deepcopy(denoiser.scheduler)
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}; it must be one of {', '.join(SAMPLERS)}, or None (the model's own)")
    if denoiser.process.prediction == "flow":
        raise ValueError(f"sampler is {sampler!r}, but this model is trained by flow matching; it must be None")
    import diffusers

    return getattr(diffusers, SAMPLERS[sampler]).from_config(denoiser.scheduler.config)


def _batches(
    denoiser: Denoiser,
    conditions: Conditions,
    index: list[int],
    image_ids: list[int],
    scheduler: Any,
    steps: int,
    guidance: float,
    seed: int,
    batch_size: int,
    progress: bool,
) -> Iterator[Image]:
    draw = _sample_class if denoiser.kind == "class" else _sample_text
    starts = range(0, len(index), batch_size)
    with tqdm(total=len(starts) * steps, disable=not progress, desc="generate", unit="step") as bar:
        for first in starts:
            ids = image_ids[first : first + batch_size]
            generators = [seeded_generator("generate", seed, image_id) for image_id in ids]
            # The noise is drawn before any step's noise, from the same generator.
            noise = torch.stack([torch.randn(*denoiser.sample_shape, generator=g) for g in generators])
            keys = torch.tensor([image_key(str(image_id)) for image_id in ids], device=denoiser.device)
            batch = _Batch(torch.tensor(index[first : first + batch_size]), noise.to(denoiser.device), generators, keys)
            x0 = draw(denoiser, conditions, batch, scheduler, steps, guidance, bar)
            if not x0.isfinite().all():
                raise FloatingPointError(
                    f"a sample of images {ids} is not finite in {denoiser.dtype}; try another dtype"
                )
            pixels = ((denoiser.decode(x0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            yield from pixels.permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def _sample_class(
    denoiser: Denoiser, conditions: Conditions, batch: _Batch, scheduler: Any, steps: int, guidance: float, bar: Any
) -> Tensor:
    """The scheduler's loop for a class-conditional model; guidance stacks the conditional and the null rows."""
    scheduler.set_timesteps(steps, device=denoiser.device)
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": batch.generators} if "generator" in accepted else {}
    index, keys = batch.index, batch.keys
    if guidance > 1:
        index = torch.cat([index, torch.full_like(index, conditions.null_index or 0)])
    x = batch.noise * getattr(scheduler, "init_noise_sigma", 1.0)  # flow matching begins at unit noise
    done = 0
    for step, t in enumerate(scheduler.timesteps):
        x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x_in = torch.cat([x_in, x_in]) if guidance > 1 else x_in
        with row_keys(denoiser.model, image=keys, draw=torch.full_like(keys, step)):
            prediction = denoiser.predict(x_in, t.expand(len(x_in)), conditions, index)
        if guidance > 1:
            conditional, null = prediction.chunk(2)
            prediction = null + guidance * (conditional - null)
        x = scheduler.step(prediction, t, x, **options, return_dict=False)[0]
        done = _advance(bar, done, (step + 1) * steps // len(scheduler.timesteps))
    return x


@torch.no_grad()
def _sample_text(
    denoiser: Any, conditions: Conditions, batch: _Batch, scheduler: Any, steps: int, guidance: float, bar: Any
) -> Tensor:
    """The pipeline's own loop, up to the latents: it knows its guidance, negative prompt and size conditions."""
    pipe = denoiser.pipe
    keys = batch.keys
    done = 0
    with ExitStack() as keyed:

        def begin(step: int) -> None:
            nonlocal done
            keyed.pop_all().close()
            keyed.enter_context(row_keys(denoiser.model, image=keys, draw=torch.full_like(keys, step)))
            done = _advance(bar, done, min(step, steps))

        begin(0)
        arguments = denoiser.pipeline_arguments(conditions, batch.index, begin)
        before = pipe.scheduler, dict(getattr(pipe, "_progress_bar_config", {}))
        pipe.scheduler = scheduler
        pipe.set_progress_bar_config(**{**before[1], "disable": True})
        try:
            latents: Tensor = pipe(
                **arguments,
                latents=batch.noise.to(denoiser.dtype),
                generator=batch.generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="latent",
                return_dict=False,
            )[0]
        finally:
            pipe.scheduler = before[0]
            pipe.set_progress_bar_config(**before[1])
    return latents


def _advance(bar: Any, done: int, now: int) -> int:
    bar.update(now - done)
    return now
