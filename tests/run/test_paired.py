"""Methods against each other, on a store whose contents can be checked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import fid, resampled_fid
from bigain.run.files import encode_png
from bigain.run.results import Comparison, Gain, Results
from bigain.run.store import Classified, Generated, Store
from bigain.run.summary import Paired, compare, summarise

TODO = "todo:factor=2"
ABM = "abm:ratio=0.3"


@pytest.fixture
def store(known_store: Store, classified: Callable[..., Classified]) -> Store:
    """With a third method, which is always right, with the images of the second and features that are 5 lower."""
    known_store.add_methods(["none", TODO, ABM])
    errors = np.zeros((3, 2), np.float32)
    for row in known_store.classified("none"):
        known_store.add_classified(
            ABM,
            [classified(row.id, row.position, row.labels, (*row.labels, *({0, 1, 2} - {*row.labels})), errors)],
        )
    for image in known_store.generated(TODO):
        features = None if image.features is None else image.features - 5
        known_store.add_generated(ABM, [Generated(image.image, image.label, "c", image.file, None, features)])
    return known_store


def test_a_method_is_compared_with_every_other_but_none(store: Store) -> None:
    [found] = compare(store, [ABM])
    assert (found.method, found.other) == (ABM, TODO)
    gain = paired_difference([True] * 4, [True, False, False, True])
    assert found.accuracy == Gain(*gain)
    reference = store.reference()
    assert reference is not None
    features = [np.stack([row.features for row in store.generated(method)]) for method in (ABM, TODO)]
    ours, theirs = (fid(reference[1], values) for values in features)
    assert found.fid is not None
    assert found.fid.value == pytest.approx(theirs - ours)
    assert found.fid.low <= found.fid.value <= found.fid.high
    assert found.fid.is_certain
    assert found.psnr == Gain(0, 0, 0), "the very same images"
    assert (found.classified, found.generated) == (4, 6)
    assert not found.psnr.is_certain


def test_what_is_better_has_a_gain_above_zero_both_ways_round(store: Store) -> None:
    paired = Paired(store)
    there, back = paired.compare(ABM, TODO), paired.compare(TODO, ABM)
    for name, gain in there.gains.items():
        other = back.gains[name]
        assert gain is not None
        assert other is not None
        assert (gain.value, gain.low, gain.high) == pytest.approx((-other.value, -other.high, -other.low)), name


def test_intervals_are_of_the_difference_on_the_same_resamples(store: Store) -> None:
    rng = np.random.default_rng(5)
    plain = {row.image: row.frames[0] for row in store.generated("none")}
    noise = {image: rng.integers(1, 60, size=pixels.shape) for image, pixels in plain.items()}
    store.add_methods(["none", TODO, ABM, "avgpool:factor=2", "avgpool:factor=3"])
    errors = {}
    for method, scale, left_out in (("avgpool:factor=2", 1.0, 0), ("avgpool:factor=3", 1.2, 1)):  # images overlap
        made = {
            image: (pixels // 4 + scale * noise[image]).astype(np.uint8)
            for image, pixels in plain.items()
            if image != left_out
        }
        store.add_generated(method, [Generated(image, 0, "c", encode_png(pixels)) for image, pixels in made.items()])
        errors[method] = {
            image: np.square(pixels.astype(float) - plain[image].astype(float)).mean() for image, pixels in made.items()
        }
    found = Paired(store).psnr("avgpool:factor=2", "avgpool:factor=3")
    assert found is not None
    both = sorted(errors["avgpool:factor=2"].keys() & errors["avgpool:factor=3"].keys())
    assert len(both) == len(plain) - 2
    ours, theirs = (np.array([errors[method][image] for image in both]) for method in errors)
    draw = np.random.default_rng(0)
    indices = [draw.integers(len(both), size=len(both)) for _ in range(200)]
    value = 10 * np.log10(theirs.mean() / ours.mean())
    resampled = np.array([10 * np.log10(theirs[index].mean() / ours[index].mean()) for index in indices])
    low, high = np.quantile(resampled, [0.025, 0.975]) - (resampled.mean() - value)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high))
    apart = np.array([10 * np.log10(theirs[a].mean() / ours[b].mean()) for a, b in itertools.pairwise(indices)])
    assert found.high - found.low < np.diff(np.quantile(apart, [0.025, 0.975])).item(), "of unpaired resamples"


def test_a_method_that_changes_no_image_has_no_psnr_to_compare(store: Store) -> None:
    assert Paired(store).psnr("none", TODO) is None


def test_what_was_not_measured_for_both_is_none(store: Store) -> None:
    store.add_methods(["none", TODO, ABM, "sito:ratio=0.3"])
    found = Paired(store).compare("sito:ratio=0.3", TODO)
    assert found == Comparison(method="sito:ratio=0.3", other=TODO, classified=0, generated=0)


def test_a_method_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"against must name methods of .*, none todo:factor=2 .*, not iekvd:factor=2"):
        compare(store, ["iekvd:factor=2"])


def test_comparisons_go_into_the_results_and_come_back(store: Store) -> None:
    results = summarise(store, [TODO, ABM])
    assert [(each.method, each.other) for each in results.comparisons] == [(TODO, ABM), (ABM, TODO)]
    assert Results.from_json(asdict(results)) == results
    assert Comparison.from_json(asdict(results.comparisons[0])) == results.comparisons[0]
    values = asdict(results)
    del values["comparisons"]
    assert Results.from_json(values).comparisons == (), "files of before"


def test_resamples_are_the_fid_of_those_images() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 1
    indices = [np.arange(20), rng.integers(20, size=20), np.arange(5)]
    assert resampled_fid(real, fake, indices) == [fid(real, fake[index]) for index in indices]
    with pytest.raises(ValueError, match="a resample must have at least 2 images, not 1"):
        resampled_fid(real, fake, [np.arange(1)])
