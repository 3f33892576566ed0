"""What compression does to each layer: tokens and FLOPs, before and after."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn

from bigain.backbones.around import Around
from bigain.backbones.counting import count
from bigain.backbones.families import SUPPORTED
from bigain.backbones.hooks import BlockHook
from bigain.backbones.seam import Seam
from bigain.methods import TokenMerging
from bigain.operators.grid import Grid


@dataclass(frozen=True)
class LayerCost:
    """One block in the latest forward, for one sample.

    Args:
        layer: name of the block.
        grid: of the image's tokens.
        queries: tokens that self-attention asked with, before and after.
        keys: tokens that it asked, before and after.
        flops: of the block's matrix products, before and after; after includes `matching`.
        matching: FLOPs of making the assignment.
    """

    layer: str
    grid: Grid
    queries: tuple[int, int]
    keys: tuple[int, int]
    flops: tuple[int, int]
    matching: int


@dataclass(frozen=True)
class ForwardCost:
    """A whole forward of one sample, at the size of the latest.

    Args:
        tokens: of image, and of text.
        flops: of its matrix products and convolutions, before and after.
        attention: the share of the attentions in which methods act, without their projections, before.
    """

    tokens: tuple[int, int]
    flops: tuple[float, float]
    attention: float

    @property
    def bound(self) -> float:
        """How many times as fast the forward is at most, by its FLOPs."""
        return self.flops[0] / self.flops[1]

    @property
    def ceiling(self) -> float:
        """The same, did these attentions cost nothing."""
        return 1 / (1 - self.attention)


class Summary(tuple[LayerCost, ...]):
    """A row per compressed block; ``print`` shows a table.

    ``forward`` is what they are part of, in models that attend jointly or over video; None in others, and where that
    cannot be counted.
    """

    forward: ForwardCost | None = None

    @classmethod
    def of(cls, rows: Iterable[LayerCost], forward: ForwardCost | None = None) -> Summary:
        """Of these rows, in a forward."""
        summary = cls(rows)
        summary.forward = forward
        return summary

    @property
    def flops(self) -> tuple[int, int]:
        """FLOPs of all rows, before and after."""
        return sum(row.flops[0] for row in self), sum(row.flops[1] for row in self)

    @property
    def rests(self) -> bool:
        """Whether nothing was made fewer, as at a t at which no method acts."""
        return all(row.flops[0] == row.flops[1] and not row.matching for row in self)

    def __str__(self) -> str:
        if not self:
            return "no layer is compressed"
        table = [("layer", "grid", "queries", "keys", "MFLOPs", "change")]
        for row in self:
            grid, queries, keys = str(row.grid), _arrow(*row.queries), _arrow(*row.keys)
            table.append((row.layer, grid, queries, keys, *_change(*row.flops)))
        table.append(("all compressed layers", "", "", "", *_change(*self.flops)))
        whole = self.forward
        if whole is not None:
            table.append(("the whole forward", "", "", "", *_change(*whole.flops)))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        if whole is not None and self.rests:
            lines.append("no method acts at the t of this forward, and so it is as without any")
        elif whole is not None:
            lines.append(
                f"at {whole.tokens[0]:,} tokens attention is {whole.attention:.0%} of the FLOPs of a forward: at most "
                f"{whole.bound:.2f}x as fast, {whole.ceiling:.2f}x with no attention at all"
            )
        if self.flops[1] >= self.flops[0] and any(row.matching for row in self):
            lines.append("the matching costs more than the attention it saves: this cannot be faster on this grid")
        return "\n".join(lines)


def _arrow(before: object, after: object) -> str:
    return f"{before} -> {after}"


def _change(before: float, after: float) -> tuple[str, str]:
    """FLOPs in millions, and their change."""
    return _arrow(f"{before / 1e6:.1f}", f"{after / 1e6:.1f}"), f"{100 * (after / before - 1):+.1f}%"


def shown(hooks: Sequence[BlockHook | Seam | Around]) -> list[BlockHook | Seam | Around]:
    """Of a layer whose methods take turns in its attention and around it, what acted in the latest forward."""
    around = {hook.layer for hook in hooks if isinstance(hook, Around) and hook.method is not None}
    inside = {hook.layer for hook in hooks if isinstance(hook, Seam)} - around

    def left_out(hook: BlockHook | Seam | Around) -> bool:
        return hook.layer in around if isinstance(hook, Seam) else isinstance(hook, Around) and hook.layer in inside

    return [hook for hook in hooks if not left_out(hook)]


def cost(hook: BlockHook | Seam | Around) -> LayerCost:
    """What the latest forward did to one block, from what its hooks saw; of a seam, to its attention alone."""
    if isinstance(hook, Seam):
        return _seam_cost(hook)
    if isinstance(hook, Around):
        return _around_cost(hook)
    assert hook.grid is not None
    tokens, block = hook.grid.tokens, hook.block
    attention, merging = block.attn1, hook.merging if hook.matched else None
    matching = 0 if merging is None else merging.matching_flops(hook.grid, attention.to_q.in_features)
    before = attention_flops(attention, tokens, tokens) + mlp_flops(block.ff, tokens)
    after = attention_flops(attention, hook.queries, hook.keys) + mlp_flops(block.ff, hook.mlp_tokens) + matching
    if block.attn2 is not None:
        before += attention_flops(block.attn2, tokens, hook.cross_keys)
        after += attention_flops(block.attn2, hook.cross_queries, hook.cross_keys)
    return LayerCost(
        hook.name,
        hook.grid,
        (tokens, hook.queries),
        (tokens, hook.keys),
        (before, after),
        matching,
    )


def _seam_cost(seam: Seam) -> LayerCost:
    """Of the products of queries, keys and values, and the projections to these where they change."""
    assert seam.grid is not None
    channels = seam.attention.to_q.in_features if hasattr(seam.attention, "to_q") else seam.width
    matching, merging = 0, seam.method if isinstance(seam.method, TokenMerging) else None
    if merging is not None:
        matching = sum(grid.frames * merging.matching_flops(grid.frame, channels) for grid in seam.grids)
    before, after = (4 * seam.queries * keys * seam.width for keys in (seam.keys_before, seam.keys))
    if seam.projected is not None:  # which counts only where it changes
        projections = (seam.attention.to_k, seam.attention.to_v)
        weights = sum(one.in_features * one.out_features for one in projections)
        before, after = before + 2 * seam.projected[0] * weights, after + 2 * seam.projected[1] * weights
    return LayerCost(
        seam.name,
        seam.grid,
        (seam.queries, seam.queries),
        (seam.keys_before, seam.keys),
        (before, after + matching),
        matching,
    )


def forward_cost(model: Any, size: tuple[int, int], rows: Iterable[LayerCost]) -> ForwardCost | None:
    """Of a model that attends jointly or over video; None, and a UserWarning, where its config does not give it.

    Args:
        size: tokens of image and of text.
        rows: what the forward did to its layers.
    """
    kind = next(family.__name__ for family in SUPPORTED if isinstance(model, family))
    try:
        counted = count(kind, model.config, size[1])
    except ValueError as error:
        warnings.warn(f"the FLOPs of a forward cannot be counted, and so no bound is known: {error}", stacklevel=2)
        return None
    before = counted.flops(size[0])
    saved = sum(row.flops[0] - row.flops[1] for row in rows)
    return ForwardCost(size, (before, before - saved), counted.attention(size[0]) / before)


_OF_IMAGE = (
    "to_q",
    "to_k",
    "to_v",
    "to_out",
    "to_qkv_mlp_proj",
    "proj_mlp",
    "proj_out",
    "gate_proj",
    "up_proj",
    "down_proj",
)


def _around_cost(around: Around) -> LayerCost:
    """Of an MLP; or of a block the products of its attentions, their projections and its MLP."""
    assert around.grid is not None
    parts = [getattr(around.block, around.family.mlp, None)]
    if around.seams:
        holders = (around.block, *(seam.attention for seam in around.seams))
        parts += [getattr(holder, name, None) for holder in holders for name in _OF_IMAGE]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    before, after = (sum(mlp_flops(module, count) for module in modules) for count in (around.tokens, around.fewer))
    grid, frame = around.grid, around.grid.frame
    matching = 0 if around.method is None else grid.frames * around.method.matching_flops(frame, around.width)
    keys = (around.tokens, around.fewer if around.seams else around.tokens)
    for seam in around.seams:
        before += 4 * (seam.queries + seam.keys_before - seam.keys) * seam.keys_before * seam.width
        after += 4 * seam.queries * seam.keys * seam.width
    return LayerCost(around.name, around.grid, keys, keys, (before, after + matching), matching)


def attention_flops(attention: Attention, queries: int, keys: int) -> int:
    """Multiply-adds, counted as two, of an attention with its projections for one sample."""
    inner = attention.to_q.out_features
    around = queries * (attention.to_q.in_features + attention.to_out[0].out_features) * inner
    sources = 2 * keys * attention.to_k.in_features * inner
    return 2 * (around + sources + 2 * queries * keys * inner)


def mlp_flops(feed_forward: nn.Module, tokens: int) -> int:
    """Of a feed-forward's linear layers."""
    weights = sum(m.in_features * m.out_features for m in feed_forward.modules() if isinstance(m, nn.Linear))
    return 2 * tokens * weights
