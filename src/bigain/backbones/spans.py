"""By which method image tokens of a sequence become fewer, and which do together: a frame's alone, or several's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bigain.backbones.state import Forward
from bigain.methods import Context, Method, TokenDownsampling, TokenMerging
from bigain.operators.grid import Grid


class Turns:
    """The methods of a layer in which one acts at a time, and which that is in the latest forward.

    ``method`` is None where none acts at its t; ``number`` is its place among all methods.
    """

    def __init__(self, numbered: Sequence[tuple[int, TokenMerging | TokenDownsampling]]) -> None:
        self.numbered = numbered
        self._alone = {number: method.within_frame() for number, method in numbered}
        self.number = -1
        self.method: Any = None
        self.alone: Method | None = None  # as in `spans`

    def turn(self, forward: Forward) -> bool:
        """Finds what acts at the t of a forward; whether anything does."""
        self.method, self.number = forward.acting(self.numbered)
        self.alone = self._alone.get(self.number)
        return self.method is not None


def place_of(method: Method) -> str:
    """Where a method has fewer tokens: in the "attention", the "mlp" or the whole "block"."""
    locations = getattr(method, "locations", ())
    return locations[0] if locations in (("mlp",), ("block",)) else "attention"


def pools_first(method: Method | None) -> bool:
    """Whether tokens are pooled before the projections to keys and values too."""
    return isinstance(method, TokenDownsampling) and method.pool_at == "projection"


@dataclass(frozen=True)
class Span:
    """Image tokens ``begin`` to ``end`` (without it), counted from the first of all grids.

    Args:
        grid: of these tokens.
        method: what acts on them; None where they stay whole.
    """

    begin: int
    grid: Grid
    method: Method | None

    @property
    def end(self) -> int:
        """The token behind the last."""
        return self.begin + self.grid.tokens

    @property
    def together(self) -> int:
        """How often the tokens are folded into the batch: once for each frame, unless frames go together."""
        return 1 if self.method is not None and self.method.over_time else self.grid.frames

    def context(self, forward: Forward, layer: int) -> Context:
        """What the method may know, with a row for each row of the folded tokens."""
        folds = self.together
        rows = (forward.timestep, forward.image_keys, forward.draw_keys)
        inner = self.grid if folds == 1 else self.grid.frame
        return Context(inner, layer, *(None if one is None else one.repeat_interleave(folds) for one in rows))

    def folded(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) of the span as (B * folds, N / folds, C)."""
        folds = self.together
        return x.reshape(x.shape[0] * folds, x.shape[1] // folds, x.shape[2])


def spans(forward: Forward, method: Method, alone: Method | None) -> Iterator[Span]:
    """The spans of a forward's grids, in their order.

    Frames that condition a video stay whole. Where the method acts over time, the first frame of a video goes alone,
    by ``alone``, as it stands for one frame of the video and every other one for several.

    ValueError where a method over time has no frames to group; names the field.
    """
    begin = 0
    for number, grid in enumerate(forward.grids):
        frames, whole = grid.frames, forward.whole_frames if number == 0 else 0
        lengths: list[tuple[int, Method | None]] = [(whole, None)]
        if method.over_time:
            lone = 0 if whole else 1
            method.check(Grid(grid.height, grid.width, max(frames - whole - lone, 1)))
            lengths.append((lone, alone))
        lengths.append((frames - sum(length for length, _ in lengths), method))
        for length, acting in lengths:
            if length:
                span = Span(begin, Grid(grid.height, grid.width, length), acting)
                yield span
                begin = span.end
