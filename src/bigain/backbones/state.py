"""The state of a forward: made when the root's forward begins, passed by reference, gone when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from bigain.methods import Compression, Context, Method, TokenMerging
from bigain.operators.assignment import Assignment
from bigain.operators.grid import Grid

AnyMethod = TypeVar("AnyMethod", bound=Method)


@dataclass(frozen=True)
class Plan:
    """What is applied: in each layer at most one merging and one downsampling method."""

    methods: Compression

    def includes(self, level: int, layer: int) -> bool:
        """Whether any method names the layer."""
        return any(method.includes(level, layer) for method in self.methods)

    def acting(self, kind: type[AnyMethod], level: int, layer: int) -> AnyMethod | None:
        """What acts in a layer of the kind, `TokenMerging` or `TokenDownsampling`."""
        acting = (method for method in self.methods if not method.is_identity and method.includes(level, layer))
        return next((method for method in acting if isinstance(method, kind)), None)

    def number(self, method: Method | None) -> int | None:
        """Place of a method among all."""
        return None if method is None else self.methods.index(method)

    @property
    def required(self) -> tuple[int, ...]:
        """Numbers of the methods that take tokens away in every forward, or something is wrong."""
        return tuple(
            number
            for number, method in enumerate(self.methods)
            if not method.is_identity and not (isinstance(method, TokenMerging) and method.is_scheduled)
        )


@dataclass
class Forward:
    """What is known within one forward."""

    timestep: Tensor | None  # (B,)
    image_keys: Tensor | None  # (B,)
    draw_keys: Tensor | None  # (B,)
    grid: Grid | None = None
    entered: dict[int, Tensor] = field(default_factory=dict)  # by level the input of its first block, where asked for
    block_input: Tensor | None = None
    features: Tensor | None = None  # tokens that the current block's assignment is made from
    assignment: Assignment | None = None  # of the current block
    cached: dict[tuple[int, int] | None, Assignment] = field(default_factory=dict)  # by level and method
    reached: set[int] = field(default_factory=set)  # numbers of the methods for which a module was in the forward
    compressed: set[int] = field(default_factory=set)  # of those that took tokens away


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method met in one layer of one forward.

    Args:
        name: of the transformer block.
        method: that acts there.
        tokens: (B, N, C), the block's input, or that of its attention where ``method`` pools or matches that.
        features: (B, N, C') that the assignment was made from, ``tokens`` or those that entered the level; None where
            keys and values are pooled.
        context: as the method got it; ``context.layer`` is the number of the block.
        assignment: of the tokens; None where keys and values are pooled instead.
        decided: whether the assignment was made in this layer; False where a cached one was used again.
    """

    name: str
    method: Method
    tokens: Tensor
    features: Tensor | None
    context: Context
    assignment: Assignment | None
    decided: bool = True


@dataclass
class Session:
    """What the hooks of a model share; ``observer`` is called with each layer in which a method acts, in order."""

    plan: Plan
    forward: Forward | None = None
    image_keys: Tensor | None = None
    draw_keys: Tensor | None = None
    observer: Callable[[Seen], object] | None = None

    def current(self) -> Forward:
        """The forward in progress."""
        if self.forward is None:
            raise RuntimeError(
                "a block of a compressed model was called outside of the model's own forward (gradient checkpointing "
                "does that in the backward pass: call disable_gradient_checkpointing())"
            )
        return self.forward

    def context(self, layer: int) -> Context:
        """What the methods may know in block ``layer``."""
        forward = self.current()
        if forward.grid is None:
            raise RuntimeError("a block of a compressed model ran before the token grid was seen")
        return Context(forward.grid, layer, forward.timestep, forward.image_keys, forward.draw_keys)
