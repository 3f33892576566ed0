"""Everything with static shapes compiles to one graph and gives what it gives in eager mode."""

from __future__ import annotations

import torch
from torch import Tensor

from bigain.operators import blocks, matching
from bigain.operators.assignment import MODES, key_bias, merge, unmerge
from bigain.operators.frequency import SCORES, score
from bigain.operators.grid import Grid, cell_tokens
from bigain.operators.pooling import average, band_select, interpolate_extrapolate, nearest
from bigain.operators.random import mix_keys, random_normal

GRID, CELL = Grid(7, 9), (2, 2)


def assert_compiles(function: object, *args: Tensor) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True, dynamic=False)  # type: ignore[call-overload]
    expected = function(*args)  # type: ignore[operator]
    results = compiled(*args)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(*[torch.flip(arg, [0]) for arg in args])


def tokens() -> Tensor:
    return torch.randn(2, GRID.tokens, 5, generator=torch.Generator().manual_seed(0))


def test_matching_merging_and_unmerging_compile() -> None:
    def merged(x: Tensor, keys: Tensor) -> list[Tensor]:
        drawn = random_normal(mix_keys(3, keys), GRID.tokens)
        results = []
        for destinations in (
            cell_tokens(GRID, CELL, x.device).expand(len(x), -1),
            matching.destinations_by_score(score(x, GRID, "laplacian_l1"), GRID, CELL),
            matching.destinations_by_score(drawn, GRID, CELL, lowest=False),
        ):
            for recover in (False, True):
                assignment = matching.match(x, destinations, 20, recover)
                bias = key_bias(assignment, size_aware=True)
                assert bias is not None
                results += [unmerge(merge(x, assignment, mode), assignment) for mode in MODES] + [bias]  # type: ignore[arg-type]
        return results

    assert_compiles(merged, tokens(), torch.tensor([4, 9]))


def test_quadtree_merging_compiles() -> None:
    def merged(x: Tensor) -> list[Tensor]:
        assignments = [blocks.merge_quadtree(x, GRID, depth, 31) for depth in (1, 3)]
        return [unmerge(merge(x, assignment), assignment) for assignment in assignments]

    assert_compiles(merged, tokens())


def test_block_merging_compiles() -> None:
    def merged(x: Tensor) -> list[Tensor]:
        results = []
        for how in blocks.AGGREGATES:
            aggregated = blocks.aggregate(score(x, GRID, "l2_norm"), GRID, CELL, how)  # type: ignore[arg-type]
            assignment = blocks.merge_blocks(aggregated, GRID, CELL, 20)
            results += [aggregated, unmerge(merge(x, assignment), assignment)]
        return results

    assert_compiles(merged, tokens())


def test_pooling_compiles() -> None:
    def pooled(x: Tensor, alpha: Tensor) -> list[Tensor]:
        return [
            nearest(x, GRID, 2),
            average(x, GRID, 2),
            interpolate_extrapolate(x, GRID, 2, 0.9),
            interpolate_extrapolate(x, GRID, 3, alpha),
            band_select(x, x[..., 0], 9, highest=True),
        ]

    assert_compiles(pooled, tokens(), torch.tensor([0.8, 1.2]))


def test_scores_compile() -> None:
    assert_compiles(lambda x: [score(x, GRID, kind) for kind in SCORES], tokens())
