"""Bipartite matching against loops over sources and destinations."""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bigain.operators import matching
from bigain.operators.assignment import Assignment, group_sizes, merge, unmerge
from bigain.operators.grid import Grid, cell_count, cell_index, cell_tokens
from bigain.operators.matching import destinations_by_score, limit, match

match_recovering = partial(match, recover=True)

Cell = tuple[int, int]
grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17))
cells = st.tuples(st.integers(1, 4), st.integers(1, 3))
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)


def destinations_first(grid: Grid, cell: Cell, batch: int) -> Tensor:
    return cell_tokens(grid, cell).expand(batch, -1)


def tokens(seed: int, batch: int, count: int) -> Tensor:
    return torch.randn(batch, count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(row: Tensor) -> list[list[float]]:
    unit = [[value / math.hypot(*token) for value in token] for token in row.tolist()]
    return [[sum(p * q for p, q in zip(a, b, strict=True)) for b in unit] for a in unit]


def match_by_loop(
    similarity: list[list[float]], destinations: list[int], merged: int, recover: bool
) -> tuple[dict[int, int], list[int]]:
    """The token that stands for each token, and the kept tokens in the order of their groups."""
    sources = [token for token in range(len(similarity)) if token not in destinations]
    best = {source: max(destinations, key=lambda other: similarity[source][other]) for source in sources}
    going = sorted(sources, key=lambda source: -similarity[source][best[source]])[:merged]
    kept = [source for source in sources if source not in going] + destinations
    stands_for = {token: token for token in kept}
    for source in going:
        choice = kept if recover else destinations
        stands_for[source] = max(choice, key=lambda other: similarity[source][other])
    return stands_for, kept


def assert_as_by_loop(
    assignment: Assignment,
    similarity: list[list[list[float]]],
    destinations: Tensor,
    merged: list[int],
    recover: bool = False,
) -> None:
    batch, count = assignment.index.shape
    assert assignment.groups == count - min(merged)
    assert assignment.padded == (len(set(merged)) > 1)
    for row in range(batch):
        places = destinations[row].tolist()
        stands_for, kept = match_by_loop(similarity[row], places, merged[row], recover)
        empty = merged[row] - min(merged)
        unmerged = len(kept) - len(places)
        occupied = [*range(unmerged), *range(unmerged + empty, assignment.groups)]
        assert assignment.kept[row, occupied].tolist() == kept
        assert {t: int(assignment.kept[row, assignment.index[row, t]]) for t in range(count)} == stands_for
        assert set(assignment.index[row].tolist()) == set(occupied)
        assert 0 <= int(assignment.kept[row].min()) <= int(assignment.kept[row].max()) < count


@settings(max_examples=30, deadline=None)
@given(seeds, batches, grids, cells, st.booleans())
def test_destinations_are_the_extremes_of_their_cells(
    seed: int, batch: int, grid: Grid, cell: Cell, lowest: bool
) -> None:
    score = torch.randint(6, (batch, grid.tokens), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    destinations = destinations_by_score(score, grid, cell, lowest)
    first = destinations_first(grid, cell, batch)
    assert destinations.shape == first.shape == (batch, cell_count(grid, cell))
    assert limit(grid, cell) == grid.tokens - destinations.shape[1]
    cell_of = cell_index(grid, cell).tolist()
    for row in range(batch):
        values = score[row].tolist()
        for number in range(destinations.shape[1]):
            members = [token for token in range(grid.tokens) if cell_of[token] == number]
            extreme = (min if lowest else max)(members, key=lambda token: values[token])
            assert destinations[row, number] == extreme
            assert first[row, number] == members[0]


def test_infinite_scores_still_give_a_token_of_the_cell() -> None:
    grid = Grid(3, 3)  # with partial cells, filled up with infinities
    for score in (torch.full((1, 9), math.inf), torch.full((1, 9), -math.inf)):
        for lowest in (True, False):
            assert destinations_by_score(score, grid, (2, 2), lowest).tolist() == [[0, 2, 6, 8]]


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells, st.data())
def test_match_agrees_with_a_loop(seed: int, batch: int, grid: Grid, cell: Cell, data: st.DataObject) -> None:
    x = tokens(seed, batch, grid.tokens)
    destinations = destinations_by_score(x[..., 0], grid, cell)
    count = data.draw(st.integers(0, limit(grid, cell)))
    similarity = [cosines(row) for row in x]
    assert_as_by_loop(match(x, destinations, count), similarity, destinations, [count] * batch)
    counts = data.draw(st.lists(st.integers(0, limit(grid, cell)), min_size=batch, max_size=batch))
    assert_as_by_loop(match(x, destinations, torch.tensor(counts)), similarity, destinations, counts)


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells, st.data())
def test_recovery_agrees_with_a_loop(seed: int, batch: int, grid: Grid, cell: Cell, data: st.DataObject) -> None:
    x = tokens(seed, batch, grid.tokens)
    destinations = destinations_by_score(x[..., 0], grid, cell)
    count = data.draw(st.integers(0, limit(grid, cell)))
    assignment = match_recovering(x, destinations, count)
    similarity = [cosines(row) for row in x]
    assert_as_by_loop(assignment, similarity, destinations, [count] * batch, recover=True)
    restored = unmerge(merge(x, assignment, "prune"), assignment)
    assert torch.equal(restored.gather(1, assignment.kept[..., None].expand(-1, -1, 4)), merge(x, assignment, "prune"))
    counts = data.draw(st.lists(st.integers(0, limit(grid, cell)), min_size=batch, max_size=batch))
    assignment = match_recovering(x, destinations, torch.tensor(counts))
    assert_as_by_loop(assignment, similarity, destinations, counts, recover=True)


def test_match_agrees_with_a_loop_on_the_largest_grid() -> None:
    grid, cell = Grid(33, 17), (2, 2)
    x = tokens(7, 1, grid.tokens)
    destinations = destinations_first(grid, cell, 1)
    similarity = [cosines(x[0])]
    assert_as_by_loop(match(x, destinations, 300), similarity, destinations, [300])
    assert_as_by_loop(match_recovering(x, destinations, 300), similarity, destinations, [300], recover=True)


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells)
def test_merging_nothing_is_the_identity(seed: int, batch: int, grid: Grid, cell: Cell) -> None:
    x = tokens(seed, batch, grid.tokens)
    for make in (match, match_recovering):
        for none in (0, torch.zeros(batch, dtype=torch.int64)):
            assignment = make(x, destinations_first(grid, cell, batch), none)
            assert not assignment.padded
            assert torch.equal(unmerge(merge(x, assignment), assignment), x)


def test_no_token_is_recovered_from_an_empty_group() -> None:
    rng = torch.Generator().manual_seed(12)
    x = torch.randn(2, 1, 67, generator=rng) + 0.05 * torch.randn(2, 300, 67, generator=rng)
    x[:, 0] = x[:, 1:].mean(1)  # nearest to nearly all, and what fills the empty groups' places
    assignment = match_recovering(x, torch.tensor([[0, 299]] * 2), torch.tensor([40, 250]))
    occupied = group_sizes(assignment) > 0
    assert occupied.sum(1).tolist() == [260, 50]
    assert occupied[1].nonzero().flatten().tolist() == [*range(48), 258, 259]


def test_merging_the_limit_leaves_one_token_per_cell() -> None:
    grid, cell = Grid(5, 7), (2, 2)
    x = tokens(8, 2, 35)
    destinations = destinations_by_score(x[..., 0], grid, cell)
    assignment = match(x, destinations, limit(grid, cell))
    assert torch.equal(assignment.kept, destinations)
    assert group_sizes(assignment).sum(1).tolist() == [35.0, 35.0]


@pytest.mark.parametrize("make", [match, match_recovering])
def test_blocks_change_no_assignment(make: type[match], monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(9, 11)
    x = torch.randint(-1, 2, (3, grid.tokens, 3), generator=torch.Generator().manual_seed(4)).float()  # with ties
    destinations = destinations_by_score(x[..., 0], grid, (2, 2))
    for merged in (40, torch.tensor([10, 69, 40])):
        whole = make(x, destinations, merged)
        for block in (1, 50, 1000, 5000):  # less than a row of destinations, less than a sample, less than the batch
            monkeypatch.setattr(matching, "_BLOCK", block)
            parts = make(x, destinations, merged)
            assert torch.equal(whole.index, parts.index)
            assert torch.equal(whole.kept, parts.kept)
        monkeypatch.undo()


class Allocations(TorchDispatchMode):
    """The most bytes that live tensors made inside hold at once, views not counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def peak_bytes(make: type[match], side: int, batch: int) -> int:
    grid = Grid(side, side)
    x = torch.randn(batch, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    destinations = destinations_first(grid, (2, 2), batch)
    with Allocations() as seen:
        make(x, destinations, grid.tokens // 2)
    return seen.peak


@pytest.mark.parametrize("make", [match, match_recovering])
def test_no_matrix_of_all_pairs_is_ever_whole(make: type[match], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_BLOCK", 2**16)
    whole = 4 * 3072 * 1024 * 2  # bytes of the similarities of two rows of 64 x 64 tokens
    assert peak_bytes(make, 64, 2) < whole / 4


@pytest.mark.slow
@pytest.mark.parametrize("make", [match, match_recovering])
def test_65536_tokens_need_at_most_256_mib(make: type[match]) -> None:
    assert peak_bytes(make, 256, 1) < 256 * 2**20


def test_equal_similarities_merge_in_raster_order() -> None:
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view(1, 6, 1)  # one direction: every cosine is exactly 1
    assignment = match(x, torch.tensor([[0, 3]]), 2)
    assert assignment.index.tolist() == [[2, 2, 2, 3, 0, 1]]
    assert assignment.kept.tolist() == [[4, 5, 0, 3]]


@pytest.mark.parametrize("make", [match, match_recovering])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_matches_as_its_values_do_in_float32(make: type[match], dtype: torch.dtype) -> None:
    x = tokens(9, 2, 63).to(dtype)
    destinations = destinations_first(Grid(7, 9), (2, 2), 2)
    assert torch.equal(make(x, destinations, 30).index, make(x.float(), destinations, 30).index)


@pytest.mark.parametrize("make", [match, match_recovering])
def test_batch_agrees_with_its_rows_and_repeats_its_bits(make: type[match]) -> None:
    x = tokens(10, 3, 63)
    destinations = destinations_by_score(x[..., 0], Grid(7, 9), (2, 2))
    assignment = make(x, destinations, 30)
    assert torch.equal(assignment.index, make(x, destinations, 30).index)
    for row in range(3):
        alone = make(x[row : row + 1], destinations[row : row + 1], 30)
        assert torch.equal(alone.index, assignment.index[row : row + 1])
        assert torch.equal(alone.kept, assignment.kept[row : row + 1])


def test_zero_tokens_have_similarity_zero() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])[None]
    assert match(x, torch.tensor([[0]]), 1).index.tolist() == [[2, 0, 2, 1]]
    assert match(x, torch.tensor([[0]]), 2).index.tolist() == [[1, 1, 1, 0]]


def test_the_assignment_carries_no_gradient() -> None:
    x = tokens(11, 1, 12).requires_grad_()
    assignment = match(x, destinations_first(Grid(3, 4), (2, 2), 1), 6)
    unmerge(merge(x, assignment), assignment).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.ones_like(x))  # a group of n gives each member 1/n, n times


@pytest.mark.parametrize("make", [match, match_recovering])
def test_bad_inputs_are_named(make: type[match]) -> None:
    x, destinations = torch.ones(2, 12, 3), destinations_first(Grid(3, 4), (2, 2), 2)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], the most that can merge here, not 9"):
        make(x, destinations, 9)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], .* not -1"):
        make(x, destinations, -1)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], .* not values from 3 to 9"):
        make(x, destinations, torch.tensor([3, 9]))
    with pytest.raises(ValueError, match=r"features must be \(B, N, C\), not \(2, 12\)"):
        make(x[..., 0], destinations, 1)
    with pytest.raises(ValueError, match=r"destinations must .* with B = 2 and D in \[1, 12\], not \(1, 4\)"):
        make(x, destinations[:1], 1)
    with pytest.raises(ValueError, match=r"score must be \(B, N\) with N = 3 x 4 = 12 tokens, not \(2, 11\)"):
        destinations_by_score(torch.zeros(2, 11), Grid(3, 4), (2, 2))
