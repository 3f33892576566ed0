"""What assignments of large grids allocate."""

from __future__ import annotations

import pytest
import torch

from bigain.methods import Compression, Context
from bigain.operators.grid import Grid
from bigain.run.bench import profiled

MOST = 256 * 2**20  # bytes beyond the input
LARGE = Grid(256, 256)  # 65,536 tokens


@pytest.mark.parametrize("spec", ["lgtm-0.5", "tome:ratio=0.5,destinations=random", "abm-0.5", "quadtree-0.5"])
def test_the_assignment_of_65536_tokens_takes_little_memory(spec: str) -> None:
    [method] = Compression.of(spec)
    x = torch.randn(1, LARGE.tokens, 64, generator=torch.Generator().manual_seed(0))
    _, peak = profiled(lambda: method.assign(x, Context(LARGE)), torch.device("cpu"))  # type: ignore[attr-defined]
    assert 0 < peak <= MOST
