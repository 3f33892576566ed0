"""Merging and un-merging against loops over tokens and groups."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigain.operators.assignment import (
    MODES,
    Assignment,
    by_representative,
    group_sizes,
    key_bias,
    merge,
    merged_bounds,
    unmerge,
)

seeds = st.integers(0, 2**31)
batches = st.integers(1, 3)
tokens_on_grids = st.builds(lambda height, width: height * width, st.integers(1, 33), st.integers(1, 17))


def random_assignment(rng: torch.Generator, batch: int, tokens: int, padded: bool = False) -> Assignment:
    """Groups in random order; every group has members, or, if padded, some have none."""
    groups = int(torch.randint(1, tokens + 1, (), generator=rng))
    index = torch.randint(groups, (batch, tokens), generator=rng)
    kept = torch.zeros(batch, groups, dtype=torch.int64)
    for row in range(batch):
        place = torch.randperm(tokens, generator=rng)
        if not padded:
            index[row, place[:groups]] = torch.arange(groups)
        member = {group: token for token, group in enumerate(index[row].tolist())}
        kept[row] = torch.tensor([member.get(group, int(place[0])) for group in range(groups)])
    return Assignment(index, kept, padded)


def merge_by_loop(x: Tensor, assignment: Assignment, mode: str) -> Tensor:
    batch, _, channels = x.shape
    merged = [[[0.0] * channels for _ in range(assignment.groups)] for _ in range(batch)]
    for row, values in enumerate(x.tolist()):
        members: list[list[list[float]]] = [[] for _ in range(assignment.groups)]
        for token, group in enumerate(assignment.index[row].tolist()):
            members[group].append(values[token])
        for group, in_group in enumerate(members):
            if not in_group:
                continue
            mean = [sum(channel) / len(in_group) for channel in zip(*in_group, strict=True)]
            if mode == "mean":
                merged[row][group] = mean
            elif mode == "prune":
                merged[row][group] = values[int(assignment.kept[row, group])]
            else:
                largest = max(math.hypot(*member) for member in in_group)
                merged[row][group] = [value / math.hypot(*mean) * largest for value in mean]
    return torch.tensor(merged, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seeds, batches, tokens_on_grids, st.booleans(), st.sampled_from(MODES))
def test_merge_agrees_with_a_loop(seed: int, batch: int, tokens: int, padded: bool, mode: str) -> None:
    rng = torch.Generator().manual_seed(seed)
    assignment = random_assignment(rng, batch, tokens, padded)
    x = torch.randn(batch, tokens, 3, generator=rng, dtype=torch.float64)
    merged = merge(x, assignment, mode)  # type: ignore[arg-type]
    torch.testing.assert_close(merged, merge_by_loop(x, assignment, mode), rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, batches, tokens_on_grids, st.booleans())
def test_sizes_mean_and_unmerge(seed: int, batch: int, tokens: int, padded: bool) -> None:
    rng = torch.Generator().manual_seed(seed)
    assignment = random_assignment(rng, batch, tokens, padded)
    x = torch.randn(batch, tokens, 3, generator=rng, dtype=torch.float64)
    sizes = group_sizes(assignment)
    assert sizes.dtype == torch.float32
    index = assignment.index.tolist()
    assert sizes.tolist() == [[float(row.count(group)) for group in range(assignment.groups)] for row in index]
    merged = merge(x, assignment)
    torch.testing.assert_close((merged * sizes[..., None]).sum(1), x.sum(1), rtol=1e-10, atol=1e-10)
    restored, by_group, original = unmerge(merged, assignment).tolist(), merged.tolist(), x.tolist()
    for row in range(batch):
        for token, group in enumerate(index[row]):
            assert restored[row][token] == by_group[row][group]
            if index[row].count(group) == 1:
                assert restored[row][token] == original[row][token]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_dtype_is_kept_and_sums_are_wide(dtype: torch.dtype, mode: str) -> None:
    # a running sum of ones sticks at 256 in bfloat16 and at 2048 in float16
    everything = Assignment(torch.zeros(1, 4000, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64))
    merged = merge(torch.ones(1, 4000, 1, dtype=dtype), everything, mode)  # type: ignore[arg-type]
    assert merged.dtype == dtype
    assert merged.item() == 1.0
    assert unmerge(merged, everything).dtype == dtype


def test_sums_do_not_overflow_in_float16() -> None:
    pair = Assignment(torch.tensor([[0, 0]]), torch.tensor([[1]]))
    x = torch.full((1, 2, 1), 60_000.0, dtype=torch.float16)
    for mode in MODES:
        assert merge(x, pair, mode).item() == x[0, 0].item()  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_batch_agrees_with_its_rows_and_repeats_its_bits(mode: str) -> None:
    rng = torch.Generator().manual_seed(1)
    assignment = random_assignment(rng, 3, 60)
    x = torch.randn(3, 60, 5, generator=rng)
    merged = merge(x, assignment, mode)  # type: ignore[arg-type]
    assert torch.equal(merged, merge(x, assignment, mode))  # type: ignore[arg-type]
    for row in range(3):
        alone = Assignment(assignment.index[row : row + 1], assignment.kept[row : row + 1])
        assert torch.equal(merged[row : row + 1], merge(x[row : row + 1], alone, mode))  # type: ignore[arg-type]


def test_mlerp_of_opposite_tokens_is_zero_and_counts_the_destination() -> None:
    pair = Assignment(torch.tensor([[0, 0]]), torch.tensor([[1]]))
    assert merge(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]), pair, "mlerp").tolist() == [[[0.0, 0.0]]]
    destination_is_longest = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])
    merged = merge(destination_is_longest, pair, "mlerp")
    assert merged.tolist() == [[[3.0, 0.0]]]


def test_proportional_attention_equals_attention_over_repeated_keys() -> None:
    rng = torch.Generator().manual_seed(2)
    assignment = random_assignment(rng, 2, 40, padded=True)
    x = torch.randn(2, 40, 4, generator=rng, dtype=torch.float64)
    keys = merge(x, assignment)
    bias = key_bias(assignment, size_aware=True)
    assert bias is not None
    assert bias.shape == (2, 1, assignment.groups)
    assert (group_sizes(assignment) == 0).any()
    merged = torch.softmax(x @ keys.mT + bias, dim=-1) @ keys
    repeated = unmerge(keys, assignment)
    torch.testing.assert_close(merged, torch.softmax(x @ repeated.mT, dim=-1) @ repeated)


def test_key_bias_masks_empty_groups_and_nothing_else() -> None:
    index, kept = torch.tensor([[0, 2, 2], [0, 1, 2]]), torch.tensor([[0, 0, 1], [0, 1, 2]])
    full = Assignment(index[1:], kept[1:])
    assert key_bias(full, size_aware=False) is None
    bias = key_bias(Assignment(index, kept, padded=True), size_aware=False)
    assert bias is not None
    assert bias.tolist() == [[[0.0, -math.inf, 0.0]], [[0.0, 0.0, 0.0]]]


def test_bad_inputs_are_named() -> None:
    assignment = Assignment(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="mode must be one of mean, mlerp, prune, not 'median'"):
        merge(torch.zeros(2, 5, 3), assignment, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 5\) as the assignment's index, not \(2, 4, 3\)"):
        merge(torch.zeros(2, 4, 3), assignment)
    with pytest.raises(ValueError, match=r"\(2, 1\) as the assignment's groups, not \(2, 5, 3\)"):
        unmerge(torch.zeros(2, 5, 3), assignment)
    with pytest.raises(ValueError, match=r"number of groups must lie in \[1, 5\] \(tokens\), not 6"):
        Assignment(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be int64, not torch\.int32"):
        Assignment(torch.zeros(2, 5, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be \(B, N\) and \(B, M\), not \(2, 5\) and \(3, 1\)"):
        Assignment(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        (-1, r"merged must lie in \[0, 7\].*not -1"),
        (8, r"merged must lie in \[0, 7\].*not 8"),
        (torch.tensor([2, 9]), r"merged must lie in \[0, 7\].*not values from 2 to 9"),
        (torch.tensor([2, 3, 4]), r"merged must be an int or \(2,\) integers, not \(3,\)"),
        (torch.tensor([0.5, 0.5]), r"merged must be an int or \(2,\) integers, not .*float32"),
        (0.5, r"merged must be an int or \(2,\) integers, not 0.5"),
    ],
)
def test_merged_outside_of_its_limit_is_named(merged: int | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merged_bounds(merged, 2, 7)


def test_tokens_that_one_token_stands_for_are_a_group() -> None:
    assignment = by_representative(torch.tensor([[0, 0, 2, 2, 0], [0, 3, 2, 3, 4]]), 4, padded=True)
    assert assignment.index.tolist() == [[0, 0, 1, 1, 0], [0, 2, 1, 2, 3]]
    assert assignment.kept.tolist() == [[0, 2, 0, 0], [0, 2, 3, 4]]
    assert group_sizes(assignment).tolist() == [[3, 2, 0, 0], [1, 1, 2, 1]]
