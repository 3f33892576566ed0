"""A model of random weights and the arguments of its forward: for what depends on neither, such as seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from bigain.backbones.arguments import ARGUMENTS, Given
from bigain.backbones.bound import Sized, at_sizes
from bigain.backbones.counting import count
from bigain.backbones.families import layout
from bigain.operators.random import seeded_generator
from bigain.zoo.published import Configuration

MIDWAY = 500.0  # of a thousand, the timestep


@dataclass(frozen=True)
class Untrained:
    """A model in evaluation mode.

    Args:
        model: on its device, in its dtype.
        given: the arguments of a forward by name; noise, except for timesteps, positions and masks.
        sized: the size in pixels, and what a forward of one sample costs.
    """

    model: nn.Module
    given: Given
    sized: Sized

    def forward(self, model: nn.Module | None = None) -> Any:
        """A forward without gradients, of this model or another of its class."""
        with torch.no_grad():
            return (self.model if model is None else model)(**self.given)


def resized(configuration: Configuration, size: tuple[int, int], text: int | None = None) -> Configuration:
    """The configuration for a width and height in pixels, where its class takes samples of one size only.

    ValueError where that size is not square, as such a class takes squares.
    """
    if count(configuration.kind, configuration.config, text).grid is None:
        return configuration
    width, height = size
    if width != height:
        raise ValueError(f"size must be square for a {configuration.kind}, not {width}x{height}")
    pixels = configuration.pixels or ARGUMENTS[configuration.kind].pixels
    config = {**configuration.config, "sample_size": width // pixels}
    return replace(configuration, config=config, sizes=((width, height, 1),))


def untrained(
    configuration: Configuration,
    size: tuple[int, int] | None = None,
    *,
    frames: int | None = None,
    text: int | None = None,
    batch_size: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Untrained:
    """A model of a configuration with random weights, the same on every call, and a forward of ``batch_size`` samples.

    Args:
        size: width and height in pixels; what the model is made for if None.
        frames: of a video; as many as usual if None.
        text: tokens of text; as many as its pipeline gives if None.

    ValueError where the class is not supported, or the size does not fit it.
    """
    configuration = configuration if size is None else resized(configuration, size, text)
    sized = at_sizes(configuration, [] if size is None else [size], frames=frames, text=text)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: Any = getattr(diffusers, configuration.kind).from_config(dict(configuration.config))
    model = model.eval().requires_grad_(False).to(device, dtype)
    empty = ARGUMENTS[configuration.kind].of(model.config, sized.bounds.grid, sized.bounds.text)
    fill = _Filled(batch_size, dtype, torch.device(device), seeded_generator("untrained"))
    given = {name: fill.argument(value) for name, value in empty.items()}
    family = layout(model).family
    name = "t" if "t" in given else "timestep"
    # Families count t up to 1 or to 1000; labels of classes have none of either.
    unit = 1000.0 if family is not None and float(family.level(torch.tensor(0.5))) == MIDWAY else 1.0
    given[name] = torch.full_like(given[name], MIDWAY / unit, dtype=None if family is None else torch.float32)
    return Untrained(model, given, sized)


@dataclass(frozen=True)
class _Filled:
    """Arguments for several samples, with noise in them."""

    rows: int
    dtype: torch.dtype
    device: torch.device
    generator: torch.Generator

    def argument(self, value: Any) -> Any:
        """Of a forward: a list has an item for each sample."""
        if isinstance(value, list):
            return [self._noise(one) if isinstance(one, Tensor) else one for one in value] * self.rows
        if isinstance(value, dict):
            return {name: self.argument(one) for name, one in value.items()}
        if isinstance(value, tuple):
            return tuple(self._noise(one) for one in value)
        if not isinstance(value, Tensor):
            return value
        value = self._noise(value)
        return value.expand(self.rows, *value.shape[1:]).contiguous() if value.shape[0] == 1 else value

    def _noise(self, value: Tensor) -> Tensor:
        if value.is_floating_point():
            value = torch.randn(value.shape, generator=self.generator).to(self.dtype)
        return value.to(self.device)
