"""Which layer takes which method: against trying all choices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigain.methods import parse, spec
from bigain.search.knapsack import allocate
from bigain.search.offers import CONTRAST_WEIGHT, Offer

CANDIDATES = ("todo:factor=2", "avgpool:factor=2", "iekvd:factor=2")

several_offers = st.lists(
    st.builds(
        lambda layer, timesteps, candidate, saved, change, contrast: Offer(
            layer, f"{candidate},layers={layer}", saved, change, contrast, timesteps
        ),
        st.integers(0, 2),
        st.sampled_from([(0, 300), (300, 1000)]),
        st.sampled_from(CANDIDATES),
        st.integers(-5, 60),
        st.floats(0, 1, allow_subnormal=False),
        st.floats(0, 1, allow_subnormal=False),
    ),
    min_size=1,
    max_size=10,
)


def all_choices(offers: list[Offer]) -> list[tuple[Offer, ...]]:
    layers: dict[Any, list[Offer | None]] = {}
    for offer in offers:
        layers.setdefault(offer.place, [None]).append(offer)
    return [tuple(offer for offer in choice if offer) for choice in itertools.product(*layers.values())]


def total(offers: Iterable[Offer], weight: float) -> float:
    return sum(offer.change + weight * offer.contrast for offer in offers)


@given(several_offers, st.integers(1, 150), st.sampled_from([0.0, 1.0, 10.0]))
def test_no_choice_that_saves_enough_costs_less(offers: list[Offer], saving: int, weight: float) -> None:
    enough = [choice for choice in all_choices(offers) if sum(offer.saved for offer in choice) >= saving]
    if not enough:
        with pytest.raises(ValueError, match="saving must be at most"):
            allocate(offers, saving, weight)
        return
    found = allocate(offers, saving, weight)
    assert found.saved >= saving
    assert found.change + weight * found.contrast == pytest.approx(
        min(total(choice, weight) for choice in enough), abs=1e-12
    )
    assert len({offer.place for offer in found.offers}) == len(found.offers)
    assert set(found.offers) <= set(offers)


@given(several_offers, st.floats(0.05, 1.0))
def test_of_billions_of_flops_enough_are_saved_at_almost_the_least_change(offers: list[Offer], share: float) -> None:
    """Rounded savings: no worse than the best choice that saves a thousandth more for each layer."""
    large = [replace(each, saved=each.saved * 1_000_000_007) for each in offers]
    most = max(sum(offer.saved for offer in choice) for choice in all_choices(large))
    saving = round(share * most)
    if saving < 1:
        return
    found = allocate(large, saving)
    assert found.saved >= saving
    margin = round(6 * saving / 16384)
    easier = [choice for choice in all_choices(large) if sum(offer.saved for offer in choice) >= saving + margin]
    for choice in easier:
        assert total(found.offers, CONTRAST_WEIGHT) <= total(choice, CONTRAST_WEIGHT) + 1e-12


def test_layers_that_take_the_same_share_a_config() -> None:
    offers = [
        Offer(0, "todo:factor=2,layers=0", 10, 1.0, 0.1),
        Offer(1, "tome:ratio=0.5,layers=1", 10, 1.0, 0.1),
        Offer(2, "todo:factor=2,layers=2", 10, 1.0, 0.1),
    ]
    found = allocate(offers, 30)
    assert spec(found.methods) == "todo:factor=2,layers=0/2+tome:ratio=0.5,layers=1"
    assert parse(spec(found.methods)) == found.methods
    assert (found.saved, found.change) == (30, 3.0)
    assert [offer.candidate.text for offer in found.offers] == ["todo:factor=2", "tome:ratio=0.5", "todo:factor=2"]


def test_all_that_can_be_saved_is_saved_where_that_is_asked_for() -> None:
    alike = [Offer(layer, f"iekvd:factor=2,layers={layer}", 37_748_736, 1.0, 0.1) for layer in range(6)]
    assert allocate(alike, 6 * 37_748_736).offers == tuple(alike)  # 6 · 2730 of 16,384 steps


def test_what_cannot_be_saved_is_refused_with_what_can() -> None:
    offers = [Offer(0, "todo:factor=2,layers=0", 70, 1.0, 0.1), Offer(1, "todo:factor=2,layers=1", 30, 1.0, 0.1)]
    assert allocate(offers, 100).saved == 100
    with pytest.raises(ValueError, match="saving must be at most 100, which all layers together save, not 101"):
        allocate(offers, 101)
    with pytest.raises(ValueError, match="saving must be at least 1, not 0"):
        allocate(offers, 0)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="contrast_weight must be finite and at least 0"):
            allocate(offers, 100, weight)


def ranged(layer: int, low: int, high: int, candidate: str = "todo:factor=2") -> Offer:
    weight = (high - low) / 1000
    return Offer(layer, f"{candidate},layers={layer},timesteps={low}-{high}", 10, 1.0, 0.1, (low, high), weight)


def test_ranges_that_follow_each_other_share_a_config_and_all_of_them_are_every_t() -> None:
    offers = [
        *(ranged(0, *ends) for ends in ((0, 300), (300, 700), (700, 1000))),
        *(ranged(1, *ends) for ends in ((300, 700), (700, 1000))),
        *(ranged(2, *ends) for ends in ((0, 300), (700, 1000))),
        ranged(2, 300, 700, "tome:ratio=0.5"),
        *(ranged(3, *ends) for ends in ((0, 300), (300, 700), (700, 1000))),
    ]
    found = allocate(offers, 10 * len(offers))
    assert spec(found.methods) == (
        "todo:factor=2,layers=0/3+todo:factor=2,layers=1,timesteps=300-1000+"
        "todo:factor=2,layers=2,timesteps=0-300+todo:factor=2,layers=2,timesteps=700-1000+"
        "tome:ratio=0.5,layers=2,timesteps=300-700"
    )
    assert parse(spec(found.methods)) == found.methods
    assert found.offers[0].everywhere == "todo:factor=2,layers=0"
