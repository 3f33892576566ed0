"""The state of a forward: made when the root's forward begins, passed by reference, gone when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from bigain.methods import Compression, Context, Method, TokenDownsampling, TokenMerging
from bigain.operators.assignment import Assignment
from bigain.operators.grid import Grid

AnyMethod = TypeVar("AnyMethod", bound=Method)


@dataclass(frozen=True)
class Alike:
    """Rows that show the same noised sample at the same timestep, in a batch of B.

    Args:
        first: (U,) int64, a row of each kind.
        kind: (B,) int64 in [0, U), of each row.
    """

    first: Tensor
    kind: Tensor


@dataclass
class Forward:
    """What is known within one forward."""

    timestep: Tensor | None  # (B,)
    image_keys: Tensor | None  # (B,)
    draw_keys: Tensor | None  # (B,)
    grid: Grid | None = None
    entered: dict[int, Tensor] = field(default_factory=dict)  # by level the input of its first block, where asked for
    context: Context = field(init=False)  # of the current block, as the next three
    block_input: Tensor = field(init=False)
    features: Tensor = field(init=False)  # tokens that its assignment is made from
    assignment: Assignment | None = None
    alike: Alike | None = None
    grids: tuple[Grid, ...] = ()  # of the image tokens of all attentions, in families that show them at the root
    assigned: dict[int, list[Any]] = field(default_factory=dict)  # by layer, how its spans merge around block or MLP
    whole_frames: int = 0  # at the front of the first of these, which condition a video and stay whole
    projected: dict[str, int] = field(default_factory=dict)  # how many projections of an attention had fewer tokens
    arrived: dict[str, bool] = field(default_factory=dict)  # attentions whose keys have come through
    cached: dict[tuple[int, int], Assignment] = field(default_factory=dict)  # by level and number of the method
    compressed: dict[int, bool] = field(default_factory=dict)  # whether a method that was reached took tokens away
    resting: tuple[bool, ...] = ()  # of each method whether it rests at this t; no numbers, which a graph may not fix

    def acting(self, numbered: Sequence[tuple[int, AnyMethod]]) -> tuple[AnyMethod | None, int]:
        """Of what may act in a layer, what does at this t, and its place among all methods."""
        for number, method in numbered:
            if not self.rests(number):
                return method, number
        return None, -1

    def rests(self, number: int) -> bool:
        """Whether a method does not act at this t."""
        return bool(self.resting) and self.resting[number]

    @property
    def image_tokens(self) -> int:
        """How many tokens its grids have together."""
        return sum(grid.tokens for grid in self.grids)

    def note(self, number: int, fewer: bool) -> None:
        """Notes that a method was reached, and whether it took tokens away."""
        self.compressed[number] = fewer or self.compressed.get(number, False)


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
    """What the hooks of a model share.

    Args:
        methods: what was applied.
        shares: whether rows that are alike are so where they enter the model's first layer.
        forward: the one in progress.
        image_keys, draw_keys, alike: of its rows, as `row_keys` gets them.
        observer: is called with each layer in which a method acts, in order.
        size: tokens of image and of text in the latest forward, in families that show them at the root.
        told: is called once, when the first forward in such a family has ended in which all methods acted, and that is
            not compiled as a whole.
    """

    methods: Compression
    shares: bool = False
    forward: Forward | None = None
    image_keys: Tensor | None = None
    draw_keys: Tensor | None = None
    alike: Tensor | None = None
    resting: tuple[bool, ...] | None = None  # as in `Forward`, where it is told; else each forward's timestep tells
    observer: Callable[[Seen], object] | None = None
    size: tuple[int, int] = (0, 0)
    told: Callable[[], object] | None = None

    def acting(self, kind: type[AnyMethod], level: int, layer: int) -> list[tuple[int, AnyMethod]]:
        """What may act in a layer of the kind, `TokenMerging` or `TokenDownsampling`, after its place among all."""
        return [
            (number, method)
            for number, method in enumerate(self.methods)
            if isinstance(method, kind) and not method.is_identity and method.includes(level, layer)
        ]

    def resting_in(self, forward: Forward) -> tuple[bool, ...]:
        """Of each method whether it rests in a forward; ValueError where its rows differ in that."""
        if self.resting is not None:
            return self.resting
        if not self.methods.follows_t:
            return ()
        if forward.timestep is None:
            raise ValueError(
                f"timesteps of {self.methods.text} must be left out where the model is called without a timestep: "
                f"pass timestep="
            )
        # Where a model is told of one, 0.3 becomes a little more than 300 of a thousand.
        return self.methods.resting([round(t, 2) for t in forward.timestep.tolist()])

    def taking_turns(self, layer: int) -> list[tuple[int, TokenMerging | TokenDownsampling]]:
        """What may act in a layer in which one method does at a time, after its place among all methods."""
        return [*self.acting(TokenMerging, 1, layer), *self.acting(TokenDownsampling, 1, layer)]

    def current(self) -> Forward:
        """The forward in progress."""
        if self.forward is None:
            raise RuntimeError(
                "a block of a compressed model was called outside of the model's own forward (gradient checkpointing "
                "does that in the backward pass: call disable_gradient_checkpointing())"
            )
        return self.forward
