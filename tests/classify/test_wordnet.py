"""WordNet's hierarchy becomes a tree of groups that are worth a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bigain.classify import Hierarchy, wordnet

CLASSES = [f"n1000000{i}" for i in range(1, 9)]
PAIRS = [
    ("n00000001", "n00000002"),
    ("n00000001", "n00000006"),
    ("n00000001", "n00000009"),
    ("n00000002", "n00000003"),
    ("n00000003", "n00000004"),
    ("n00000003", "n00000005"),
    ("n00000006", "n00000007"),
    ("n00000006", "n00000008"),
    ("n00000009", "n10000009"),  # no class
    *zip(["n00000004", "n00000005", "n00000007", "n00000008"], CLASSES[::2], strict=True),
    *zip(["n00000004", "n00000005", "n00000007", "n00000008"], CLASSES[1::2], strict=True),
]
WORDS = {
    "n00000001": "entity",
    "n00000003": "animal, beast",
    "n00000004": "dog, Canis familiaris",
    "n00000005": "crane, wader",
    "n00000006": "machine",
    "n00000007": "crane, derrick",
    "n00000008": "vehicle",
    "n00000009": "pet",
}
HUSKY, BEAGLE = CLASSES[:2]
DOGS, BIRDS, CRANES, VEHICLES = (CLASSES[i : i + 2] for i in range(0, 8, 2))


@pytest.fixture
def write(tmp_path: Path):
    def written(pairs: Sequence[tuple[str, ...]] = PAIRS, words: dict[str, str] = WORDS) -> Path:
        (tmp_path / "words.txt").write_text("".join(f"{wnid}\t{text}\n" for wnid, text in words.items()))
        path = tmp_path / "wordnet.is_a.txt"
        path.write_text("".join(f"{' '.join(pair)}\n" for pair in pairs))
        return path

    return written


def test_groups_are_the_largest_synsets_that_a_level_allows(write):
    path = write()
    assert wordnet.tree(path, CLASSES, 1) == {
        "dog": DOGS, "crane": BIRDS, "crane, derrick": CRANES, "vehicle": VEHICLES
    }  # fmt: skip
    assert wordnet.tree(path, CLASSES, 2) == {
        "animal": {"dog": DOGS, "crane": BIRDS}, "machine": {"crane": CRANES, "vehicle": VEHICLES}
    }  # fmt: skip


def test_the_order_of_the_lines_does_not_matter(write):
    expected = wordnet.tree(write(), CLASSES)
    assert wordnet.tree(write(PAIRS[::-1]), CLASSES) == expected


def test_it_is_a_tree_for_the_classifier_which_knows_the_classes_by_other_names(write):
    names = ["husky", "beagle", "heron", "stork", "tower crane", "dock crane", "tram", "bus"]
    hierarchy = Hierarchy.read(write(), names, "a photo of a {}.", CLASSES)
    assert hierarchy == Hierarchy.of(wordnet.tree(write(), CLASSES), CLASSES, "a photo of a {}.")
    assert hierarchy.inner[-1] == "a photo of a machine."
    assert (hierarchy.classes, hierarchy.depth) == (8, 2)  # groups of one at the third level stand for themselves


def test_of_two_parents_the_one_nearer_to_the_top_counts(write):
    [*_, pet] = wordnet.tree(write([*PAIRS, ("n00000009", "n00000004")]), CLASSES, 1).items()
    assert pet == ("dog", DOGS)  # a pet of one kind; and what is left of the animals comes before
    both = wordnet.tree(write([*PAIRS, ("n00000009", HUSKY), ("n00000009", BEAGLE)]), CLASSES, 1)
    assert both["pet"] == DOGS
    assert "dog" not in both
    tie = wordnet.tree(write([*PAIRS, ("n00000006", "n00000010"), ("n00000010", CLASSES[7])]), CLASSES, 1)
    assert tie["vehicle"] == VEHICLES  # as near, and of lower wnid


def test_a_class_may_hold_classes(write):
    classes = [*CLASSES, "n00000004"]
    assert wordnet.tree(write(), classes, 1)["dog"] == [HUSKY, BEAGLE, "n00000004"]
    assert Hierarchy.read(write(), classes).classes == 9


def test_several_tops_and_few_classes_do(write):
    path = write(PAIRS[3:])
    assert list(wordnet.tree(path, CLASSES, 2)) == ["animal", "machine"]
    assert wordnet.tree(path, [HUSKY]) == {HUSKY: [HUSKY]}


@pytest.mark.parametrize(
    ("pairs", "classes", "message"),
    [
        ([("n00000001", "dog")], CLASSES, "wordnet.is_a.txt, line 1: a line must hold two wnids"),
        (PAIRS, ["husky"], "a class must be a wnid .* not 'husky'"),
        (PAIRS, ["n99999999"], "wordnet.is_a.txt must hold each class, which it does not with n99999999"),
        ([*PAIRS, (HUSKY, "n00000004")], CLASSES, "must have no cycle, not .*n00000004"),
    ],
)
def test_files_that_are_none_are_refused(write, pairs, classes, message):
    with pytest.raises(ValueError, match=message):
        wordnet.tree(write(pairs), classes)


def test_words_and_depth_are_needed(write):
    with pytest.raises(ValueError, match=r"words\.txt must have the words of each group, which it does not with"):
        wordnet.tree(write(words={}), CLASSES)
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        wordnet.tree(write(), CLASSES, 0)
    path = write()
    path.with_name("words.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"words\.txt beside it; there is no .*words\.txt"):
        wordnet.tree(path, CLASSES)
