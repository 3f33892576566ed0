"""Bipartite matching: which tokens merge into which destinations.

One destination per cell of the grid; every other token is a source. Each source takes the destination, over the whole
grid, to which its cosine similarity is highest, and the sources with the highest best similarity merge. Similarities
are computed in blocks, so that no matrix of all sources and destinations is ever whole.

Source: ToMe (arXiv 2210.09461) and ToMe for Stable Diffusion (arXiv 2303.17604); destinations by score from BiGain
(arXiv 2603.12240), Laplacian-gated token merging; recovery from the most similar kept token from SiTo (AAAI 2025).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.assignment import Assignment, merged_bounds
from bigain.operators.grid import Cell, Grid, cell_count, check_tokens, gather_tokens, pack, to_cells, top_left_tokens

_BLOCK = 2**24  # similarities at once: 64 MiB in float32


def limit(grid: Grid, cell: Cell) -> int:
    """The most tokens that bipartite matching can merge: all but one per cell, partial cells included."""
    return grid.tokens - cell_count(grid, cell)


def destinations_first(grid: Grid, cell: Cell, batch: int, device: torch.device | str | None = None) -> Tensor:
    """The top-left token of every cell as its destination: (B, D) int64 in cell order; the rows share memory."""
    return top_left_tokens(grid, cell, device).expand(batch, -1)


def destinations_by_score(score: Tensor, grid: Grid, cell: Cell, lowest: bool = True) -> Tensor:
    """The token with the lowest (or highest) score of every cell as its destination; on ties the first in raster order.

    Scores are (B, N) floats, destinations (B, D) int64 token indices in cell order, D = cell_count.
    """
    check_tokens(score, grid, 2, "score")
    cells = to_cells(score, grid, cell, torch.inf if lowest else -torch.inf)  # (B, D, sy * sx)
    place = cells.argmin(dim=2, keepdim=True) if lowest else cells.argmax(dim=2, keepdim=True)
    members = to_cells(torch.arange(grid.tokens, device=score.device)[None], grid, cell, 0)
    return members.expand(score.shape[0], -1, -1).gather(2, place).squeeze(2)


def match(features: Tensor, destinations: Tensor, merged: int | Tensor) -> Assignment:
    """Merge into the destinations the sources that are most similar to one.

    Args:
        features: (B, N, C), compared by cosine similarity in at least float32.
        destinations: (B, D) int64, distinct token indices per row.
        merged: how many sources merge, r in [0, N - D]: an int for all rows, or a (B,) integer tensor with one r per
            row, which synchronises with the device and does not compile.

    Returns:
        An assignment to M = N - r groups (r the least of the rows): first the sources that did not merge, in raster
        order, then the destinations in the given order. It is padded if the rows' r differ: a row that merges more has
        empty groups between the two.
    """
    least, most = _bounds(features, destinations, merged)
    sources = _sources(destinations, features.shape[1])
    if most == 0:
        return _assemble(sources, destinations, torch.zeros_like(sources, dtype=torch.bool), sources, 0, False)
    similarity, place = _best(features, sources, destinations)
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
    similarity, place = _best(features, sources, destinations)
    order = _order(similarity, most)
    merges = _select(order, merged, sources.shape[1])
    kept = pack(sources, ~merges, unmerged, destinations[:, :1])
    empty = torch.arange(unmerged, device=kept.device) >= (~merges).sum(1, keepdim=True) if least < most else None
    other_similarity, other = _best(features, sources.gather(1, order), kept, empty)
    group = torch.where(other_similarity > similarity.gather(1, order), other, place.gather(1, order) + unmerged)
    group = torch.zeros_like(place).scatter(1, order, group)
    return _assemble(sources, destinations, merges, group, least, least < most)


def _bounds(features: Tensor, destinations: Tensor, merged: int | Tensor) -> tuple[int, int]:
    """The least and the most that any row merges, once everything about the arguments is checked."""
    if features.dim() != 3:
        raise ValueError(f"features must be (B, N, C), not {tuple(features.shape)}")
    batch, tokens = features.shape[:2]
    if destinations.dim() != 2 or destinations.shape[0] != batch or not 1 <= destinations.shape[1] <= tokens:
        raise ValueError(
            f"destinations must be (B, D) with B = {batch} and D in [1, {tokens}], not {tuple(destinations.shape)}"
        )
    return merged_bounds(merged, batch, tokens - destinations.shape[1])


def _sources(destinations: Tensor, tokens: int) -> Tensor:
    """All tokens that are not destinations, in raster order: (B, S) token indices."""
    batch, count = destinations.shape
    every = torch.arange(tokens, device=destinations.device).expand(batch, -1)
    is_source = torch.ones(every.shape, dtype=torch.bool, device=every.device).scatter(1, destinations, False)
    return pack(every, is_source, tokens - count, destinations[:, :1])


def _unit(features: Tensor, index: Tensor) -> Tensor:
    """The tokens at index (B, K), of unit length in at least float32; a zero token stays zero."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return functional.normalize(gather_tokens(features.detach(), index).to(wide), dim=2)


def _best(
    features: Tensor, tokens: Tensor, candidates: Tensor, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Highest cosine similarity of each token to a candidate, and that candidate's place, ties the first: two (B, K).

    Tokens (B, K) and candidates (B, L) are indices into ``features``; candidates that are ``excluded`` (B, L) do not
    count. Rows and tokens are taken in blocks of at most ``_BLOCK`` similarities.
    """
    batch, count = tokens.shape
    rows = max(1, _BLOCK // max(1, count * candidates.shape[1]))
    if rows < batch:
        parts = [
            _best(
                features[first : first + rows],
                tokens[first : first + rows],
                candidates[first : first + rows],
                None if excluded is None else excluded[first : first + rows],
            )
            for first in range(0, batch, rows)
        ]
        return torch.cat([similarity for similarity, _ in parts]), torch.cat([place for _, place in parts])
    right = _unit(features, candidates).transpose(1, 2)  # (B, C, L)
    length = max(1, _BLOCK // (batch * candidates.shape[1]))
    similarities, places = [], []
    for first in range(0, count, length):
        block = torch.bmm(_unit(features, tokens[:, first : first + length]), right)  # (B, length, L)
        if excluded is not None:
            block = block.masked_fill(excluded[:, None], -torch.inf)
        best = block.max(dim=2)
        similarities.append(best.values)
        places.append(best.indices)
    return torch.cat(similarities, 1), torch.cat(places, 1)


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
