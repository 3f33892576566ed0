"""One interface over the model families."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bigain.diffusion.process import Convention, Process, process_of
from bigain.diffusion.schedule import SPACINGS, scheduled, shift_of
from bigain.diffusion.space import Latents, Pixels
from bigain.images import as_batch
from bigain.videos import as_video_batch

_DISTILLED = re.compile(r"schnell|turbo|lightning|lcm|hyper-?sd|distill?ed|klein(?!.*base)", re.IGNORECASE)
_RANGE_TOLERANCE = 1e-4  # of [-1, 1]: what rounding in a resize or a cast may add


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

    def rows(self, index: Tensor, device: torch.device | None = None) -> dict[str, Any]:
        """The model's keyword arguments for a batch: row ``index[b]`` of every tensor, ``index`` a (B,) long tensor.

        On ``device``, or where the tensors are kept.
        """

        def select(value: Tensor | Mapping[str, Tensor]) -> Any:
            if isinstance(value, Mapping):
                return {part: select(tensor) for part, tensor in value.items()}
            return value.index_select(0, index.to(value.device)).to(device)

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
    convention: ClassVar[Convention] = Convention()
    """How the network is told its timestep, and which way its output points."""
    packing: ClassVar[int] = 1
    """Samples along one side that are one token of the network's input."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """Which of image_size and frames are chosen when a model is opened; the others its config says."""

    def __init__(self, *, space: Pixels | Latents, pipe: Any = None, model: Any = None, scheduler: Any = None) -> None:
        self.pipe = pipe
        self.space = space
        self._model = model
        self._scheduler = scheduler
        self.model.eval()
        _ = self.process  # an unsupported scheduler is refused here, not after the first batch
        channels, expected = int(self.model.config.in_channels), space.channels * self.packing**2
        if channels != expected:
            raise ValueError(
                f"{type(self.model).__name__} must take the {expected} channels of its image space, not "
                f"{channels}; models with more inputs than the noised image (inpainting, upscaling) are not supported"
            )

    @property
    def model(self) -> Any:
        """The U-Net or transformer: what ``bigain.apply`` gets."""
        return self._model if self.pipe is None else getattr(self.pipe, self.model_name)

    @property
    def models(self) -> tuple[Any, ...]:
        """All networks that denoise, each at its timesteps: what ``bigain.apply`` compresses."""
        return (self.model,)

    @property
    def usual_guidance(self) -> float:
        """Guidance at which the papers generate."""
        return 4.0 if self.kind == "class" else 7.5

    @property
    def embeds_guidance(self) -> bool:
        """Whether guidance is an input of the network, so that it takes one forward and not two."""
        return False

    @property
    def distilled(self) -> str | None:
        """What says that the model was distilled to few steps, so that its errors mean little; None if nothing."""
        if self.pipe is None:
            return None
        names = [self.pipe.config.get("_name_or_path"), self.model.config.get("_name_or_path")]
        parts = ["/".join(Path(name).parts[-2:]) for name in names if name]
        return next((f"its name, {part}" for part in parts if _DISTILLED.search(part)), None)

    @property
    def any_condition(self) -> str | int:
        """A condition for counting FLOPs and taking times, which depend on none."""
        return 0 if self.kind == "class" else ""

    def unload_encoders(self) -> None:  # noqa: B027 - most have none
        """Takes text encoders out of memory, where there are any; see :meth:`TextConditional.unload_encoders`."""

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that results depend on: ``model``, then autoencoder and text encoders where there are any."""
        parts = [getattr(self.space, "vae", None)]
        if self.pipe is not None:
            parts += [part for name, part in sorted(self.pipe.components.items()) if name.startswith("text_encoder")]
        return tuple(dict.fromkeys([*self.models, *(part for part in parts if isinstance(part, nn.Module))]))

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
    def frames(self) -> int | None:
        """Frames of a video; None for a model of images."""
        return None

    def prepare(self, images: Any) -> Tensor:
        """Images, or videos for a model of these, as :meth:`encode` takes them; a tensor comes back as it is.

        Raises as :func:`bigain.images.as_batch` and :func:`bigain.videos.as_video_batch`.
        """
        if self.frames is None or not self.is_video:
            return as_batch(images, self.image_size)
        return as_video_batch(images, self.image_size, self.frames)

    @property
    def is_video(self) -> bool:
        """Whether what it denoises has several frames."""
        return (self.frames or 1) > 1

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, h, w) of what is denoised, of videos (C, t, h, w)."""
        size = self.model.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(self.model.config.in_channels), int(height), int(width)

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels; a ValueError where the model's own size is not square."""
        height, width = self.sample_shape[-2:]
        if height != width:
            raise ValueError(f"the model's sample_size must be square, not {height}x{width}")
        return height * self.space.factor

    @property
    def patch(self) -> int:
        """Samples along one side that are one token."""
        return self.packing if self.packing > 1 else int(self.model.config.get("patch_size") or 1)

    @property
    def tokens(self) -> int:
        """Tokens of a sample, which some schedules follow."""
        return math.prod(self.sample_shape[1:]) // self.patch**2

    def shift(self, steps: int) -> float:
        """How far a schedule of so many steps is shifted where it follows the tokens, in the scheduler's measure."""
        return shift_of(self.scheduler.config, self.tokens)

    def timesteps(self, count: int, spacing: str = "uniform") -> Tensor:
        """Timesteps to classify at, (count,) long, ascending.

        ``spacing`` is "uniform", as :meth:`Process.timesteps`, or for flow matching "scheduler", as
        :func:`bigain.diffusion.schedule.scheduled`. A ValueError for another, or one that the model does not have.
        """
        if spacing == "uniform":
            return self.process.timesteps(count)
        if spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, not {spacing!r}")
        if self.process.prediction != "flow":
            raise ValueError(f"spacing must be uniform for a model not trained by flow matching, not {spacing!r}")
        return scheduled(self.scheduler, count, self.shift(self.process.steps))

    def alike(self, t: Tensor) -> list[Tensor]:
        """The rows of a batch at timesteps (B,) that one network denoises: long tensors that cover 0 to B - 1."""
        return [torch.arange(len(t))]

    def encode(self, images: Tensor) -> Tensor:
        """Clean samples x0 of images, (B, C, h, w) float32 on the model's device, in the scaling of the model.

        Images are (B, 3, H, W) floats in [-1, 1], H = W = ``image_size``, on any device; a ValueError for others, for
        none, and for values that are not finite.
        """
        check_images(images, (3, self.image_size, self.image_size))
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
        told = self.convention.told(t.to(self.device), self.process.steps)
        output = self._forward(x_t, told, conditions.rows(index, self.device))
        return self.convention.pointed(output[:, : x_t.shape[1]].float())

    def _forward(self, x_t: Tensor, t: Tensor, rows: dict[str, Any]) -> Tensor:
        """What the network gives for x_t (B, C, ...) at its own timesteps (B,), in the shape of x_t."""
        output: Tensor = self.model(x_t, timestep=t, **rows, return_dict=False)[0]
        return output


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


def check_images(images: Tensor, shape: tuple[int, ...]) -> None:
    """Raises a ValueError unless images, or videos, are finite floats in [-1, 1] of a shape, at least one."""
    if images.shape[1:] != shape or len(images) == 0:
        asked = ", ".join(map(str, shape))
        raise ValueError(f"images must have shape (B, {asked}) with B > 0, not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [-1, 1], not {images.dtype}")
    bad = ~images.isfinite().flatten(1).all(1)
    if bad.any():
        raise ValueError(f"images must be finite, which image {int(bad.nonzero()[0])} of the batch is not")
    low, high = images.min().item(), images.max().item()
    if low < -1 - _RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(f"images must lie in [-1, 1], not from {low:g} to {high:g}")
