"""Keys and values from the tokens of highest or lowest frequency."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bigain
from bigain.methods import Context
from bigain.operators.frequency import score
from bigain.operators.grid import Grid


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["high", "low"]))
def test_the_tokens_of_extreme_score_are_kept_in_raster_order(
    height: int, width: int, factor: int, batch: int, keep: str
) -> None:
    grid, factor = Grid(height, width), min(factor, max(height, width))
    x = torch.randn(batch, grid.tokens, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(height))
    pooled = bigain.FrequencySelection(factor=factor, keep=keep).pool(x, Context(grid))
    count = math.ceil(height / factor) * math.ceil(width / factor)
    scores = score(x, grid, "laplacian_l1").tolist()
    for row, values in enumerate(scores):
        sign = -1 if keep == "high" else 1
        best = sorted(range(len(values)), key=lambda token: (sign * values[token], token))[:count]
        assert torch.equal(pooled[row], x[row, sorted(best)])


def test_high_keeps_an_edge_and_low_the_flat_ground() -> None:
    x = torch.zeros(1, 64, 1)
    x[0, 27] = 1.0  # one bright token: itself and its neighbours have detail
    high = bigain.FrequencySelection(factor=4, keep="high").pool(x, Context(Grid(8, 8)))
    low = bigain.FrequencySelection(factor=4, keep="low").pool(x, Context(Grid(8, 8)))
    assert high.max() == 1
    assert low.max() == 0


def test_factor_1_keeps_everything_as_it_is() -> None:
    x = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bigain.FrequencySelection(factor=1).pool(x, Context(Grid(3, 4))), x)


def test_the_name_reads_back() -> None:
    from bigain.methods import parse, spec

    method = bigain.FrequencySelection(factor=3, keep="low", score="cosine_mean")
    assert spec(method) == "freqsel:factor=3,keep=low,score=cosine_mean"
    assert parse(spec(method)) == (method,)
    with pytest.raises(ValueError, match="keep must be one of"):
        parse("freqsel:keep=all")
