"""Downsampled keys and values: ToDo, average pooling, BiGain's interpolate–extrapolate (IE-KVD), and an ablation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bigain import operators
from bigain.methods.base import Context, Method, Score
from bigain.methods.schedules import Linear, bounds, is_whole, resolve

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bigain.operators.grid import Grid


@dataclass(frozen=True, kw_only=True)
class TokenDownsampling(Method):
    """Common fields of the methods that downsample keys and values.

    Args:
        factor: side s of the s×s windows; N tokens become about N / s². Or the sides of the windows: height and width,
            or, in a video, frames, height and width, such as (2, 2, 2). There s is (1, s, s), and the first frame,
            which stands for one alone, is not pooled over time.
        size_aware: the log of a window's size is added to its key's logits, so that it weighs what its tokens weighed.
            None is yes where text shares the softmax with the image, or windows of a video are partial; no in U-Nets
            and DiTs, as published.
        pool_at: where models that attend jointly or over video pool: "attention", the keys and values after norm and
            rotary embedding; or "projection", what they are projected from, which saves most of that too. With the
            nearest token both are the same; with means the values are, and the keys differ by the norm and by the
            embedding, that of the window's centre. None is "attention"; U-Nets and DiTs always pool at the projection.
    """

    strength: ClassVar[str] = "factor"
    strengths: ClassVar[tuple[str, ...]] = ("2", "3", "4")

    factor: int | tuple[int, int] | tuple[int, int, int] = field(
        default=2, metadata={"expects": "a whole number from 1, or the sides of a window, such as 2x2x2"}
    )
    size_aware: bool | None = None
    pool_at: Literal["attention", "projection"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = tuple(self.factor) if isinstance(self.factor, list | tuple) else (self.factor, self.factor)
        if len(sides) not in (2, 3) or not all(map(is_whole, sides)):
            which = "a whole number" if sides == (self.factor, self.factor) else "two or three whole numbers"
            raise ValueError(f"factor must be {which} from 1, not {self.factor!r}")
        sides = sides[1:] if len(sides) == 3 and sides[0] == 1 else sides  # so that equal windows are equal configs
        object.__setattr__(self, "factor", sides[0] if sides == (sides[0], sides[0]) else sides)

    @property
    def window(self) -> tuple[int, int, int]:
        """Frames, height and width of a window."""
        sides = self.factor if isinstance(self.factor, tuple) else (self.factor, self.factor)
        frames, height, width = (1, *sides)[-3:]
        return frames, height, width

    @property
    def is_identity(self) -> bool:
        return self.factor == 1

    @property
    def over_time(self) -> bool:
        return self.window[0] > 1

    def within_frame(self) -> Method | None:
        inside: tuple[int, int, int] = (1, *self.window[1:])
        return None if inside == (1, 1, 1) else replace(self, factor=inside)

    def suits(self, grid: Grid) -> bool:
        return not self.is_identity and all(step <= side for step, side in zip(self.window, grid.sides, strict=True))

    def check(self, grid: Grid) -> None:
        frames, height, width = self.window
        if frames > 1 and frames > grid.frames:
            count = "one frame" if grid.frames == 1 else f"{grid.frames} frames"
            raise ValueError(f"factor must span at most the {count} that are pooled over time here, not {frames}")
        if isinstance(self.factor, int) and self.factor > max(grid.height, grid.width):
            raise ValueError(
                f"factor must be at most {max(grid.height, grid.width)} on a grid of {grid.height}x{grid.width}, "
                f"not {self.factor}"
            )
        if not isinstance(self.factor, int) and (height > grid.height or width > grid.width):
            raise ValueError(f"factor must be windows that fit a grid of {grid} tokens, not {self.factor}")

    def pool(self, x: Tensor, context: Context) -> Tensor:
        """Downsamples tokens x (B, N, C) to (B, M, C)."""
        raise NotImplementedError

    def sizes(self, grid: Grid, device: torch.device) -> Tensor:
        """How many tokens each of the M stands for: (M,) float32."""
        return operators.pooling.window_sizes(grid, self.factor, device)

    def kept(self, grid: Grid, device: torch.device) -> Tensor:
        """A token of each of the M windows: (M,) int64."""
        return operators.pooling.nearest_tokens(grid, self.factor, "first", device)


@dataclass(frozen=True, kw_only=True)
class _Nearest(TokenDownsampling):
    """What takes one token of each window.

    Args:
        nearest: the token at the "centre" of its window, ⌊s/2⌋ down and to the right as in ToDo's published code, or
            the "first" one, at its top left.
    """

    nearest: Literal["centre", "first"] = "centre"


@dataclass(frozen=True, kw_only=True)
class ToDo(_Nearest):
    """Keys and values from one token of each window: ToDo (Smith et al. 2024, arXiv 2402.13573)."""

    name: ClassVar[str] = "todo"
    title: ClassVar[str] = "ToDo"
    colour: ClassVar[str] = "#56B4E9"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        return operators.pooling.nearest(x, context.grid, self.factor, self.nearest)


@dataclass(frozen=True, kw_only=True)
class AveragePooling(TokenDownsampling):
    """Keys and values from the mean of each window."""

    name: ClassVar[str] = "avgpool"
    title: ClassVar[str] = "Average"
    colour: ClassVar[str] = "#7F7F7F"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        return operators.pooling.average(x, context.grid, self.factor)


@dataclass(frozen=True, kw_only=True)
class InterpolateExtrapolateKV(_Nearest):
    """Keys and values from α·nearest + (1 − α)·mean of each window: IE-KVD (arXiv 2603.12240).

    Args:
        alpha: 1 is nearest (ToDo), 0 the mean, above 1 extrapolates away from the mean. A constant (0.9 is the paper's
            for classification) or a schedule (``Linear(0.8, 1.2)`` is the paper's for generation).
    """

    name: ClassVar[str] = "iekvd"
    title: ClassVar[str] = "IE-KVD"
    colour: ClassVar[str] = "#009E73"

    alpha: float | Linear = field(default=0.9, metadata={"expects": "a number or a schedule such as 0.8>1.2"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(value) for value in bounds(self.alpha)):
            raise ValueError(f"alpha must be finite, not {self.alpha}")

    @property
    def words(self) -> dict[str, str]:
        return {"alpha": "α"}

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        alpha = resolve(self.alpha, context.timestep, "alpha")
        return operators.pooling.interpolate_extrapolate(x, context.grid, self.factor, alpha, self.nearest)


@dataclass(frozen=True, kw_only=True)
class FrequencySelection(TokenDownsampling):
    """Keys and values from the tokens with most, or least, detail: table 12 of BiGain (arXiv 2603.12240).

    As many tokens are kept as windows of ``factor`` would leave; no query sees the others. An ablation,
    which shows that neither detail nor smoothness is enough.

    Args:
        keep: the tokens of "high" or of "low" score.
        score: token score, one of `bigain.operators.frequency.SCORES`; high is detail.
    """

    name: ClassVar[str] = "freqsel"
    title: ClassVar[str] = "Frequency selection"
    colour: ClassVar[str] = "#999933"
    reads_score: ClassVar[bool] = True
    leaves_a_spectrum: ClassVar[bool] = False

    keep: Literal["high", "low"] = "high"
    score: Score = "laplacian_l1"

    def pool(self, x: Tensor, context: Context) -> Tensor:
        self.check(context.grid)
        scores = operators.frequency.score(x, context.grid, self.score)
        count = operators.grid.cell_count(context.grid, self.window)
        return operators.pooling.band_select(x, scores, count, highest=self.keep == "high")

    def sizes(self, grid: Grid, device: torch.device) -> Tensor:
        windows = super().sizes(grid, device)
        return windows.mean().expand_as(windows)  # those that are kept are all alike
