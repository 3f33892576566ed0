from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bigain.metrics.distribution import fid
from bigain.metrics.statistics import Statistics


def features(seed: int, count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(seed, 1 + seed, (count, 6)) @ rng.normal(size=(6, 6))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_the_distance_is_that_of_the_features(batch, tmp_path):
    sets = []
    for seed in (0, 1):
        own = features(seed)
        statistics = Statistics.of("toy", (own[first : first + batch] for first in range(0, 60, batch)))
        statistics.write(tmp_path / f"{seed}.safetensors")
        sets.append(Statistics.read(tmp_path / f"{seed}.safetensors"))
    assert (sets[0].network, sets[0].count) == ("toy", 60)
    assert sets[0].fid(sets[1]) == pytest.approx(fid(features(0), features(1)), rel=1e-6)
    assert sets[0].fid(sets[0]) == pytest.approx(0, abs=1e-6)


def test_sets_of_another_network_and_small_or_broken_ones_are_refused():
    one = Statistics.of("toy", [features(0)])
    with pytest.raises(ValueError, match="both sets must have features of 'toy', not one of 'other'"):
        one.fid(Statistics.of("other", [features(1)]))
    with pytest.raises(ValueError, match="images must be at least 2, not 1"):
        Statistics.of("toy", [features(0, 1)])
    with pytest.raises(ValueError, match="features of toy must be finite"):
        Statistics.of("toy", [features(0) * np.nan])


@pytest.mark.parametrize("content", ["text", "foreign"])
def test_another_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "other.safetensors"
    if content == "text":
        path.write_text("no tensors")
    else:
        save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors must hold statistics of bigain fid"):
        Statistics.read(path)
