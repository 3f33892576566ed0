"""The round that mends that costs add up: with made-up costs of layers that are worse together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bigain.methods import Compression
from bigain.search.correction import Judge, settle
from bigain.search.knapsack import allocate
from bigain.search.measuring import Changes
from bigain.search.offers import Offer
from bigain.search.ranges import Range

ALONE = {0: 1.0, 1: 1.0, 2: 2.0, 3: 9.0}
RANGES = (Range((0, 500), 0.25), Range((500, 1000), 0.75))


def offers(ranges: Sequence[Range] = (Range(),)) -> list[Offer]:
    found = []
    for layer, change in ALONE.items():
        for one in ranges:
            text = "" if one.timesteps is None else f",timesteps={one.timesteps[0]}-{one.timesteps[1]}"
            spec = f"todo:factor=2,layers={layer}{text}"
            found.append(
                Offer(layer, spec, round(100 * one.weight), one.weight * change, 0.0, one.timesteps, one.weight)
            )
    return found


def judge(pair: float, ranges: Sequence[Range] = (Range(),)) -> tuple[Judge, list[str]]:
    """Costs that add up, but for layers 0 and 1, which cost ``pair`` more together at t = 750."""
    asked: list[str] = []

    def measure(methods: Compression) -> Changes:
        asked.append(methods.text)
        change = []
        for t in (250, 750):
            acting = {layer for method in methods if method.acts_at(t) for layer in method.layers or ()}
            change.append(sum(ALONE[layer] for layer in acting) + (pair if t == 750 and {0, 1} <= acting else 0))
        return tuple(change), (0.0, 0.0)

    return Judge(measure, (250, 750), ranges, 3.0), asked


def layers_of(chosen: object, t: int) -> set[int]:
    return {layer for method in chosen.allocation.methods if method.acts_at(t) for layer in method.layers}  # type: ignore[attr-defined]


def test_layers_that_are_worst_together_are_parted() -> None:
    measure, asked = judge(pair=10)
    assert {offer.layer for offer in allocate(offers(), 200).offers} == {0, 1}
    found = settle(offers(), 200, measure)
    assert layers_of(found, 750) in ({0, 2}, {1, 2})
    assert found.change == 3
    assert len(asked) <= 2 + 2 + 2  # the choice, without either layer, and the second choice


def test_they_are_parted_in_the_range_of_t_in_which_they_are() -> None:
    measure, _ = judge(10, RANGES)
    found = settle(offers(RANGES), 200, measure)
    assert layers_of(found, 250) == {0, 1}
    assert layers_of(found, 750) in ({0, 2}, {1, 2})
    assert found.allocation.saved == 200


@pytest.mark.parametrize("pair", [0.0, -1.0])
def test_a_choice_whose_costs_add_up_or_less_stays(pair: float) -> None:
    measure, _ = judge(pair)
    found = settle(offers(), 200, measure)
    assert layers_of(found, 750) == {0, 1}
    assert found.change == 2 + pair / 2


def test_a_second_choice_that_turns_out_worse_is_not_taken() -> None:
    measure, _ = judge(10)

    def worse(methods: Compression) -> Changes:
        change, contrast = measure.measure(methods)
        return (change if {*(methods[0].layers or ())} <= {0, 1} else (50.0, 50.0)), contrast

    found = settle(offers(), 200, Judge(worse, (250, 750), (Range(),), 3.0))
    assert layers_of(found, 750) == {0, 1}
