"""Ranges of t: which there are, and how much of a use lies in each."""

from __future__ import annotations

from typing import Any

import pytest

from bigain.diffusion import Denoiser, open_model
from bigain.methods.schedules import in_range
from bigain.search.ranges import Range, ranges_of, use_timesteps

MEASURED = (125, 375, 625, 875)


def test_a_use_takes_the_classifiers_or_the_samplers_timesteps(denoiser: Denoiser) -> None:
    classify, generate, both = (use_timesteps(denoiser, use).tolist() for use in ("classify", "generate", "both"))
    assert classify == denoiser.process.timesteps(20).tolist()
    assert generate == [999 - 50 * step for step in range(20)]  # this model's sampler ends at the last timestep
    assert both == classify + generate


def test_a_classifier_of_shifted_timesteps_weighs_ranges_by_them(flows: dict[str, Any]) -> None:
    flow = open_model(flows["sd3"].build())
    assert use_timesteps(flow, "classify", "scheduler").tolist() == flow.timesteps(20, "scheduler").tolist()
    even, shifted = (ranges_of(flow, (2,), "classify", MEASURED, spacing) for spacing in ("uniform", "scheduler"))
    assert shifted[1].weight > even[1].weight == 0.5


@pytest.mark.parametrize("use", ["classify", "generate", "both"])
def test_every_timestep_of_a_use_counts_in_one_range(denoiser: Denoiser, use: str) -> None:
    taken = use_timesteps(denoiser, use).tolist()
    for given in ((3,), (0, 150, 650, 1000)):
        found = ranges_of(denoiser, given, use, MEASURED)
        assert sum(one.weight for one in found) == pytest.approx(1)
        for one in found:
            assert one.timesteps is not None
            low, high = one.timesteps
            assert one.weight == sum(low < t <= high for t in taken) / len(taken)
    assert [one.timesteps for one in ranges_of(denoiser, (3,), use, MEASURED)] == [(0, 333), (333, 666), (666, 1000)]
    assert ranges_of(denoiser, (1,), use, MEASURED) == ranges_of(denoiser, (0, 1000), use, MEASURED) == (Range(),)


def test_neighbours_share_no_t_and_leave_none_out() -> None:
    for t in (0, 0.5, 1, 499.9, 500, 500.1, 999, 1000):
        assert in_range((0, 500), t) + in_range((500, 1000), t) == 1
    assert Range((0, 500)).mean((1.0, 2.0, 6.0), (0, 500, 501)) == 1.5


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ((0,), "ranges must be from 1 to 1000, not 0"),
        ((300, 700, 1000), "ranges must be a number of them, or bounds that rise from 0 to 1000, not"),
        ((0, 700, 300, 1000), "bounds that rise from 0 to 1000"),
        ((0, 300), "bounds that rise from 0 to 1000"),
        ((5,), "ranges must each hold a timestep, not 400-600, which holds none at which layers are measured"),
        ((0, 10, 1000), "not 0-10, which holds none of the use 'classify'"),
    ],
)
def test_what_cannot_be_weighed_or_measured_is_refused(denoiser: Denoiser, ranges: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ranges_of(denoiser, ranges, "classify", MEASURED)
