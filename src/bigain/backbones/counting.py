"""What a forward of a model costs at any size: FLOPs of each layer, from its config alone.

Rows of a linear layer, positions of a convolution, queries and keys of an attention: each grows with the image along a
straight line. Two forwards on the meta device, which have shapes and neither weights nor content, give all the lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import diffusers
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bigain.backbones.arguments import ARGUMENTS
from bigain.backbones.families import SUPPORTED, layout
from bigain.operators.grid import Grid

_GRIDS = Grid(8, 8), Grid(16, 16)  # squares, as a DiT asks; whole when halved three times; Z-Image pads neither


@dataclass(frozen=True)
class Line:
    """What grows with the image: ``fixed`` beside it, and ``slope`` for each of its tokens."""

    fixed: float
    slope: float

    @classmethod
    def through(cls, small: float, large: float) -> Line:
        """Of the values on the two grids that are counted."""
        few, many = (grid.tokens for grid in _GRIDS)
        slope = (large - small) / (many - few)
        return cls(small - slope * few, slope)

    def at(self, tokens: float) -> float:
        """Its value for that many tokens of image."""
        return self.fixed + self.slope * tokens


@dataclass(frozen=True)
class Product:
    """FLOPs of a linear layer or a convolution, by its name in the model."""

    name: str
    flops: Line


@dataclass(frozen=True)
class Attention:
    """Queries and keys of a call of an attention; width: channels of all heads together, the mean of key and value."""

    name: str
    queries: Line
    keys: Line
    width: float

    def flops(self, queries: float, keys: float) -> float:
        """Of the scores and of the values that they weigh."""
        return 4 * queries * keys * self.width


@dataclass(frozen=True)
class Count:
    """All matrix products and convolutions of a forward of one sample.

    Args:
        products: its linear layers and convolutions.
        attentions: its calls of an attention, in order.
        sites: names of the attentions in which methods act.
        blocks: names of the blocks in which methods act.
        jointly: whether keys and values are reached in the attention, behind their projections.
        text: tokens of text that it was counted with.
        kind: name of the model's class.
        config: of the model, with all defaults.
        grid: the one that it takes, where it takes samples of one size only.
    """

    products: tuple[Product, ...]
    attentions: tuple[Attention, ...]
    sites: frozenset[str]
    blocks: frozenset[str]
    jointly: bool
    text: int
    kind: str
    config: Any
    grid: Grid | None

    def flops(self, tokens: float) -> float:
        """Of a forward with that many tokens of image, on the finest grid where there are several."""
        linear = sum(product.flops.at(tokens) for product in self.products)
        return linear + sum(one.flops(one.queries.at(tokens), one.keys.at(tokens)) for one in self.attentions)

    def attention(self, tokens: float) -> float:
        """FLOPs of the attentions in which methods act, without their projections."""
        return sum(
            one.flops(one.queries.at(tokens), one.keys.at(tokens)) for one in self.attentions if one.name in self.sites
        )

    def projects(self, name: str) -> bool:
        """Whether a layer makes the keys or the values of an attention in which methods act, and nothing else."""
        site, _, part = name.rpartition(".")
        return site in self.sites and part in ("to_k", "to_v")

    @property
    def projects_apart(self) -> bool:
        """Whether pooling in the attention leaves such projections of every token, so that there is more to win."""
        return self.jointly and any(self.projects(product.name) for product in self.products)

    def in_block(self, name: str) -> bool:
        """Whether a layer or an attention is in a block in which methods act."""
        return any(name.startswith(f"{block}.") for block in self.blocks)


def count(kind: str, config: Mapping[str, Any], text: int | None = None) -> Count:
    """Counts a forward of a class of diffusers with that config; what was counted once is remembered.

    Args:
        kind: name of a supported class, such as "FluxTransformer2DModel".
        config: as in its config.json.
        text: tokens of text; the family's own if None.

    Raises:
        ValueError: the class is not supported, or the config is not one of it.
    """
    if kind not in {model.__name__ for model in SUPPORTED}:
        names = ", ".join(model.__name__ for model in SUPPORTED)
        raise ValueError(f"the class must be one of {names}, not {kind}")
    text = ARGUMENTS[kind].text if text is None else text
    return _counted(kind, json.dumps(dict(config), sort_keys=True, default=str), text)


@lru_cache(maxsize=64)
def _counted(kind: str, config: str, text: int) -> Count:
    # In a thread of its own, as a FLOP counter, autocast or a default device of the caller hold for the caller's.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_count, kind, config, text).result()


def _count(kind: str, config: str, text: int) -> Count:
    try:
        with torch.device("meta"), torch.no_grad():
            model: Any = getattr(diffusers, kind).from_config(json.loads(config)).eval()
            where = layout(model)
            small, large = (_forward(model, ARGUMENTS[kind].of(model.config, grid, text), text) for grid in _GRIDS)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"config must be that of a {kind}, of which a forward can be counted: {error}") from error
    return Count(
        tuple(
            Product(name, Line.through(one, other))
            for (name, one), (_, other) in zip(small.products, large.products, strict=True)
        ),
        tuple(
            Attention(name, Line.through(queries, more_queries), Line.through(keys, more_keys), width)
            for (name, queries, keys, width), (_, more_queries, more_keys, _) in zip(
                small.attentions, large.attentions, strict=True
            )
        ),
        frozenset(site.name for site in where.sites) or frozenset(f"{layer.name}.attn1" for layer in where.layers),
        frozenset(layer.name for layer in where.layers),
        where.family is not None,
        text,
        kind,
        model.config,
        where.grid,
    )


class _Recorder(TorchFunctionMode):
    """Notes the products of a forward by the module in which they are, and leaves attention out."""

    def __init__(self, text: int) -> None:
        super().__init__()
        self.text = text
        self.inside: list[str] = []  # the modules in progress
        self.products: list[tuple[str, int]] = []
        self.attentions: list[tuple[str, int, int, float]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        if func is Tensor.tolist:  # Lumina 2 asks how long the captions are
            return [self.text]
        result = func(*args, **kwargs)
        if func is functional.linear:
            self.products.append((self.inside[-1], 2 * result.numel() * args[0].shape[-1]))
        elif func in (functional.conv1d, functional.conv2d, functional.conv3d):
            self.products.append((self.inside[-1], 2 * result.numel() * args[1][0].numel()))
        return result

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        width = query.shape[1] * (key.shape[3] + value.shape[3]) / 2
        self.attentions.append((self.inside[-1], query.shape[2], key.shape[2], width))
        return query.new_empty(*query.shape[:3], value.shape[3])


def _forward(model: nn.Module, given: dict[str, Any], text: int) -> _Recorder:
    recorder = _Recorder(text)

    def entered(name: str) -> Any:
        return lambda *_: recorder.inside.append(name)

    def left(*_: Any) -> None:
        recorder.inside.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(entered(name)), module.register_forward_hook(left)]
        processor: Any = getattr(module, "processor", None)
        if hasattr(processor, "_attention_backend"):  # whatever is set for other models of this process
            processor._attention_backend = AttentionBackendName.NATIVE
    with recorder:
        model(**given)
    for handle in handles:
        handle.remove()
    return recorder
