"""A classifier under methods of a range of t: every timestep is evaluated as its range says, in full batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bigain
from bigain.classify import DiffusionClassifier
from bigain.diffusion import open_model
from bigain.run.cost import flops, measure

RANGED = "todo:factor=2,timesteps=300-600+avgpool:factor=4,timesteps=600-1000"


@pytest.mark.parametrize("elimination", ["staged", "racing"])
def test_each_timestep_is_evaluated_under_what_acts_there(tiny_model: Path, elimination: str) -> None:
    denoiser = open_model(str(tiny_model))
    stages = {"n_samples": (5,)} if elimination == "racing" else {"to_keep": (3, 1), "n_samples": (2, 5)}
    classifier = DiffusionClassifier(denoiser, range(10), elimination=elimination, batch_size=8, **stages)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    everything = DiffusionClassifier(denoiser, range(10), to_keep=(1,), n_samples=(5,), batch_size=8)
    expected = {}
    for name in ("none", "todo-2", "avgpool-4"):
        with bigain.compressed(denoiser.model, name):
            expected[name] = np.stack([one.errors for one in everything.predict(images, ["a", "b", "c"])])
    rows: list[int] = []
    denoiser.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    with bigain.compressed(denoiser.model, RANGED):
        found = classifier.predict(images, ["a", "b", "c"])
    assert classifier.timesteps.tolist() == [100, 300, 500, 700, 900]
    for image, one in enumerate(found):
        for position, name in enumerate(("none", "none", "todo-2", "avgpool-4", "avgpool-4")):
            done = np.isfinite(one.errors[:, position])
            want = expected[name][image, done, position]
            np.testing.assert_allclose(one.errors[done, position], want, rtol=1e-5)
    assert sum(rows) == sum(one.forwards for one in found)
    if elimination == "staged":  # the first stage: two timesteps of 10 classes and 3 images, each in its range
        assert rows[:8] == [8, 8, 8, 6, 8, 8, 8, 6]


def test_flops_and_times_are_means_over_the_timesteps(tiny_model: Path) -> None:
    denoiser = open_model(str(tiny_model))
    plain, todo, mean = (flops(denoiser, name, 0) for name in ("none", "todo-2", "avgpool-4"))
    # t = 0 to 300 without, 301 to 600, 601 to 999
    assert flops(denoiser, RANGED, 0) == pytest.approx(0.301 * plain + 0.3 * todo + 0.399 * mean, abs=1)
    seen: list[list[float]] = []
    denoiser.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["timestep"].tolist()), with_kwargs=True
    )
    times = measure(denoiser, [RANGED], 0, batch_size=4, rounds=1)
    assert len(times[RANGED]) == 1
    assert [sorted({*one}) for one in seen] == [[125], [125], [375], [375], [625, 875], [625, 875]]
    assert all(len(one) == 4 for one in seen)
