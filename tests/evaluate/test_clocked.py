"""What offers save in time, with a clock that counts tokens; and that times which do not compare are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigain.backbones.families import layout
from bigain.diffusion import Denoiser, open_model
from bigain.evaluate import Clocked, Offer, Settings, allocate, clock_offers

Make = Callable[..., Settings]
OFFERS = tuple(
    Offer(layer, f"{name},layers={layer}", 100, 0.1, 0.1)
    for layer in (0, 1)
    for name in ("todo:factor=2", "todo:factor=4", "tome:ratio=0.5")
)


@pytest.fixture
def denoiser(tiny_settings: Make) -> Denoiser:
    return open_model(tiny_settings().model)


class TokenClock:
    """Goes on by one second for every token whose key is projected, twice as much in layer 1."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.now = 0.0
        for number, layer in enumerate(layout(denoiser.model).layers):
            layer.block.attn1.to_k.register_forward_hook(
                lambda _, inputs, __, seconds=number + 1: self.tick(seconds * inputs[0].shape[1])
            )

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def clocked(denoiser: Denoiser, path: Path | None = None, **changed: Any) -> Clocked:
    given: dict[str, Any] = {"dtype": "float32", "batch_size": 2, "rounds": 2, "clock": TokenClock(denoiser)}
    given |= changed
    return clock_offers(denoiser, given.pop("offers", OFFERS), path, **given)


def test_each_layer_is_clocked_alone(denoiser: Denoiser) -> None:
    tokens = (denoiser.sample_shape[-1] // layout(denoiser.model).model.config.patch_size) ** 2
    found = clocked(denoiser)
    assert found.forward == tokens * (1 + 2)
    for layer in (0, 1):
        of_layer = {offer.method.split(",")[0]: found.saved[offer.method] for offer in OFFERS if offer.layer == layer}
        expected = {"todo:factor=2": tokens * 3 / 4, "todo:factor=4": tokens * 15 / 16, "tome:ratio=0.5": tokens / 2}
        assert of_layer == {name: (layer + 1) * seconds for name, seconds in expected.items()}


def test_nothing_stays_on_the_model(denoiser: Denoiser) -> None:
    clocked(denoiser, clock=lambda: 0.0)
    for layer in layout(denoiser.model).layers:
        assert not layer.block._forward_pre_hooks
        assert not layer.block._forward_hooks


def test_the_least_cost_for_a_time_is_chosen(denoiser: Denoiser) -> None:
    found = clocked(denoiser)
    costs = (0.1, 0.5, 0.3, 0.2, 1.0, 0.6)
    offers = tuple(replace(offer, change=cost) for offer, cost in zip(OFFERS, costs, strict=True))
    chosen = allocate(found.in_time(offers), found.saving(offers, 1.8), 0)
    # A forward takes 3 N; 4/9 of that, 1.33 N, is less than the 1.5 N of layer 1's todo-2, the cheapest way to it.
    assert [offer.method for offer in chosen.offers] == ["todo:factor=2,layers=1"]


def test_what_cannot_be_reached_is_refused_with_what_can(denoiser: Denoiser) -> None:
    with pytest.raises(ValueError, match=r"a speed-up of 20 cannot be reached: .* come to 16 times as fast, in .* 2"):
        clocked(denoiser).saving(OFFERS, 20)
    still = clocked(denoiser, clock=iter(range(10**6)).__next__)
    with pytest.raises(ValueError, match="come to 1 times as fast"):
        still.saving(OFFERS, 1.01)
    with pytest.raises(ValueError, match="the speed-up must be above 1, not 1"):
        still.saving(OFFERS, 1.0)


def test_times_are_kept_and_measured_again_as_a_whole(denoiser: Denoiser, tmp_path: Path) -> None:
    path = tmp_path / "run" / "times.json"
    steps: list[tuple[int, int]] = []
    first = clocked(denoiser, path, offers=OFFERS[:2], counted=lambda done, of: steps.append((done, of)))
    assert steps[-1] == (12, 12)  # two candidates, three rounds, two forwards
    assert clocked(denoiser, path, offers=OFFERS[:1], clock=lambda: 1 / 0) == first
    assert {*clocked(denoiser, path).saved} == {offer.method for offer in OFFERS}


@pytest.mark.parametrize("changed", [{"dtype": "bfloat16"}, {"batch_size": 3}, {"rounds": 1}])
def test_times_that_do_not_compare_are_refused(denoiser: Denoiser, tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "times.json"
    clocked(denoiser, path)
    with pytest.raises(ValueError, match=f"times that do not compare: {next(iter(changed))}.*Delete it"):
        clocked(denoiser, path, **changed)


@pytest.mark.parametrize("content", ["no json", "[]", json.dumps({"format": "bigain offer timings 1", "saved": {}})])
def test_another_file_is_refused(denoiser: Denoiser, tmp_path: Path, content: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"times\.json is no (whole )?file of times"):
        clocked(denoiser, path)


@pytest.mark.parametrize(
    ("changed", "words"), [({"offers": ()}, "no offers"), ({"rounds": 0}, "rounds"), ({"batch_size": 0}, "batch_size")]
)
def test_nothing_to_time_is_an_error(denoiser: Denoiser, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clocked(denoiser, **changed)
