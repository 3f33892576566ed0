"""One interface over the model families, and the space that a model denoises in: pixels, or latents of a VAE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bigain.diffusion.process import Process, process_of

_RANGE_TOLERANCE = 1e-4  # of [-1, 1]: what rounding in a resize or a cast may add
_CHUNK = 8  # images per pass of the autoencoder, whose activations are far larger than the denoiser's


class Pixels:
    """The model denoises RGB pixels."""

    factor = 1
    """Pixels per sample along one side."""
    channels = 3

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1] to (B, C, H / factor, W / factor) float32 samples."""
        return images.float()

    def decode(self, x0: Tensor) -> Tensor:
        """(B, C, h, w) samples to (B, 3, h * factor, w * factor) float32 images, cut to [-1, 1]."""
        return x0.float().clamp(-1, 1)


class Latents:
    """The model denoises the latents of an ``AutoencoderKL``; a ValueError for another autoencoder.

    A latent is the posterior's mean, normalised as the autoencoder's config says: ``scaling_factor``,
    ``shift_factor`` (SD3, Flux) or ``latents_mean`` and ``latents_std`` (SDXL variants).
    """

    def __init__(self, vae: Any) -> None:
        name = type(getattr(vae, "_orig_mod", vae)).__name__  # torch.compile wraps the class
        if name != "AutoencoderKL":
            raise ValueError(f"the autoencoder must be an AutoencoderKL, not {name}")
        self.vae = vae.eval()
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.channels = int(vae.config.latent_channels)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """As :meth:`Pixels.encode`."""
        with self._float32_where_needed() as dtype:
            means = [self.vae.encode(chunk.to(dtype)).latent_dist.mean.float() for chunk in images.split(_CHUNK)]
        mean, scale = self._normalisation(means[0])
        return (torch.cat(means) - mean) * scale

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """As :meth:`Pixels.decode`."""
        mean, scale = self._normalisation(x0)
        with self._float32_where_needed() as dtype:
            chunks = (x0.float() / scale + mean).split(_CHUNK)
            images = [self.vae.decode(chunk.to(dtype), return_dict=False)[0].float() for chunk in chunks]
        return torch.cat(images).clamp(-1, 1)

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is subtracted from a posterior mean, and what multiplies the difference; (1, C, 1, 1) or scalars."""
        config = self.vae.config
        scale = torch.tensor(float(config.scaling_factor), device=like.device)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean = torch.tensor(config.latents_mean, device=like.device).view(1, -1, 1, 1)
            return mean, scale / torch.tensor(config.latents_std, device=like.device).view(1, -1, 1, 1)
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


@dataclass(frozen=True, eq=False)
class Conditions:
    """Encoded prompts or class labels, one row each, as keyword arguments of the model by name.

    An argument is a (rows, ...) tensor or a mapping of such tensors, of ``len(names)`` rows, and one more where
    ``null_index`` names it. Conditions with equal entries in ``read`` are the same to the model.
    """

    names: tuple[str | int, ...]  # the prompts or labels, at least one
    arguments: Mapping[str, Tensor | Mapping[str, Tensor]]
    null_index: int | None = None  # the row of the unconditional class, which is no condition itself
    read: tuple[Hashable, ...] | None = None  # what the model reads of each, such as a prompt's tokens; None: unknown
    groups: tuple[int, ...] | None = None  # the class of each: integers that name every class from 0 on; None: its own

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("conditions must hold at least one prompt or class label, not 0")
        rows = len(self.names) + (self.null_index is not None)
        for name, value in self.arguments.items():
            for part, tensor in value.items() if isinstance(value, Mapping) else [(name, value)]:
                if len(tensor) != rows:
                    raise ValueError(f"{part} must have {rows} rows, one per condition, not {len(tensor)}")

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, index: Tensor) -> dict[str, Any]:
        """The model's keyword arguments for a batch: row ``index[b]`` of every tensor, ``index`` a (B,) long tensor."""

        def select(value: Tensor | Mapping[str, Tensor]) -> Any:
            if isinstance(value, Mapping):
                return {part: select(tensor) for part, tensor in value.items()}
            return value.index_select(0, index.to(value.device))

        return {name: select(value) for name, value in self.arguments.items()}


class Denoiser(ABC):
    """A diffusion model with its scheduler and its image space.

    Opening one puts its networks in evaluation mode: in training mode they drop labels and activations at random.

    Args:
        pipe: the pipeline that holds the parts, read anew at each use, so what is swapped there takes effect; or None.
        model, scheduler: the network, and a diffusers scheduler, where there is no pipeline.
        space: pixels, or an autoencoder's latents.

    Raises:
        ValueError: for a scheduler whose process is not known, or a network that does not fit the space.
    """

    kind: ClassVar[str]
    """``"class"`` (conditions are labels) or ``"text"`` (conditions are prompts)."""
    model_name: ClassVar[str] = "transformer"
    """The network's name in a pipeline."""

    def __init__(self, *, space: Pixels | Latents, pipe: Any = None, model: Any = None, scheduler: Any = None) -> None:
        self.pipe = pipe
        self.space = space
        self._model = model
        self._scheduler = scheduler
        self.model.eval()
        _ = self.process  # an unsupported scheduler is refused here, not after the first batch
        channels = int(self.model.config.in_channels)
        if channels != space.channels:
            raise ValueError(
                f"{type(self.model).__name__} must take the {space.channels} channels of its image space, not "
                f"{channels}; models with more inputs than the noised image (inpainting, upscaling) are not supported"
            )

    @property
    def model(self) -> Any:
        """The U-Net or transformer: what ``bigain.apply`` gets."""
        return self._model if self.pipe is None else getattr(self.pipe, self.model_name)

    @property
    def any_condition(self) -> str | int:
        """A condition for counting FLOPs and taking times, which depend on none."""
        return 0 if self.kind == "class" else ""

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that results depend on: ``model``, then autoencoder and text encoders where there are any."""
        parts = [getattr(self.space, "vae", None)]
        if self.pipe is not None:
            parts += [part for name, part in sorted(self.pipe.components.items()) if name.startswith("text_encoder")]
        return tuple(dict.fromkeys([self.model, *(part for part in parts if isinstance(part, nn.Module))]))

    @property
    def scheduler(self) -> Any:
        """The model's own diffusers scheduler."""
        return self._scheduler if self.pipe is None else self.pipe.scheduler

    @property
    def process(self) -> Process:
        """Noising, target and timesteps, as the scheduler's config says."""
        return process_of(self.scheduler)

    @property
    def device(self) -> torch.device:
        """Where forwards run; with offloading, not where the weights lie."""
        return self.model.device if self.pipe is None else self.pipe._execution_device

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return self.model.dtype

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of what is denoised."""
        size = self.model.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(self.model.config.in_channels), int(height), int(width)

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels; a ValueError where the model's own size is not square."""
        _, height, width = self.sample_shape
        if height != width:
            raise ValueError(f"the model's sample_size must be square, not {height}x{width}")
        return height * self.space.factor

    def encode(self, images: Tensor) -> Tensor:
        """Clean samples x0 of images, (B, C, h, w) float32 on the model's device, in the scaling of the model.

        Images are (B, 3, H, W) floats in [-1, 1], H = W = ``image_size``, on any device; a ValueError for others, for
        none, and for values that are not finite.
        """
        _check_images(images, self.image_size)
        return self.space.encode(images.to(self.device))

    def decode(self, x0: Tensor) -> Tensor:
        """(B, C, h, w) clean samples to (B, 3, H, W) float32 images in [-1, 1]."""
        return self.space.decode(x0)

    @abstractmethod
    def conditions(self, conditions: Sequence[str] | Sequence[int]) -> Conditions:
        """Encodes prompts or labels once, without a negative prompt; see :class:`Conditions`."""

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor, conditions: Conditions, index: Tensor) -> Tensor:
        """What the network predicts, without guidance: (B, C, h, w) float32, without a learned variance.

        ``x_t`` (B, C, h, w) are noised samples at timesteps ``t`` (B,); ``index`` (B,), long, is the condition of each
        among ``conditions``, as :meth:`conditions` encoded them.
        """
        # no_grad rather than inference_mode: tensors made in inference mode may not be used by a later backward,
        # and a compiled model specialises on which of the two modes it meets.
        x_t = x_t.to(self.device, self.dtype)
        output = self.model(x_t, timestep=t.to(self.device), **conditions.rows(index), return_dict=False)[0]
        return output[:, : x_t.shape[1]].float()


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Says which batch size to try where a forward of ``batch_size`` rows takes more memory than the device has."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        rest = f"try {batch_size // 2}" if batch_size > 1 else "try a smaller dtype, or another device"
        raise torch.OutOfMemoryError(
            f"batch_size must fit into the device's memory, which {batch_size} does not; {rest}"
        ) from error


def _check_images(images: Tensor, size: int) -> None:
    if images.ndim != 4 or images.shape[1:] != (3, size, size) or len(images) == 0:
        raise ValueError(f"images must have shape (B, 3, {size}, {size}) with B > 0, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [-1, 1], not {images.dtype}")
    bad = ~images.isfinite().flatten(1).all(1)
    if bad.any():
        raise ValueError(f"images must be finite, which image {int(bad.nonzero()[0])} of the batch is not")
    low, high = images.min().item(), images.max().item()
    if low < -1 - _RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(f"images must lie in [-1, 1], not from {low:g} to {high:g}")
