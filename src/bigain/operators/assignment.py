"""The assignment: one group index per token. Merging is a scatter over it, un-merging a gather.

Every merging method (ToMe, L-GTM, ABM, SiTo) is a way to make an :class:`Assignment`; what is done with one is here.
Both directions give the same bits on every call in eager mode on the CPU and on CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bigain.operators.grid import flat_rows, gather_tokens, pack
from bigain.operators.labels import labelled

Mode = Literal["mean", "mlerp", "prune"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Assignment:
    """Which of M groups each of N tokens belongs to, per row of the batch; 1 <= M <= N.

    Attributes:
        index: (B, N) int64 in [0, M), the group of each token.
        kept: (B, M) int64 in [0, N), the token that stands for each group: its destination, or itself.
        padded: whether some rows may have fewer than M groups. Their last groups are then empty (size 0), and ``kept``
            holds any valid token there.
    """

    index: Tensor
    kept: Tensor
    padded: bool = False

    def __post_init__(self) -> None:
        index, kept = tuple(self.index.shape), tuple(self.kept.shape)
        if len(index) != 2 or len(kept) != 2 or index[0] != kept[0]:
            raise ValueError(f"index and kept must be (B, N) and (B, M), not {index} and {kept}")
        if self.index.dtype != torch.int64 or self.kept.dtype != torch.int64:
            raise ValueError(f"index and kept must be int64, not {self.index.dtype} and {self.kept.dtype}")
        if not 1 <= kept[1] <= index[1]:
            raise ValueError(f"the number of groups must lie in [1, {index[1]}] (tokens), not {kept[1]}")

    @property
    def groups(self) -> int:
        """Number of groups, M: tokens after merging."""
        return self.kept.shape[1]

    def rows(self, index: Tensor) -> Assignment:
        """That of rows of the batch, ``index`` (R,) int64, which may come more than once."""
        return Assignment(self.index[index], self.kept[index], self.padded)


def by_representative(stands_for: Tensor, groups: int, padded: bool) -> Assignment:
    """The assignment in which tokens that are stood for by the same token are one group.

    stands_for is (B, N) int64 token indices, of which each that occurs stands for itself too; ``groups`` is the most
    that a row has, ``padded`` whether others have fewer. Groups are in raster order of the tokens that stand for them.
    """
    every = torch.arange(stands_for.shape[1], device=stands_for.device).expand_as(stands_for)
    keep = stands_for == every
    index = (keep.cumsum(1) - 1).gather(1, stands_for)
    return Assignment(index, pack(every, keep, groups, every[:, :1]), padded)


def group_sizes(assignment: Assignment) -> Tensor:
    """Number of tokens in each group: (B, M) float32, 0 for the empty groups of a padded assignment."""
    flat = flat_rows(assignment.index, assignment.groups)
    ones = torch.ones((1,), dtype=torch.float32, device=flat.device).expand(flat.shape[0])
    return _sum_by(ones, flat, assignment.kept.numel()).view(assignment.kept.shape)


@labelled("merge")
def merge(x: Tensor, assignment: Assignment, mode: Mode = "mean") -> Tensor:
    """Replace every group of tokens by one token.

    Args:
        x: (B, N, C).
        mode: ``mean``, in which every member has equal weight; ``mlerp``, the direction of that mean with the largest
            norm of the group, its destination included (a group whose mean is zero gives zero); ``prune``, the token
            ``assignment.kept`` itself.

    Returns:
        (B, M, C) in the dtype of ``x``, accumulated in at least float32; zeros for empty groups.

    Source: BiGain (arXiv 2603.12240), section on merge operators; MLERP after Token Fusion (arXiv 2312.01026).
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if x.dim() != 3 or x.shape[:2] != assignment.index.shape:
        raise ValueError(
            f"x must be (B, N, C) with (B, N) = {tuple(assignment.index.shape)} as the assignment's index, "
            f"not {tuple(x.shape)}"
        )
    batch, _, channels = x.shape
    groups = assignment.groups
    if mode == "prune":
        pruned = gather_tokens(x, assignment.kept)
        if assignment.padded:
            pruned = pruned.masked_fill(group_sizes(assignment)[..., None] == 0, 0)
        return pruned
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    flat = flat_rows(assignment.index, groups)
    sums = _sum_by(wide.reshape(-1, channels), flat, batch * groups).view(batch, groups, channels)
    if mode == "mean":
        sizes = group_sizes(assignment).clamp(min=1).to(wide.dtype)
        return (sums / sizes[..., None]).to(x.dtype)
    norms = torch.linalg.vector_norm(wide, dim=-1)  # (B, N)
    largest = norms.new_zeros(batch, groups).scatter_reduce(1, assignment.index, norms, "amax")
    length = torch.linalg.vector_norm(sums, dim=-1)  # the direction of the sum is that of the mean
    scale = torch.where(length > 0, largest / length, torch.zeros_like(length))
    return (sums * scale[..., None]).to(x.dtype)


@labelled("unmerge")
def unmerge(z: Tensor, assignment: Assignment) -> Tensor:
    """Give every token the value of its group, by one gather: z (B, M, C) to (B, N, C) in its dtype."""
    if z.dim() != 3 or z.shape[:2] != assignment.kept.shape:
        raise ValueError(
            f"z must be (B, M, C) with (B, M) = {tuple(assignment.kept.shape)} as the assignment's groups, "
            f"not {tuple(z.shape)}"
        )
    return gather_tokens(z, assignment.index)


def key_bias(assignment: Assignment, size_aware: bool) -> Tensor | None:
    """What to add to the logits of attention over merged keys: (B, 1, M) float32, or None for nothing.

    It is -inf on empty groups, so that no query attends to them. ``size_aware`` is proportional attention: a group of n
    tokens weighs as n equal keys would, by adding log n.

    Source: ToMe (arXiv 2210.09461), equation 1.
    """
    if not size_aware and not assignment.padded:
        return None
    sizes = group_sizes(assignment)
    weights = sizes if size_aware else sizes.clamp(max=1)
    return weights.log()[:, None]  # log 0 = -inf masks the empty groups


def merged_bounds(merged: int | Tensor, batch: int, limit: int) -> tuple[int, int]:
    """The least and the most tokens that any row of a batch merges, once checked to lie in [0, limit].

    ``merged`` is an int for all rows, or a (B,) integer tensor, which synchronises with its device (no compiling).
    """
    if isinstance(merged, Tensor):
        if merged.shape != (batch,) or merged.is_floating_point() or merged.dtype == torch.bool:
            raise ValueError(f"merged must be an int or ({batch},) integers, not {tuple(merged.shape)} {merged.dtype}")
        least, most = (int(bound) for bound in torch.stack(merged.aminmax()).tolist())
    elif isinstance(merged, bool) or not isinstance(merged, int):
        raise ValueError(f"merged must be an int or ({batch},) integers, not {merged!r}")
    else:
        least = most = merged
    if least < 0 or most > limit:
        given = str(most) if least == most else f"values from {least} to {most}"
        raise ValueError(f"merged must lie in [0, {limit}], the most that can merge here, not {given}")
    return least, most


def mark_first(order: Tensor, count: int | Tensor, places: int) -> Tensor:
    """Where the first ``count`` (of all rows, or (B,) integers) of the places in ``order`` (B, K) are: (B, places)."""
    chosen = torch.ones_like(order, dtype=torch.bool)
    if isinstance(count, Tensor):
        chosen = torch.arange(order.shape[1], device=order.device) < count.to(order.device)[:, None]
    return chosen.new_zeros(order.shape[0], places).scatter(1, order, chosen)


def _sum_by(values: Tensor, index: Tensor, groups: int) -> Tensor:
    """Sum the rows of values (K, ...) by index (K,) into (groups, ...), in the same order on every call."""
    sums = values.new_zeros((groups, *values.shape[1:]))
    if values.device.type == "cuda":
        # index_add_ adds atomically there, in whatever order; index_put_ sorts by index first
        return sums.index_put_((index,), values, accumulate=True)
    return sums.index_add_(0, index, values)
