from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from bigain.classify import DiffusionClassifier, Fitted, Racing
from bigain.classify.fitting import _race, _temperature, conformal_threshold, fit, of_classes, select
from bigain.diffusion import ClassConditional


def errors_and_labels(images: int = 200, classes: int = 6, seed: int = 0, noise: float = 0.1):
    """Ten timesteps, of which 2 and 5 tell the class, 5 less, and the others nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    errors = rng.normal(1, noise, (images, classes, 10))
    for position, gap in ((2, 0.3), (5, 0.2)):
        errors[:, :, position] += gap
        errors[np.arange(images), labels, position] -= gap
    return errors, labels


def likelihood(errors, labels, weights) -> float:
    logits = -(errors @ weights)
    return float((logits[np.arange(len(labels)), labels] - logsumexp(logits, axis=1)).mean())


def test_the_telling_timesteps_come_first_and_weigh_most():
    errors, labels = errors_and_labels()
    chosen, weights = select(errors, labels, 4)
    assert chosen[:2] == [2, 5]
    assert weights[0] > weights[1] > 3 * max(weights[2:], default=0)


def test_weights_have_the_highest_penalised_likelihood():
    """No small change of a weight makes it higher; the penalty counts weights by the errors' own scale."""
    errors, labels = errors_and_labels(60)
    chosen, weights = select(errors, labels, 3)
    own = errors[np.arange(60), labels]
    scale = (errors - own[:, None]).std(axis=(0, 1))[chosen]

    def value(weights) -> float:
        return likelihood(errors[:, :, chosen], labels, weights) - 0.05 / 2 * float(
            (weights * scale) @ (weights * scale)
        )

    best = value(weights)
    for position in range(len(chosen)):
        for step in (-0.05, 0.05):
            other = weights.copy()
            other[position] = max(0.0, other[position] + step / scale[position])
            assert value(other) <= best + 1e-7


def test_the_threshold_is_the_conformal_quantile():
    sums = np.zeros((19, 2, 3))
    sums[:, 1, -1] = 100  # class 0 wins in the end
    sums[:, 0, 1] = np.arange(19)  # and was so far behind once
    assert conformal_threshold(sums, 0.05) == 18
    assert conformal_threshold(sums, 0.25) == 14  # the 15th of 19: ceil(20 x 0.75)


def test_a_class_counts_by_its_best_condition():
    errors = np.arange(12.0).reshape(1, 4, 3)
    errors[0, 1] = -1
    np.testing.assert_array_equal(of_classes(errors, (0, 0, 1, 1))[0], [[-1, -1, -1], [6, 7, 8]])


def test_the_temperature_makes_probabilities_mean_what_they_say():
    """Of races over new images: on average, the winner's probability is the share of winners that are right."""
    fitted = fit(*errors_and_labels(1000, noise=0.2), range(10), count=4, error_rate=0.05, groups=range(6))
    new, true = errors_and_labels(2000, seed=1, noise=0.2)
    races = [_race(own, fitted, range(6), 1) for own in new[:, :, list(fitted.timesteps)]]
    sure = np.array([max(race.probabilities(fitted.temperature)) for race in races])
    right = np.array([race.prediction for race in races]) == true
    assert sure.mean() == pytest.approx(right.mean(), abs=0.08)
    assert np.mean([max(race.probabilities(1.0)) for race in races]) < 0.5 * right.mean()  # as they were


class Race:
    """One whose second class is this far behind its first."""

    def __init__(self, behind: float) -> None:
        self.behind = behind

    def probabilities(self, temperature: float) -> np.ndarray:
        shares = np.exp(-np.array([0, self.behind]) / temperature)
        return shares / shares.sum()


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 0.1, 1.0, 1e3, 1e4])
def test_the_temperature_is_found_between_where_all_are_sure_and_where_none_is(scale: float) -> None:
    behind = scale * np.linspace(1, 30, 100)
    labels = (np.arange(100) == 3).astype(int)  # one was wrong, and not by far
    found = _temperature([Race(own) for own in behind], labels)
    sure = np.array([max(Race(own).probabilities(found)) for own in behind])
    assert found == pytest.approx(2.50 * scale, rel=0.01)
    assert 0.9 < sure.mean() < 0.99


def test_where_all_images_were_right_the_next_one_may_be_wrong():
    """Without doubt the temperature would fall without end, and every probability be 1."""
    errors, labels = errors_and_labels(100, noise=1e-6)
    fitted = fit(errors, labels, range(10), count=4, error_rate=0.05, groups=range(6))
    races = [_race(own, fitted, range(6), 1) for own in errors[1::2][:, :, list(fitted.timesteps)]]
    assert [race.prediction for race in races] == labels[1::2].tolist()
    sure = np.array([max(race.probabilities(fitted.temperature)) for race in races])
    assert sure.mean() == pytest.approx(51 / 52, abs=0.01)


def test_without_labels_the_winners_of_the_full_evaluation_stand_for_them():
    errors, _ = errors_and_labels()
    winners = errors.mean(2).argmin(1)
    assert fit(errors, None, range(10), count=3, error_rate=0.05, groups=range(6)) == fit(
        errors, winners, range(10), count=3, error_rate=0.05, groups=range(6)
    )


def test_too_few_images_for_the_rate_are_refused():
    errors, labels = errors_and_labels(37)
    with pytest.raises(ValueError, match=r"images must be at least 38 for an error_rate of 0.05, not 37"):
        fit(errors, labels, range(10), count=3, error_rate=0.05, groups=range(6))


FITTED = {"timesteps": (500, 200), "weights": (1.25, 0.75), "threshold": 0.5, "error_rate": 0.05, "temperature": 2.0}


def test_a_file_gives_back_what_was_written(tmp_path):
    fitted = Fitted(**FITTED, images=40, model="glyphs-dit")
    fitted.write(tmp_path / "fit.json")
    assert Fitted.read(tmp_path / "fit.json") == fitted


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"format": "bigain classifier 1"}), json.dumps({"format": "bigain preset 1"} | FITTED)],
)
def test_another_file_is_refused_by_name(tmp_path, content):
    path: Path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json must be a file of `bigain fit`"):
        Fitted.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": (500, 500)}, "timesteps must be different"),
        ({"timesteps": ()}, "timesteps must be different"),
        ({"weights": (1.0,)}, "weights must be one of at least 0 for each timestep"),
        ({"weights": (-1.0, 2.0)}, "weights must be"),
        ({"threshold": float("nan")}, "threshold must be above 0, not nan"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Fitted(**FITTED | change, images=40)


@pytest.fixture
def build(families, tmp_path):
    import torch
    from diffusers import DDIMScheduler

    def make(**options) -> DiffusionClassifier:
        torch.manual_seed(1)
        model = families["dit"].build(sample_size=8)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return DiffusionClassifier(ClassConditional(model=model, scheduler=DDIMScheduler()), range(4), **options)

    return make


def _photos(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 9, 8, 3), dtype=np.uint8))


def test_fitting_a_classifier_chooses_timesteps_and_makes_races_shorter(build):
    classifier = build(elimination=Racing(6))
    before = classifier.predict(_photos(4))
    assert classifier.fit(_photos(40), candidates=12, error_rate=0.1) is classifier
    assert set(classifier.timesteps.tolist()) <= set(classifier.denoiser.process.timesteps(12).tolist())
    assert classifier.elimination.threshold == classifier.fitted.threshold
    after = classifier.predict(_photos(4))
    assert sum(one.forwards for one in after) < sum(one.forwards for one in before)
    for one in after:
        assert one.weights == classifier.fitted.weights
        assert one.temperature == classifier.fitted.temperature
        assert one.probability == max(one.probabilities())


def test_it_works_at_the_end_of_a_scikit_learn_pipeline(build):
    pipeline = make_pipeline(FunctionTransformer(lambda images: [255 - image for image in images]), build())
    inverted = [255 - image for image in _photos(40)]
    names = [one.name for one in build().predict(inverted)]
    assert [one.name for one in pipeline.predict(_photos(40))] == names
    assert pipeline.score(_photos(40), names) == 1
    wrong = [str((int(name) + 1) % 4) for name in names]
    assert pipeline.score(_photos(40)[:10], names[:5] + wrong[5:10]) == 0.5


def test_what_is_fitted_can_be_kept_and_used_elsewhere(build, tmp_path):
    first = build(elimination="racing", n_samples=(6,))
    first.fit(_photos(40), [one.name for one in first.predict(_photos(40))], candidates=8, error_rate=0.1)
    first.fitted.write(tmp_path / "fit.json")
    second = build(elimination="racing", n_samples=(6,)).use(tmp_path / "fit.json")
    for a, b in zip(first.predict(_photos(3)), second.predict(_photos(3)), strict=True):
        np.testing.assert_array_equal(a.errors, b.errors)
        assert a.probabilities() == b.probabilities()


def test_stages_take_no_more_timesteps_than_were_fitted(build, tmp_path):
    classifier = build(to_keep=(2, 1), n_samples=(1, 3)).fit(_photos(20), candidates=8, error_rate=0.1)
    assert len(classifier.timesteps) == 3
    Fitted(**FITTED, images=40).write(tmp_path / "two.json")
    shorter = build(to_keep=(2, 1), n_samples=(1, 3)).use(tmp_path / "two.json")
    assert shorter.elimination.n_samples == (1, 2)
    assert shorter.timesteps.tolist() == [500, 200]
    with pytest.raises(ValueError, match=r"n_samples must increase from stage to stage, not \(2, 2\)"):
        build(to_keep=(2, 1), n_samples=(2, 3)).use(tmp_path / "two.json")


def test_labels_that_tell_nothing_are_refused():
    errors = np.ones((40, 3, 5))
    with pytest.raises(ValueError, match="under these no timestep tells the classes apart"):
        fit(errors, np.arange(40) % 3, range(5), count=2, error_rate=0.1, groups=range(3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "labels must be one for each of the 20 images, not 2"), ([4] * 20, "labels must be names"),
     (["cat"] * 20, r"labels must be names \(0, 1, 2, 3\) or numbers under 4, not 'cat'")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(build, labels, message):
    with pytest.raises(ValueError, match=message):
        build().fit(_photos(20), labels, candidates=4, error_rate=0.2)
