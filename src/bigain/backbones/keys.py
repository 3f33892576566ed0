"""Fewer keys and values in place of those of a span, and the mask that says what they weigh."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from bigain.backbones.hooks import without_autocast
from bigain.backbones.joining import Call, takes_masks
from bigain.backbones.spans import Span
from bigain.methods import Context, TokenDownsampling, TokenMerging
from bigain.operators.assignment import Assignment, group_sizes, merge
from bigain.operators.grid import Grid, cells_shape


@dataclass
class Fewer:
    """What takes the place of some tokens of a sequence, in one attention.

    Args:
        key, value: (B, M, H, D).
        sizes: (M,) or (B, M) float32, the tokens that each stands for; 0 for an empty one.
        kept: (M,) or (B, M) int64, the token of the sequence whose column of a mask it takes.
        window, grid: of windows in raster order, whose sizes follow; None where all stand for ``size`` tokens.
    """

    key: Tensor
    value: Tensor
    sizes: Tensor
    kept: Tensor
    window: tuple[int, int, int] | None = None
    grid: Grid | None = None
    size: float = 1.0

    def alike(self) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
        """The keys, values and places that stand for as many tokens each, by that number: full and partial windows."""
        if self.window is None or self.grid is None:
            yield self.size, self.key, self.value, self.kept
            return
        shape = cells_shape(self.grid, self.window)
        sides = []
        for side, step in zip(self.grid.sides, self.window, strict=True):
            full, rest = divmod(side, step)
            sides.append([(slice(full), step)] * (full > 0) + [(slice(full, full + 1), rest)] * (rest > 0))
        laid_out = [x.unflatten(1, shape) for x in (self.key, self.value, self.kept[None])]
        for (frames, t), (rows, y), (columns, x) in product(*sides):
            key, value, kept = (each[:, frames, rows, columns].flatten(1, 3) for each in laid_out)
            yield float(t * y * x), key, value, kept[0]


def whole(key: Tensor, value: Tensor, begin: int, end: int) -> Fewer:
    """Tokens that stay: text, registers, padding, a frame that conditions."""
    own = torch.arange(begin, end, device=key.device)
    return Fewer(key[:, begin:end], value[:, begin:end], torch.ones_like(own, dtype=torch.float32), own)


def pooled(method: TokenDownsampling, span: Span, context: Context, key: Tensor, value: Tensor) -> Fewer:
    """Of keys and values (B, N, H, D) of a span; ``kept`` counts from its first token."""
    grid = context.grid
    method.check(grid)
    flat = [span.folded(x.flatten(2)) for x in (key, value)]
    with without_autocast(key):
        if method.reads_score:  # which tokens stay depends on them, and a key goes with its value
            both = method.pool(torch.cat(flat, 2), context)
            flat = list(both.split([x.shape[2] for x in flat], 2))
        else:
            flat = [method.pool(x, context) for x in flat]
    sizes, kept = method.sizes(grid, key.device).repeat(span.together), method.kept(grid, key.device)
    shift = torch.arange(span.together, device=key.device)[:, None] * grid.tokens
    part = Fewer(_unfolded(flat[0], key), _unfolded(flat[1], value), sizes, (kept + shift).flatten())
    if method.reads_score:
        part.size = span.grid.tokens / part.key.shape[1]
    else:
        part.window, part.grid = method.window, span.grid
    return part


def merged(method: TokenMerging, span: Span, assignment: Assignment, key: Tensor, value: Tensor) -> Fewer:
    """Of keys and values (B, N, H, D) of a span; ``kept`` counts from its first token."""
    batch, folds = key.shape[0], span.together
    shift = torch.arange(folds, device=key.device) * (span.grid.tokens // folds)
    fewer = [merge(span.folded(x.flatten(2)), assignment, method.operator) for x in (key, value)]
    return Fewer(
        _unfolded(fewer[0], key),
        _unfolded(fewer[1], value),
        group_sizes(assignment).reshape(batch, -1),
        (assignment.kept + shift.repeat(batch)[:, None]).reshape(batch, -1),
    )


def _unfolded(fewer: Tensor, like: Tensor) -> Tensor:
    return fewer.reshape(like.shape[0], -1, *like.shape[2:])


def calls_of(parts: Sequence[Fewer], mask: Tensor | None, size_aware: bool, backend: Any, name: str) -> list[Call]:
    """The attention over all parts: one call with a mask, or one for each size where the backend takes none.

    ValueError where it takes none and sizes differ from row to row; ``name`` is of the attention.
    """
    per_row = any(part.sizes.dim() == 2 for part in parts)
    if not (size_aware or per_row) or takes_masks(backend, name):
        key, value = torch.cat([part.key for part in parts], 1), torch.cat([part.value for part in parts], 1)
        return [Call(key, value, mask_for(mask, parts, size_aware, key.dtype))]
    if per_row:
        raise ValueError(
            f"attention backend of {name} must take masks for merged tokens, whose sizes differ from row to row, not "
            f"be one such as flash or sage: use 'native', or pool keys and values"
        )
    by_size: dict[float, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for part in parts:
        for size, *alike in part.alike():
            by_size.setdefault(size, []).append((alike[0], alike[1], alike[2]))
    calls = []
    for size, several in by_size.items():
        key, value = (torch.cat([one[place] for one in several], 1) for place in (0, 1))
        kept = torch.cat([one[2] for one in several])
        own = mask if mask is None or mask.shape[-1] == 1 else mask.index_select(-1, kept)
        calls.append(Call(key, value, own, math.log(size)))
    return calls


def mask_for(mask: Tensor | None, parts: Sequence[Fewer], size_aware: bool, dtype: torch.dtype) -> Tensor | None:
    """The columns of a mask that are left, plus the log of what each key stands for; None where that is nothing."""
    batch = parts[0].key.shape[0]
    per_row = any(part.sizes.dim() == 2 for part in parts)

    def joined(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        return torch.cat([x.expand(batch, -1) if per_row and x.dim() == 1 else x for x in values], -1)

    sizes = joined("sizes")
    if mask is not None and mask.shape[-1] > 1:
        kept = joined("kept")
        if per_row:
            kept = kept[:, None, None, :].expand(batch, *mask.shape[1:3], -1)
            mask = mask.expand(batch, -1, -1, -1).gather(-1, kept)
        else:
            mask = mask.index_select(-1, kept)
    if not size_aware:
        if not per_row:
            return mask
        sizes = sizes.clamp(max=1)  # an empty group has no weight at all
    bias = sizes.log().to(dtype)
    bias = bias[:, None, None, :] if per_row else bias[None, None, None, :]
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, bias.new_tensor(float("-inf")))
    return mask + bias
