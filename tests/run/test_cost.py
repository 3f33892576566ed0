"""Costs: FLOPs against the formula, and times that are taken in turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from bigain.backbones.application import session_of
from bigain.diffusion import ClassConditional, open_model
from bigain.run import cost as timing

TOKENS, CHANNELS, LAYERS = 64, 16, 2


@pytest.fixture
def denoiser(families: Any) -> ClassConditional:
    return ClassConditional(model=families["dit"].build(), scheduler=DDIMScheduler())


@pytest.mark.parametrize("factor", [2, 3])
def test_downsampling_saves_the_keys_and_values_that_it_drops(denoiser: ClassConditional, factor: int) -> None:
    plain, less = timing.flops(denoiser, "none", 0), timing.flops(denoiser, f"todo-{factor}", 0)
    dropped = TOKENS - (-(-8 // factor)) ** 2
    projections = 2 * 2 * dropped * CHANNELS * CHANNELS
    attention = 2 * 2 * TOKENS * dropped * CHANNELS
    assert plain - less == LAYERS * (projections + attention)


def test_what_is_saved_is_saved_in_the_blocks_that_are_compressed(denoiser: ClassConditional) -> None:
    plain, blocks = timing.count_flops(denoiser, "none", 0)
    less, compressed = timing.count_flops(denoiser, "todo:factor=2,layers=1", 0)
    assert len(blocks) == LAYERS
    assert sum(blocks) < plain
    assert compressed[0] == blocks[0]
    assert blocks[1] - compressed[1] == plain - less > 0
    _, half = timing.count_flops(denoiser, "todo:factor=2,layers=1,timesteps=0-499", 0)
    assert half[1] == pytest.approx((blocks[1] + compressed[1]) / 2, abs=1)


def test_what_a_range_saves_counts_by_the_timesteps_of_the_classifier(flows: dict[str, Any]) -> None:
    flow = flows["flux"]
    denoiser = open_model(flow.build(), **flow.sizes)
    plain, whole, high = (
        timing.count_flops(denoiser, f"{method}", denoiser.any_condition, "scheduler")[0]
        for method in ("none", "avgpool:factor=2", "avgpool:factor=2,timesteps=500-1000")
    )
    taken = timing.usual_timesteps(denoiser, "scheduler")
    share = float((taken >= 500).double().mean())
    assert share > 0.5
    assert plain - high == pytest.approx(share * (plain - whole), abs=1)
    assert timing.flops(denoiser, "avgpool:factor=2,timesteps=500-1000", denoiser.any_condition) > high


def test_a_scheduled_ratio_is_averaged_over_timesteps(denoiser: ClassConditional) -> None:
    low, high, between = (timing.flops(denoiser, f"abm:ratio={ratio}", 0) for ratio in ("0.3", "0.6", "0.3>0.6"))
    assert high < between < low


def test_counting_leaves_the_model_as_it_was(denoiser: ClassConditional) -> None:
    timing.flops(denoiser, "lgtm-0.5", 0)
    assert session_of(denoiser.model) is None


def test_methods_are_timed_in_turns_after_warming_up(
    denoiser: ClassConditional, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = denoiser.predict

    def predict(*args: Any) -> torch.Tensor:
        session = session_of(denoiser.model)
        seen.append("none" if session is None else "todo-2")
        return plain(*args)

    monkeypatch.setattr(denoiser, "predict", predict)
    visits = []
    times = timing.measure(denoiser, ["none", "todo-2"], 0, batch_size=3, rounds=2, done=lambda: visits.append(1))
    assert seen == ["none", "none", "todo-2", "todo-2"] * 2
    assert {spec: len(values) for spec, values in times.items()} == {"none": 2, "todo-2": 2}
    assert all(value > 0 for values in times.values() for value in values)
    assert len(visits) == 4


def test_an_environment_says_where_it_is(denoiser: ClassConditional) -> None:
    found = timing.environment(denoiser.device, {"dtype": "float32"})
    assert (found["device"], found["threads"], found["dtype"]) == ("cpu", torch.get_num_threads(), "float32")
