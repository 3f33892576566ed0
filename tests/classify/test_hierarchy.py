from __future__ import annotations

import json

import numpy as np
import pytest

from bigain.classify import Contest, DiffusionClassifier, Hierarchy, Racing
from bigain.classify.prediction import rank

CLASSES = ("husky", "tabby", "beagle", "tram", "bus")
TREE = {"animal": {"dog": ["husky", "beagle"], "cat": ["tabby"]}, "vehicle": ["tram", "bus"]}


def climb(hierarchy: Hierarchy, errors: np.ndarray):
    """The contest of an image whose errors under classes and groups are known, and what was asked."""
    contest = Contest("a", np.full(errors.shape, np.nan, dtype=np.float32), np.ones(errors.shape[1]), telling=True)
    asked = []
    for ask in hierarchy.rounds(contest):
        where = np.ix_(ask.conditions, ask.positions)
        contest.errors[where] = errors[where]
        asked.append((tuple(ask.conditions), tuple(ask.positions)))
    return contest, asked


def test_a_tree_by_name_becomes_groups_of_conditions():
    hierarchy = Hierarchy.of(TREE, CLASSES, "a photo of a {}.")
    assert hierarchy.inner == ("a photo of a dog.", "a photo of a animal.", "a photo of a vehicle.")
    assert hierarchy.held == ((0, 2), (5, 1), (3, 4))  # the cat, alone in its group, stands for it
    assert hierarchy.top == (6, 7)
    assert (hierarchy.classes, hierarchy.depth) == (5, 2)


def test_what_a_group_holds_is_asked_only_where_the_group_does_well():
    errors = np.ones((8, 6))
    errors[[0, 5, 6]] = 0.5  # husky, dog, animal
    contest, asked = climb(Hierarchy.of(TREE, CLASSES, level_samples=1, race=Racing(6, threshold=1.0)), errors)
    assert asked[:3] == [((6, 7), (0,)), ((5, 1), (1,)), ((0, 2), (2,))]
    assert rank(contest.weighted[:5], contest.stage[:5].tolist())[0] == 0
    # Those under a group go by its errors at the timesteps at which it was asked, so all compare.
    np.testing.assert_array_equal(contest.errors[:5, 0], [0.5, 0.5, 0.5, 1, 1])
    assert contest.stage[3] == contest.stage[4] == 0 < contest.stage[1] < contest.stage[2] <= contest.stage[0]


def test_keeping_all_asks_all_and_finds_what_a_full_evaluation_finds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        errors = rng.random((8, 9))
        contest, asked = climb(
            Hierarchy.of(TREE, CLASSES, keep=1, level_samples=1, race=Racing(9, threshold=99.0)), errors
        )
        assert len(asked) == 9
        best = rank(contest.weighted[:5], contest.stage[:5].tolist())[0]
        path = np.stack([[errors[g, 0], errors[h, 1], *errors[c, 2:]] for c, g, h in
                         ((0, 6, 5), (1, 6, 1), (2, 6, 5), (3, 7, 3), (4, 7, 4))])  # fmt: skip
        assert best == path.mean(1).argmin()


def test_forwards_are_an_upper_bound():
    rng = np.random.default_rng(0)
    hierarchy = Hierarchy.of(TREE, CLASSES, level_samples=2, race=Racing(8, threshold=99.0))
    for _ in range(20):
        _, asked = climb(hierarchy, rng.random((8, 8)))
        assert sum(len(conditions) * len(positions) for conditions, positions in asked) <= hierarchy.forwards(5)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": []}, "the group 'a' must hold classes or groups, not none"),
        ({"a": ["husky", "cow"]}, "a class of the tree must be one of the classifier's, not 'cow'"),
        ({"a": ["husky", "tabby"]}, "which it does not with beagle, bus, tram"),
        ({"a": list(CLASSES), "b": ["bus"]}, "which it does not with bus"),
    ],
)
def test_a_tree_that_does_not_fit_the_classes_is_refused(tree, message, tmp_path):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=message) as caught:
        Hierarchy.read(path, CLASSES)
    assert "tree.json" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "keep must lie above 0"),
        ({"level_samples": 0}, "level_samples must be at least 1"),
        ({"level_samples": 10}, "n_samples must be more than the 2 levels take, 20, not 20"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy.of(TREE, CLASSES, **settings)


def test_a_text_model_is_asked_about_groups_and_classes():
    prompts = {letter: f"a photo of a letter {letter}" for letter in "ABEG"}
    tree = {"a red letter": ["A", "B"], "a blue letter": ["E", "G"]}
    hierarchy = Hierarchy.of(tree, list(prompts), level_samples=1, race=Racing(3))
    classifier = DiffusionClassifier("glyphs-sd", prompts, elimination=hierarchy)
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    [result] = classifier.predict(image)
    assert classifier.conditions.names[4:] == tuple(tree)
    assert result.errors.shape == (4, 3)
    assert sorted(result.ranking) == [0, 1, 2, 3]
    assert result.forwards <= classifier.forwards == 2 + 2 * 2
    assert sum(result.probabilities()) == pytest.approx(1)
    with pytest.raises(ValueError, match="conditions must be the tree's 4 classes, one each, not 3"):
        DiffusionClassifier("glyphs-sd", list(prompts.values())[:3], elimination=hierarchy)
