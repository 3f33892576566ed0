"""Bipartite matching: which tokens merge into which destinations.

One destination per cell of the grid; every other token is a source. Each source takes the destination, over the whole
grid, to which its cosine similarity is highest, and the sources with the highest best similarity merge.

Source: ToMe (arXiv 2210.09461) and ToMe for Stable Diffusion (arXiv 2303.17604); destinations by score from BiGain
(arXiv 2603.12240), Laplacian-gated token merging; recovery from the most similar kept token from SiTo (AAAI 2025).
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.assignment import Assignment, merged_bounds
from bigain.operators.grid import (
    Cell,
    Grid,
    cell_count,
    check_cell,
    check_tokens,
    gather_tokens,
    pack,
    to_cells,
)
from bigain.operators.windows import Windows, best_in_windows

_MASK = 0xFFFFFFFF


def limit(grid: Grid, cell: Cell) -> int:
    """The most tokens that bipartite matching can merge: all but one per cell, partial cells included."""
    return grid.tokens - cell_count(grid, cell)


def destinations_first(grid: Grid, cell: Cell, batch: int, device: torch.device | str | None = None) -> Tensor:
    """The top-left token of every cell as its destination.

    Returns:
        (B, D) int64 token indices in cell order, D = cell_count; the rows share memory.
    """
    return destinations_at(grid, cell, (0, 0), batch, device)


def destinations_at(
    grid: Grid, cell: Cell, place: tuple[int, int], batch: int, device: torch.device | str | None = None
) -> Tensor:
    """The token at one place of every cell as its destination; of a partial cell the nearest token that it has.

    Args:
        place: row and column within the cell, such as one of :func:`places_farthest_first`.

    Returns:
        (B, D) int64 token indices in cell order, D = cell_count; the rows share memory.

    Raises:
        ValueError: if the place lies outside of the cell.
    """
    sy, sx = check_cell(cell)
    if not (0 <= place[0] < sy and 0 <= place[1] < sx):
        raise ValueError(f"place must lie in a cell of {sy} x {sx}, got {place!r}")
    row = (torch.arange(0, grid.height, sy, device=device) + place[0]).clamp(max=grid.height - 1)
    column = (torch.arange(0, grid.width, sx, device=device) + place[1]).clamp(max=grid.width - 1)
    return (row[:, None] * grid.width + column[None, :]).reshape(1, -1).expand(batch, -1)


def places_farthest_first(cell: Cell) -> tuple[tuple[int, int], ...]:
    """All places of a cell, each as far as can be from those before it; on ties the first in raster order.

    Returns:
        sy * sx pairs (row, column), the first of them (0, 0). Of 2 x 2: top-left, bottom-right, top-right, bottom-left.
    """
    sy, sx = check_cell(cell)
    left = [(row, column) for row in range(sy) for column in range(sx)]
    order = [left.pop(0)]
    while left:
        distances = [min((row - y) ** 2 + (column - x) ** 2 for y, x in order) for row, column in left]
        order.append(left.pop(distances.index(max(distances))))
    return tuple(order)


def destinations_by_score(score: Tensor, grid: Grid, cell: Cell, lowest: bool = True) -> Tensor:
    """The token with the lowest (or highest) score of every cell as its destination; on ties the first in raster order.

    Args:
        score: (B, N), floating point.

    Returns:
        (B, D) int64 token indices in cell order, D = cell_count.

    Raises:
        ValueError: if ``score`` is not (B, N) for this grid.
    """
    check_tokens(score, grid, 2, "score")
    cells = to_cells(score, grid, cell, torch.inf if lowest else -torch.inf)  # (B, D, sy * sx)
    place = cells.argmin(dim=2, keepdim=True) if lowest else cells.argmax(dim=2, keepdim=True)
    members = to_cells(torch.arange(grid.tokens, device=score.device)[None], grid, cell, 0)
    return members.expand(score.shape[0], -1, -1).gather(2, place).squeeze(2)


def mix_keys(*parts: Tensor | int) -> Tensor:
    """Hash integers into one key each; the order of the parts matters.

    Args:
        parts: integers (taken modulo 2**64), or int64 tensors that broadcast against each other.

    Returns:
        int64 in [0, 2**63), of the broadcast shape (0-d on the CPU if every part is an int).

    Raises:
        ValueError: if there are no parts.
    """
    if not parts:
        raise ValueError("mix_keys needs at least 1 part, got 0")
    low: Tensor | int = 0x9E3779B9
    high: Tensor | int = 0x7F4A7C15
    for part in parts:
        low = _mix(low ^ (part & _MASK))
        high = _mix(high ^ ((part >> 32) & _MASK) ^ low)
        low = _mix((low + high) & _MASK)
    return torch.as_tensor(((high & 0x7FFFFFFF) << 32) | low)


def random_scores(keys: Tensor, tokens: int) -> Tensor:
    """A pseudo-random score per token, as a pure function of (key, token): no random state is read or touched.

    Args:
        keys: (B,) int64, non-negative, as from :func:`mix_keys`.
        tokens: how many tokens to score, N.

    Returns:
        (B, N) float32, multiples of 2**-24 in [0, 1): equal bits on every device and for every batch.

    Raises:
        ValueError: if ``keys`` is not (B,) int64, or ``tokens`` is below 1.
    """
    if keys.dim() != 1 or keys.dtype != torch.int64:
        raise ValueError(f"keys must be (B,) int64, got shape {tuple(keys.shape)} {keys.dtype}")
    if tokens < 1:
        raise ValueError(f"tokens must be an integer >= 1, got {tokens!r}")
    counter = _mix((torch.arange(tokens, device=keys.device) + 0x9E3779B9) & _MASK)
    hashed = _mix(_mix(counter[None, :] ^ (keys[:, None] & _MASK)) ^ ((keys[:, None] >> 32) & _MASK))
    return (hashed >> 8).to(torch.float32) * 2.0**-24


def match(
    features: Tensor,
    destinations: Tensor,
    merged: int | Tensor,
    *,
    score: Tensor | None = None,
    gate: float = 0.0,
    protected: int = 0,
    windows: Windows | None = None,
) -> Assignment:
    """Merge into the destinations the sources that are most similar to one.

    Args:
        features: (B, N, C), compared by cosine similarity in at least float32.
        destinations: (B, D) int64, distinct token indices per row.
        merged: how many sources merge, r in [0, N - D - protected]: an int for all rows, or a (B,) integer tensor with
            one r per row, which synchronises with the device and does not compile.
        score: (B, N), high where there is detail; what ``gate`` and ``protected`` go by.
        gate: which sources merge is decided by their best similarity - gate * the rank of their score among the row's
            sources, from 0 (lowest) to 1 (highest), equal scores ranked in raster order. Where they merge is not.
        protected: how many sources of each row, those of highest score, never merge.
        windows: compare sources with the destinations of their own window alone. The destinations must then be one per
            cell, in cell order. Which sources merge is decided over the whole grid nonetheless.

    Returns:
        An assignment to M = N - r groups (r the least of the rows): first the sources that did not merge, in raster
        order, then the destinations in the given order. It is padded if the rows' r differ: a row that merges more has
        empty groups between the two.

    Raises:
        ValueError: if the shapes disagree, ``merged`` lies outside of its range, or the score is missing.
    """
    least, most = _bounds(features, destinations, merged, protected)
    sources = _sources(destinations, features.shape[1])
    if most == 0:
        return _assemble(sources, destinations, torch.zeros_like(sources, dtype=torch.bool), sources, 0, False)
    unit = _normalised(features)
    if windows is None:
        similarity, place = _best(gather_tokens(unit, sources), gather_tokens(unit, destinations))
    else:
        similarity, place = best_in_windows(unit, sources, destinations, windows)
    if gate or protected:
        similarity = _gated(similarity, _ranks(score, sources, features), gate, protected)
    merges = _select(_order(similarity, most), merged, sources.shape[1])
    unmerged = sources.shape[1] - least
    return _assemble(sources, destinations, merges, place + unmerged, least, least < most)


def recover_most_similar(features: Tensor, destinations: Tensor, merged: int | Tensor) -> Assignment:
    """Prune the sources that are most similar to a destination, and recover each from its most similar kept token.

    The same tokens go as in :func:`match` and the groups are the same, in the same order, but a token that goes takes
    its value back from whichever kept token it is most similar to, destination or not. For ``merge(..., "prune")``.

    Args, returns, raises: as :func:`match`.

    Source: SiTo (AAAI 2025), similarity-based token pruning and recovery.
    """
    least, most = _bounds(features, destinations, merged)
    sources = _sources(destinations, features.shape[1])
    unmerged = sources.shape[1] - least
    if most == 0 or unmerged == 0:
        return match(features, destinations, merged)
    unit = _normalised(features)
    similarity, place = _best(gather_tokens(unit, sources), gather_tokens(unit, destinations))
    order = _order(similarity, most)
    merges = _select(order, merged, sources.shape[1])
    kept = pack(sources, ~merges, unmerged, destinations[:, :1])
    empty = torch.arange(unmerged, device=kept.device) >= (~merges).sum(1, keepdim=True) if least < most else None
    pruned = gather_tokens(unit, sources.gather(1, order))
    other_similarity, other = _best(pruned, gather_tokens(unit, kept), empty)
    group = torch.where(other_similarity > similarity.gather(1, order), other, place.gather(1, order) + unmerged)
    group = torch.zeros_like(place).scatter(1, order, group)
    return _assemble(sources, destinations, merges, group, least, least < most)


def _bounds(features: Tensor, destinations: Tensor, merged: int | Tensor, protected: int = 0) -> tuple[int, int]:
    """The least and the most that any row merges, once everything about the arguments is checked."""
    if features.dim() != 3:
        raise ValueError(f"features must be (B, N, C), got shape {tuple(features.shape)}")
    batch, tokens = features.shape[:2]
    if destinations.dim() != 2 or destinations.shape[0] != batch or not 1 <= destinations.shape[1] <= tokens:
        raise ValueError(
            f"destinations must be (B, D) with B = {batch} and D in [1, {tokens}], "
            f"got shape {tuple(destinations.shape)}"
        )
    sources = tokens - destinations.shape[1]
    if not 0 <= protected <= sources:
        raise ValueError(f"protected must lie in [0, {sources}], the number of sources, got {protected}")
    return merged_bounds(merged, batch, sources - protected)


def _sources(destinations: Tensor, tokens: int) -> Tensor:
    """All tokens that are not destinations, in raster order: (B, S) token indices."""
    batch, count = destinations.shape
    every = torch.arange(tokens, device=destinations.device).expand(batch, -1)
    is_source = torch.ones(every.shape, dtype=torch.bool, device=every.device).scatter(1, destinations, False)
    return pack(every, is_source, tokens - count, destinations[:, :1])


def _normalised(features: Tensor) -> Tensor:
    """Tokens of unit length in at least float32; a zero token stays zero. The assignment carries no gradient."""
    return functional.normalize(features.detach().to(torch.promote_types(features.dtype, torch.float32)), dim=2)


def _best(tokens: Tensor, candidates: Tensor, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Highest similarity to a candidate, and its place: two (B, K), of tokens (B, K, C) and candidates (B, L, C)."""
    similarity = torch.bmm(tokens, candidates.transpose(1, 2))  # (B, K, L)
    if excluded is not None:
        similarity = similarity.masked_fill(excluded[:, None], -torch.inf)
    best = similarity.max(dim=2)
    return best.values, best.indices


def _ranks(score: Tensor | None, sources: Tensor, features: Tensor) -> Tensor:
    """The rank of each source by its score, 0 the lowest, on ties in raster order: (B, S) int64."""
    if score is None or score.shape != features.shape[:2]:
        found = "none" if score is None else f"shape {tuple(score.shape)}"
        raise ValueError(f"gate and protected need a score of shape {tuple(features.shape[:2])}, got {found}")
    order = score.gather(1, sources).argsort(dim=1, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(1, order, ranks)


def _gated(similarity: Tensor, ranks: Tensor, gate: float, protected: int) -> Tensor:
    """Similarities (B, S) by which sources merge, lowered by their rank; -inf for the ``protected`` highest ranks."""
    sources = ranks.shape[1]
    gated = similarity - gate / max(sources - 1, 1) * ranks.to(similarity.dtype)
    return gated.masked_fill(ranks >= sources - protected, -torch.inf)


def _order(similarity: Tensor, count: int) -> Tensor:
    """The ``count`` sources of highest similarity, highest first, on ties in raster order: (B, count) places."""
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :count]


def _select(order: Tensor, merged: int | Tensor, sources: int) -> Tensor:
    """Which sources merge: (B, S) bool, the first ``merged`` of ``order`` in each row."""
    chosen = torch.ones_like(order, dtype=torch.bool)
    if isinstance(merged, Tensor):
        chosen = torch.arange(order.shape[1], device=order.device) < merged.to(order.device)[:, None]
    return chosen.new_zeros(order.shape[0], sources).scatter(1, order, chosen)


def _assemble(
    sources: Tensor, destinations: Tensor, merges: Tensor, group: Tensor, least: int, padded: bool
) -> Assignment:
    """Number the groups: unmerged sources in raster order, then destinations; ``group`` says where the others go."""
    unmerged = sources.shape[1] - least
    own = torch.arange(unmerged, unmerged + destinations.shape[1], device=sources.device).expand_as(destinations)
    groups = torch.cat([torch.where(merges, group, (~merges).cumsum(1) - 1), own], dim=1)
    tokens = torch.cat([sources, destinations], dim=1)
    kept = torch.cat([pack(sources, ~merges, unmerged, destinations[:, :1]), destinations], dim=1)
    return Assignment(torch.zeros_like(tokens).scatter(1, tokens, groups), kept, padded)


@overload
def _mix(value: int) -> int: ...
@overload
def _mix(value: Tensor) -> Tensor: ...
@overload
def _mix(value: Tensor | int) -> Tensor | int: ...
def _mix(value: Tensor | int) -> Tensor | int:
    """A bijective hash of 32-bit integers held in int64 (lowbias32 of Wellons' hash-prospector)."""
    value = value ^ (value >> 16)
    value = (value * 0x7FEB352D) & _MASK
    value = value ^ (value >> 15)
    value = (value * (0x846CA68B - 2**32)) & _MASK  # equal modulo 2**32, and the product stays below 2**63
    return value ^ (value >> 16)
