"""The state of a forward: made when the root's forward begins, passed by reference, gone when it ends."""

from __future__ import annotations

from collections.abc import Callable
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
        told: is called once, when the first forward in such a family has ended that is not compiled as a whole.
    """

    methods: Compression
    shares: bool = False
    forward: Forward | None = None
    image_keys: Tensor | None = None
    draw_keys: Tensor | None = None
    alike: Tensor | None = None
    observer: Callable[[Seen], object] | None = None
    size: tuple[int, int] = (0, 0)
    told: Callable[[], object] | None = None

    def acting(self, kind: type[AnyMethod], level: int, layer: int) -> tuple[AnyMethod | None, int]:
        """What acts in a layer of the kind, `TokenMerging` or `TokenDownsampling`, and its place among all methods."""
        for number, method in enumerate(self.methods):
            if isinstance(method, kind) and not method.is_identity and method.includes(level, layer):
                return method, number
        return None, -1

    def acting_alone(self, layer: int) -> tuple[int, TokenMerging | TokenDownsampling]:
        """What acts in a layer in which one method may, and its place among all methods."""
        for number, method in enumerate(self.methods):
            if not method.is_identity and method.includes(1, layer):
                assert isinstance(method, TokenMerging | TokenDownsampling)
                return number, method
        raise ValueError(f"a method must act in layer {layer} that is hooked, but none does")

    def current(self) -> Forward:
        """The forward in progress."""
        if self.forward is None:
            raise RuntimeError(
                "a block of a compressed model was called outside of the model's own forward (gradient checkpointing "
                "does that in the backward pass: call disable_gradient_checkpointing())"
            )
        return self.forward
