"""Bipartite matching against loops over sources and destinations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigain.operators.assignment import Assignment, group_sizes, merge, unmerge
from bigain.operators.grid import Grid, cell_count, cell_index
from bigain.operators.matching import (
    destinations_at,
    destinations_by_score,
    destinations_first,
    limit,
    match,
    mix_keys,
    places_farthest_first,
    random_scores,
    recover_most_similar,
)

Cell = tuple[int, int]
grids = st.builds(Grid, st.integers(1, 33), st.integers(1, 17))
cells = st.tuples(st.integers(1, 4), st.integers(1, 3))
seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)


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
    first = destinations_first(grid, cell, batch, None)
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
    assignment = recover_most_similar(x, destinations, count)
    similarity = [cosines(row) for row in x]
    assert_as_by_loop(assignment, similarity, destinations, [count] * batch, recover=True)
    restored = unmerge(merge(x, assignment, "prune"), assignment)
    assert torch.equal(restored.gather(1, assignment.kept[..., None].expand(-1, -1, 4)), merge(x, assignment, "prune"))
    counts = data.draw(st.lists(st.integers(0, limit(grid, cell)), min_size=batch, max_size=batch))
    assignment = recover_most_similar(x, destinations, torch.tensor(counts))
    assert_as_by_loop(assignment, similarity, destinations, counts, recover=True)


def test_match_agrees_with_a_loop_on_the_largest_grid() -> None:
    grid, cell = Grid(33, 17), (2, 2)
    x = tokens(7, 1, grid.tokens)
    destinations = destinations_first(grid, cell, 1)
    similarity = [cosines(x[0])]
    assert_as_by_loop(match(x, destinations, 300), similarity, destinations, [300])
    assert_as_by_loop(recover_most_similar(x, destinations, 300), similarity, destinations, [300], recover=True)


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells)
def test_merging_nothing_is_the_identity(seed: int, batch: int, grid: Grid, cell: Cell) -> None:
    x = tokens(seed, batch, grid.tokens)
    for make in (match, recover_most_similar):
        for none in (0, torch.zeros(batch, dtype=torch.int64)):
            assignment = make(x, destinations_first(grid, cell, batch), none)
            assert not assignment.padded
            assert torch.equal(unmerge(merge(x, assignment), assignment), x)


def test_no_token_is_recovered_from_an_empty_group() -> None:
    rng = torch.Generator().manual_seed(12)
    x = torch.randn(2, 1, 67, generator=rng) + 0.05 * torch.randn(2, 300, 67, generator=rng)
    x[:, 0] = x[:, 1:].mean(1)  # nearest to nearly all, and what fills the empty groups' places
    assignment = recover_most_similar(x, torch.tensor([[0, 299]] * 2), torch.tensor([40, 250]))
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


@settings(max_examples=15, deadline=None)
@given(seeds, batches, grids, cells, st.sampled_from([0.0, 0.3, 2.0]), st.data())
def test_gated_matching_agrees_with_a_loop(
    seed: int, batch: int, grid: Grid, cell: Cell, gate: float, data: st.DataObject
) -> None:
    x = tokens(seed, batch, grid.tokens)
    score = (4 * x[..., 1]).round()  # with ties
    destinations = destinations_by_score(x[..., 0], grid, cell)
    protected = data.draw(st.integers(0, limit(grid, cell)))
    most = limit(grid, cell) - protected
    counts = data.draw(st.lists(st.integers(0, most), min_size=batch, max_size=batch))
    assignment = match(x, destinations, torch.tensor(counts), score=score, gate=gate, protected=protected)
    for row in range(batch):
        places = destinations[row].tolist()
        sources = [token for token in range(grid.tokens) if token not in places]
        by_score = sorted(sources, key=lambda token: float(score[row, token]))
        similarity = cosines(x[row])
        best = {source: max(places, key=lambda other: similarity[source][other]) for source in sources}
        value = {
            source: similarity[source][best[source]] - gate * rank / max(len(sources) - 1, 1)
            for rank, source in enumerate(by_score)
        }
        free = [source for source in sources if source in by_score[: len(sources) - protected]]
        going = sorted(free, key=lambda source: -value[source])[: counts[row]]
        stands_for = {token: best[token] if token in going else token for token in range(grid.tokens)}
        assert {t: int(assignment.kept[row, assignment.index[row, t]]) for t in range(grid.tokens)} == stands_for


def test_no_gate_changes_no_bit() -> None:
    x = tokens(13, 2, 63).float()
    destinations = destinations_first(Grid(7, 9), (2, 2), 2)
    plain, idle = match(x, destinations, 30), match(x, destinations, 30, score=x[..., 0], gate=0.0, protected=0)
    assert torch.equal(plain.index, idle.index)
    assert torch.equal(plain.kept, idle.kept)


def test_a_gate_needs_a_score_and_protection_lowers_the_limit() -> None:
    x, destinations = torch.ones(2, 12, 3), destinations_first(Grid(3, 4), (2, 2), 2)
    with pytest.raises(ValueError, match=r"gate and protected need a score of shape \(2, 12\), got none"):
        match(x, destinations, 1, gate=0.1)
    with pytest.raises(ValueError, match=r"gate and protected need a score of shape \(2, 12\), got shape \(2, 8\)"):
        match(x, destinations, 1, protected=1, score=x[:, :8, 0])
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 5\], the most that can merge here, got 6"):
        match(x, destinations, 6, protected=3, score=x[..., 0])
    with pytest.raises(ValueError, match=r"protected must lie in \[0, 8\], the number of sources, got 9"):
        match(x, destinations, 0, protected=9, score=x[..., 0])


@settings(max_examples=25, deadline=None)
@given(grids, cells)
def test_a_place_is_taken_in_every_cell_that_has_it_and_else_the_nearest(grid: Grid, cell: Cell) -> None:
    cell_of = cell_index(grid, cell).tolist()
    seen = set()
    for place in places_farthest_first(cell):
        found = destinations_at(grid, cell, place, 2)
        assert found.shape == (2, cell_count(grid, cell))
        for number, token in enumerate(found[1].tolist()):
            members = [t for t in range(grid.tokens) if cell_of[t] == number]
            first = members[0]

            def distance(t: int, first: int = first, place: tuple[int, int] = place) -> int:
                row, column = t // grid.width - first // grid.width, t % grid.width - first % grid.width
                return (row - place[0]) ** 2 + (column - place[1]) ** 2

            assert token in members
            assert distance(token) == min(map(distance, members))
            seen.add(token)
    assert seen == set(range(grid.tokens))


def test_places_go_to_the_farthest_first() -> None:
    assert places_farthest_first((2, 2)) == ((0, 0), (1, 1), (0, 1), (1, 0))
    assert places_farthest_first((1, 4)) == ((0, 0), (0, 3), (0, 1), (0, 2))
    for cell in ((1, 1), (2, 3), (4, 4)):
        assert sorted(places_farthest_first(cell)) == [
            (row, column) for row in range(cell[0]) for column in range(cell[1])
        ]
    with pytest.raises(ValueError, match=r"place must lie in a cell of 2 x 2, got \(0, 2\)"):
        destinations_at(Grid(4, 4), (2, 2), (0, 2), 1)


def test_equal_similarities_merge_in_raster_order() -> None:
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view(1, 6, 1)  # one direction: every cosine is exactly 1
    assignment = match(x, torch.tensor([[0, 3]]), 2)
    assert assignment.index.tolist() == [[2, 2, 2, 3, 0, 1]]
    assert assignment.kept.tolist() == [[4, 5, 0, 3]]


@pytest.mark.parametrize("make", [match, recover_most_similar])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_matches_as_its_values_do_in_float32(make: type[match], dtype: torch.dtype) -> None:
    x = tokens(9, 2, 63).to(dtype)
    destinations = destinations_first(Grid(7, 9), (2, 2), 2)
    assert torch.equal(make(x, destinations, 30).index, make(x.float(), destinations, 30).index)


@pytest.mark.parametrize("make", [match, recover_most_similar])
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


@pytest.mark.parametrize("make", [match, recover_most_similar])
def test_bad_inputs_are_named(make: type[match]) -> None:
    x, destinations = torch.ones(2, 12, 3), destinations_first(Grid(3, 4), (2, 2), 2)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], the most that can merge here, got 9"):
        make(x, destinations, 9)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], .* got -1"):
        make(x, destinations, -1)
    with pytest.raises(ValueError, match=r"merged must lie in \[0, 8\], .* got values from 3 to 9"):
        make(x, destinations, torch.tensor([3, 9]))
    with pytest.raises(ValueError, match=r"features must be \(B, N, C\), got shape \(2, 12\)"):
        make(x[..., 0], destinations, 1)
    with pytest.raises(ValueError, match=r"destinations must .* with B = 2 and D in \[1, 12\], got shape \(1, 4\)"):
        make(x, destinations[:1], 1)
    with pytest.raises(ValueError, match=r"score must be \(B, N\) with N = 3 x 4 = 12 tokens, got shape \(2, 11\)"):
        destinations_by_score(torch.zeros(2, 11), Grid(3, 4), (2, 2))


def mix_by_integers(value: int) -> int:
    """lowbias32, in unbounded integers."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ (value >> 16)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3), st.integers(1, 40))
def test_random_scores_agree_with_unbounded_integers(keys: list[int], count: int) -> None:
    scores = random_scores(torch.tensor(keys), count)
    assert scores.dtype == torch.float32
    for row, key in enumerate(keys):
        for token in range(count):
            counter = mix_by_integers((token + 0x9E3779B9) % 2**32)
            hashed = mix_by_integers(mix_by_integers(counter ^ key % 2**32) ^ key >> 32)
            assert scores[row, token].item() == (hashed >> 8) / 2**24


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_keys_from_integers_equal_keys_from_tensors(parts: list[int]) -> None:
    key = mix_keys(*parts)
    assert key.dtype == torch.int64
    assert key.dim() == 0
    assert key.item() >= 0
    assert mix_keys(*[torch.tensor([part]) for part in parts]).tolist() == [key.item()]
    assert mix_keys(parts[0], torch.tensor(parts)).tolist() == [mix_keys(parts[0], part).item() for part in parts]


def test_keys_and_scores_spread() -> None:
    parts = torch.arange(300)
    keys = mix_keys(7, parts[:, None], parts[None, :])
    assert keys.shape == (300, 300)
    assert keys.unique().numel() == 90_000  # the order of the parts matters: (1, 2) is not (2, 1)
    scores = random_scores(mix_keys(0, parts), 256)
    assert 0.0 <= float(scores.min()) < 1e-3
    assert 0.999 < float(scores.max()) < 1.0
    counts = torch.histc(scores, bins=16, min=0.0, max=1.0)
    chi_squared = float(((counts - 4800) ** 2 / 4800).sum())
    assert chi_squared < 40.0  # 15 degrees of freedom: p = 0.0005
    places = scores.view(300, 64, 4).argmax(2).flatten().bincount(minlength=4)
    assert float(((places - 4800) ** 2 / 4800).sum()) < 17.7  # 3 degrees of freedom: p = 0.0005
    assert abs(float(torch.corrcoef(scores).fill_diagonal_(0).abs().max())) < 0.35


def test_random_scores_depend_on_their_key_alone_and_touch_no_random_state() -> None:
    keys = mix_keys(3, torch.arange(5))
    before = torch.get_rng_state()
    scores = random_scores(keys, 20)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(scores[2:3], random_scores(keys[2:3], 20))
    assert torch.equal(scores[:, :7], random_scores(keys, 7))
    assert random_scores(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)


def test_bad_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"keys must be \(B,\) int64, got shape \(2,\) torch.float32"):
        random_scores(torch.zeros(2), 3)
    with pytest.raises(ValueError, match="tokens must be an integer >= 1, got 0"):
        random_scores(torch.zeros(2, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="at least 1 part, got 0"):
        mix_keys()
