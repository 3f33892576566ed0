"""Bipartite matching: which tokens merge into which destinations.

One destination per cell of the grid; every other token is a source. Each source takes the destination, over the whole
grid, to which its cosine similarity is highest, and the sources with the highest best similarity merge. Similarities
are computed in blocks, so that no matrix of all sources and destinations is ever whole.

Source: ToMe (arXiv 2210.09461) and ToMe for Stable Diffusion (arXiv 2303.17604); destinations by score from BiGain
(arXiv 2603.12240), Laplacian-gated token merging; recovery from the most similar kept token from SiTo (AAAI 2025).
"""

from __future__ import annotations

from itertools import repeat

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.assignment import Assignment, mark_first, merged_bounds
from bigain.operators.grid import Cell, Grid, cell_count, check_tokens, gather_tokens, pack, to_cells
from bigain.operators.labels import labelled

_BLOCK = 2**24  # similarities at once: 64 MiB in float32


def limit(grid: Grid, cell: Cell) -> int:
    """The most tokens that bipartite matching can merge: all but one per cell, partial cells included."""
    return grid.tokens - cell_count(grid, cell)


@labelled("match")
def destinations_by_score(score: Tensor, grid: Grid, cell: Cell, lowest: bool = True) -> Tensor:
    """The token with the lowest (or highest) score of every cell as its destination; on ties the first in raster order.

    Scores are (B, N) floats, destinations (B, D) int64 token indices in cell order, D = cell_count.
    """
    check_tokens(score, grid, 2, "score")
    cells = to_cells(score, grid, cell, torch.inf if lowest else -torch.inf)  # (B, D, sy * sx)
    place = cells.argmin(dim=2, keepdim=True) if lowest else cells.argmax(dim=2, keepdim=True)
    members = to_cells(torch.arange(grid.tokens, device=score.device)[None], grid, cell, 0)
    return members.expand(score.shape[0], -1, -1).gather(2, place).squeeze(2)


@labelled("match")
def match(features: Tensor, destinations: Tensor, merged: int | Tensor, recover: bool = False) -> Assignment:
    """Merge into the destinations the sources that are most similar to one.

    Args:
        features: (B, N, C), compared by cosine similarity in at least float32.
        destinations: (B, D) int64, distinct token indices per row.
        merged: how many sources merge, r in [0, N - D], as :func:`merged_bounds` takes it.
        recover: join what merges to whichever token that stays it is most similar to, destination or not, as SiTo does
            for ``merge(..., "prune")``. The same tokens go, and the groups are the same, in the same order.

    Returns:
        An assignment to M = N - r groups (r the least of the rows): first the sources that did not merge, in raster
        order, then the destinations in the given order. It is padded if the rows' r differ: a row that merges more has
        empty groups between the two.
    """
    if features.dim() != 3:
        raise ValueError(f"features must be (B, N, C), not {tuple(features.shape)}")
    batch, tokens = features.shape[:2]
    if destinations.dim() != 2 or destinations.shape[0] != batch or not 1 <= destinations.shape[1] <= tokens:
        raise ValueError(
            f"destinations must be (B, D) with B = {batch} and D in [1, {tokens}], not {tuple(destinations.shape)}"
        )
    least, most = merged_bounds(merged, batch, tokens - destinations.shape[1])
    sources = _sources(destinations, tokens)
    unmerged = sources.shape[1] - least
    if most == 0:
        merges, group = torch.zeros_like(sources, dtype=torch.bool), sources
    else:
        similarity, place = _best(features, sources, destinations)
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, :most]
        merges, group = mark_first(order, merged, sources.shape[1]), place + unmerged
    kept = pack(sources, ~merges, unmerged, destinations[:, :1])
    if recover and most and unmerged:
        empty = torch.arange(unmerged, device=kept.device) >= (~merges).sum(1, keepdim=True) if least < most else None
        other_similarity, other = _best(features, sources.gather(1, order), kept, empty)
        nearer = other_similarity > similarity.gather(1, order)
        group = group.scatter(1, order, torch.where(nearer, other, group.gather(1, order)))
    own = torch.arange(unmerged, unmerged + destinations.shape[1], device=sources.device).expand_as(destinations)
    groups = torch.cat([torch.where(merges, group, (~merges).cumsum(1) - 1), own], dim=1)
    every = torch.cat([sources, destinations], dim=1)
    index = torch.zeros_like(groups).scatter(1, every, groups)
    return Assignment(index, torch.cat([kept, destinations], dim=1), least < most)


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
        masks = repeat(None) if excluded is None else excluded.split(rows)
        blocks = zip(features.split(rows), tokens.split(rows), candidates.split(rows), masks, strict=False)
        similarities, places = zip(*(_best(*block) for block in blocks), strict=True)
        return torch.cat(similarities), torch.cat(places)
    right = _unit(features, candidates).transpose(1, 2)  # (B, C, L)
    best = []
    for part in tokens.split(max(1, _BLOCK // (batch * candidates.shape[1])), dim=1):
        block = torch.bmm(_unit(features, part), right)  # (B, part, L)
        if excluded is not None:
            block = block.masked_fill(excluded[:, None], -torch.inf)
        best.append(block.max(dim=2))
    return torch.cat([each.values for each in best], 1), torch.cat([each.indices for each in best], 1)
