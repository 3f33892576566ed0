"""Sampling with a seed per image: any batch size gives the same images, to rounding."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigain.backbones import row_keys
from bigain.diffusion import Conditions, Denoiser
from bigain.diffusion.denoiser import memory_advice
from bigain.diffusion.schedule import set_timesteps
from bigain.images import Pixels, to_uint8
from bigain.operators.random import image_key, seeded_generator
from bigain.progress import progress_bar

Watch = Callable[[int], object]
SAMPLERS: dict[str, str] = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}
"""Samplers by name, and their class in diffusers: what the paper uses for DiT and for Stable Diffusion."""


@dataclass(frozen=True)
class Sampling:
    """How images are sampled.

    Args:
        steps: of the sampler.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022), at least 1, which is none.
        sampler: one of ``SAMPLERS``; None for the model's own.
        seed: of all randomness: the images' noise, and the draws of the methods that are applied to the model.
        batch_size: images per batch; a forward with guidance has twice as many rows.
    """

    steps: int = 20
    guidance: float = 1.0
    sampler: str | None = None
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch_size", self.batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise ValueError(f"guidance must be finite and at least 1, which is none, not {self.guidance}")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise ValueError(
                f"sampler must be one of {', '.join(SAMPLERS)}, or None for the model's own, not {self.sampler!r}"
            )

    def scheduler(self, denoiser: Denoiser) -> Any:
        """A copy of the model's scheduler, or the named one with its settings, that is ready for these steps.

        A ValueError for a named sampler on a model that is trained by flow matching, or more steps than the model has
        timesteps: a run that ends in sampling can check its settings before it begins.
        """
        process = denoiser.process
        if self.sampler is None:
            scheduler = copy.deepcopy(denoiser.scheduler)
        elif process.prediction == "flow":
            raise ValueError(f"sampler must be None for a model trained by flow matching, not {self.sampler!r}")
        else:
            import diffusers

            scheduler = getattr(diffusers, SAMPLERS[self.sampler]).from_config(denoiser.scheduler.config)
        if process.prediction != "flow" and self.steps > process.steps:
            raise ValueError(f"steps must be at most the model's {process.steps} timesteps, not {self.steps}")
        set_timesteps(scheduler, self.steps, denoiser.shift(self.steps), denoiser.device)
        return scheduler


@dataclass(frozen=True)
class _Batch:
    """Images that are sampled together."""

    conditions: Conditions
    index: Tensor  # (B,) long, conditions
    noise: Tensor  # (B, C, h, w) float32
    generators: list[torch.Generator]  # for samplers that add noise at each step
    keys: Tensor  # (B,) long


def sample(
    denoiser: Denoiser,
    conditions: Conditions,
    index: Sequence[int],
    image_ids: Sequence[int],
    sampling: Sampling | None = None,
    *,
    progress: bool = False,
    watch: Watch | None = None,
) -> Iterator[Pixels]:
    """Draws one image per entry of ``index``: (H, W, 3) uint8, in that order, each as soon as its batch is done.

    A model of videos draws (T, H, W, 3).

    An image's noise depends on ``(seed, image id)`` alone, also the noise that ancestral samplers add at each step.
    The model's own scheduler is copied, never changed.

    Args:
        conditions: as ``denoiser`` encoded them.
        index: each image's condition, in [0, len(conditions)).
        image_ids: each image's number, all different.
        sampling: None for the defaults of :class:`Sampling`.
        progress: whether to show a bar that counts sampling steps.
        watch: is called before each batch with 0 and after each of its steps with the number of steps done; what it
            raises ends the sampling.

    Raises:
        ValueError: at the call, for lengths that differ, ids that are doubled, conditions out of range, guidance where
            there is no null class, and as :meth:`Sampling.scheduler`.
        FloatingPointError: where a sample is not finite.
        torch.OutOfMemoryError: with the batch size to try next.
    """
    sampling = Sampling() if sampling is None else sampling
    index, image_ids = [int(i) for i in index], [int(i) for i in image_ids]
    if len(index) != len(image_ids):
        raise ValueError(f"image_ids must be as many as index, {len(index)}, not {len(image_ids)}")
    if len(set(image_ids)) < len(image_ids):
        raise ValueError("image_ids must differ, or images would have the same noise")
    wrong = [i for i in index if not 0 <= i < len(conditions)]
    if wrong:
        raise ValueError(f"index must lie in [0, {len(conditions)}), not {wrong[0]}")
    if denoiser.kind == "class" and sampling.guidance > 1 and conditions.null_index is None:
        raise ValueError(f"guidance must be 1 for conditions that have no null class, not {sampling.guidance}")
    return _images(denoiser, conditions, index, image_ids, sampling, sampling.scheduler(denoiser), progress, watch)


def _images(
    denoiser: Denoiser,
    conditions: Conditions,
    index: list[int],
    image_ids: list[int],
    sampling: Sampling,
    scheduler: Any,
    progress: bool,
    watch: Watch | None,
) -> Iterator[Pixels]:
    draw = _sample_class if denoiser.kind == "class" else _sample_text
    batches = [slice(first, first + sampling.batch_size) for first in range(0, len(index), sampling.batch_size)]
    with progress_bar(len(batches) * sampling.steps, progress, desc="generate", unit="step") as bar:
        for part in batches:
            ids = image_ids[part]
            generators = [seeded_generator("generate", sampling.seed, image_id) for image_id in ids]
            # The noise is drawn before any step's noise, from the same generator.
            noise = torch.stack([torch.randn(*denoiser.sample_shape, generator=g) for g in generators])
            keys = torch.tensor([image_key(str(image_id), sampling.seed) for image_id in ids], device=denoiser.device)
            batch = _Batch(conditions, torch.tensor(index[part]), noise.to(denoiser.device), generators, keys)
            first = bar.n

            def seen(done: int, first: int = first) -> None:
                bar.update(first + min(done, sampling.steps) - bar.n)
                if watch is not None:
                    watch(min(done, sampling.steps))

            seen(0)
            with memory_advice(len(ids)):
                x0 = draw(denoiser, batch, scheduler, sampling, seen)
                if not x0.isfinite().all():
                    raise FloatingPointError(
                        f"the samples of images {ids} must be finite, which they are not in {denoiser.dtype}; "
                        "try bfloat16 or float32, and check the weights"
                    )
                pixels = to_uint8(denoiser.decode(x0))
            yield from pixels


@torch.no_grad()
def _sample_class(denoiser: Denoiser, batch: _Batch, scheduler: Any, sampling: Sampling, seen: Watch) -> Tensor:
    """The scheduler's loop for a class-conditional model; guidance stacks the conditional and the null rows."""
    steps, guidance, conditions = sampling.steps, sampling.guidance, batch.conditions
    set_timesteps(scheduler, steps, denoiser.shift(steps), denoiser.device)  # also forgets the batch before
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": batch.generators} if "generator" in accepted else {}
    index, keys = batch.index, batch.keys
    if guidance > 1:
        index = torch.cat([index, torch.full_like(index, conditions.null_index or 0)])
    x = batch.noise * getattr(scheduler, "init_noise_sigma", 1.0)  # flow matching begins at unit noise
    for step, t in enumerate(scheduler.timesteps):
        x_in = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x_in = torch.cat([x_in, x_in]) if guidance > 1 else x_in
        with row_keys(denoiser, image=keys, draw=torch.full_like(keys, step), timesteps=t.reshape(1)):
            prediction = denoiser.predict(x_in, t.expand(len(x_in)), conditions, index)
        if guidance > 1:
            conditional, null = prediction.chunk(2)
            prediction = null + guidance * (conditional - null)
        x = scheduler.step(prediction, t, x, **options, return_dict=False)[0]
        seen((step + 1) * steps // len(scheduler.timesteps))
    return x


@torch.no_grad()
def _sample_text(denoiser: Any, batch: _Batch, scheduler: Any, sampling: Sampling, seen: Watch) -> Tensor:
    """The pipeline's own loop, up to the latents: it knows its guidance, negative prompt and size conditions."""
    pipe, keys = denoiser.pipe, batch.keys
    with ExitStack() as keyed:

        def begin(step: int) -> None:
            keyed.pop_all().close()
            keyed.enter_context(row_keys(denoiser, image=keys, draw=torch.full_like(keys, step)))
            if step:
                seen(step)

        begin(0)
        rows = batch.conditions.rows(batch.index, denoiser.device)
        arguments = denoiser.pipeline_arguments(rows, sampling.guidance, begin)
        before = pipe.scheduler, dict(getattr(pipe, "_progress_bar_config", {}))
        pipe.scheduler = scheduler
        pipe.set_progress_bar_config(**{**before[1], "disable": True})
        try:
            latents: Tensor = pipe(
                **arguments,
                latents=denoiser.latents_of(batch.noise),
                generator=batch.generators,
                num_inference_steps=sampling.steps,
                output_type="latent",
                return_dict=False,
            )[0]
        finally:
            pipe.scheduler = before[0]
            pipe.set_progress_bar_config(**before[1])
    samples: Tensor = denoiser.samples_of(latents)
    return samples
