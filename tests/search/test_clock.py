"""What offers save in time, with a clock that counts tokens; and that times which do not compare are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.search import clock as module
from bigain.search.clock import Clocked, clock_offers, kept_times
from bigain.search.knapsack import allocate
from bigain.search.offers import Offer

OFFERS = tuple(
    Offer(layer, f"{name},layers={layer}", 100, 0.1, 0.1)
    for layer in (0, 1)
    for name in ("todo:factor=2", "todo:factor=4", "tome:ratio=0.5")
)


class TokenClock:
    """Goes on by one second for every token whose key is projected, twice as much in layer 1."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.now = 0.0
        self.scale = 1.0
        for number, layer in enumerate(layout(denoiser.model).layers):
            layer.block.attn1.to_k.register_forward_hook(
                lambda _, inputs, __, seconds=number + 1: self.tick(seconds * inputs[0].shape[1])
            )

    def tick(self, seconds: float) -> None:
        self.now += self.scale * seconds

    def __call__(self) -> float:
        return self.now


def clocked(denoiser: Denoiser, path: Path | None = None, **changed: Any) -> Clocked:
    given: dict[str, Any] = {"dtype": "float32", "batch_size": 2, "rounds": 2, "clock": TokenClock(denoiser)}
    given |= changed
    with TemporaryDirectory() as folder:
        return clock_offers(denoiser, given.pop("offers", OFFERS), path or Path(folder, "times.json"), **given)


def test_each_layer_is_clocked_alone(denoiser: Denoiser) -> None:
    tokens = (denoiser.sample_shape[-1] // layout(denoiser.model).model.config.patch_size) ** 2
    found = clocked(denoiser)
    assert found.forward == tokens * (1 + 2)
    for layer in (0, 1):
        of_layer = {offer.method.split(",")[0]: found.saved[offer.method] for offer in OFFERS if offer.layer == layer}
        expected = {"todo:factor=2": tokens * 3 / 4, "todo:factor=4": tokens * 15 / 16, "tome:ratio=0.5": tokens / 2}
        assert of_layer == {name: (layer + 1) * seconds for name, seconds in expected.items()}


def test_the_median_of_paired_differences_counts_after_the_first_round(denoiser: Denoiser) -> None:
    scales = [100, 100, 100, 1, 3, 2, 2, 1, 5, 7, 2, 4, 0]  # of each visit: three candidates, four rounds
    clock = TokenClock(denoiser)
    clock.scale = scales[0]
    forwards = []
    denoiser.model.register_forward_hook(lambda *_: forwards.append(1))

    def counted(done: int, of: int) -> None:
        assert done == len(forwards)
        assert of == 2 * (len(scales) - 1)
        clock.scale = scales[done // 2]

    found = clocked(denoiser, clock=clock, rounds=3, counted=counted)
    base = clocked(denoiser)
    medians = {"todo:factor=2": 2, "todo:factor=4": 2, "tome:ratio=0.5": 4}  # of 1 2 7, 3 1 2 and 2 5 4
    for offer in OFFERS:
        assert found.saved[offer.method] == medians[offer.method.split(",")[0]] * base.saved[offer.method]
    assert found.forward == 2 * base.forward  # of all nine visits


def test_what_a_device_has_not_finished_counts_for_no_other_forward(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = clocked(denoiser)
    clock, pending = TokenClock(denoiser), []

    def finish(_: object) -> None:
        clock.now += sum(pending)
        pending.clear()

    monkeypatch.setattr(module, "synchronise", finish)
    denoiser.model.register_forward_hook(lambda *_: pending.append(1000))  # after the last block
    found = clocked(denoiser, clock=clock)
    assert found.forward == alone.forward + 1000
    assert found.saved == alone.saved


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
    with pytest.raises(ValueError, match=r"speed_up must be at most 16 .* in batches of 2, .*, not 20"):
        clocked(denoiser).saving(OFFERS, 20)
    still = clocked(denoiser, clock=iter(range(10**6)).__next__)
    with pytest.raises(
        ValueError,
        match=r"speed_up must be given up .* no candidate is faster than no compression in any layer.*, not 1.01",
    ):
        still.saving(OFFERS, 1.01)
    with pytest.raises(ValueError, match="speed_up must be above 1, not 1"):
        still.saving(OFFERS, 1.0)


def test_times_are_kept_and_measured_again_as_a_whole(denoiser: Denoiser, tmp_path: Path) -> None:
    path = tmp_path / "run" / "times.json"
    steps: list[tuple[int, int]] = []
    first = clocked(denoiser, path, offers=OFFERS[:2], counted=lambda done, of: steps.append((done, of)))
    assert steps[-1] == (12, 12)  # two candidates, three rounds, two forwards
    assert clocked(denoiser, path, offers=OFFERS[:1], rounds=1, clock=lambda: 1 / 0) == first
    assert clocked(denoiser, path, offers=OFFERS[:2], rounds=3).rounds == 3
    assert {*clocked(denoiser, path).saved} == {offer.method for offer in OFFERS}


@pytest.mark.parametrize("changed", [{"dtype": "bfloat16"}, {"batch_size": 3}])
def test_times_that_do_not_compare_are_refused(denoiser: Denoiser, tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "times.json"
    clocked(denoiser, path)
    with pytest.raises(
        ValueError, match=f"times that compare with this run, but {next(iter(changed))} is .*: delete it"
    ):
        clocked(denoiser, path, **changed)


def test_times_of_other_weights_are_refused(denoiser: Denoiser, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    clocked(denoiser, path)
    next(denoiser.model.parameters()).data.add_(1)
    with pytest.raises(ValueError, match="times that compare with this run, but weights is"):
        kept_times(denoiser, path, dtype="float32", batch_size=2)


@pytest.mark.parametrize("content", ["no json", "[]", json.dumps({"format": "bigain offer timings 1", "saved": {}})])
def test_another_file_is_refused(denoiser: Denoiser, tmp_path: Path, content: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"times\.json must (be|have|hold)"):
        clocked(denoiser, path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"offers": ()}, "offers must be one at least to be timed, not none"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"batch_size": 0}, r"batch_size must lie in \[1, 1000\] where it is timed, .* not 0"),
        ({"batch_size": 1001}, r"batch_size must lie in \[1, 1000\] where it is timed, .* not 1001"),
    ],
)
def test_nothing_to_time_is_an_error(denoiser: Denoiser, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clocked(denoiser, **changed)
