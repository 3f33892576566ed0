"""Pictures of a run's classification, told by what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bigain.report import classification


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    saved: list = []
    monkeypatch.setattr(classification, "save", lambda figure, path: saved.append((figure, path.name)))
    return saved


def test_a_row_of_the_confusion_matrix_is_a_true_class_and_sums_to_one(figures: list, tmp_path: Path) -> None:
    counts = {"none": np.array([[3, 1], [0, 0]]), "lgtm-0.5": np.array([[1, 1], [2, 2]])}
    classification.draw_confusion(counts, ["cat", "dog"], tmp_path)
    [(figure, name)] = figures
    assert name == "confusion.png"
    first, second = (axis for axis in figure.axes if axis.images)
    np.testing.assert_array_equal(first.images[0].get_array(), [[0.75, 0.25], [0, 0]])  # no dogs
    assert [axis.get_title() for axis in (first, second)] == ["No compression", "L-GTM 50%"]
    assert [text.get_text() for text in first.get_yticklabels()] == ["cat", "dog"]


def test_a_page_that_has_not_every_method_says_so(figures: list, tmp_path: Path) -> None:
    counts = {"none": np.eye(2)}
    for methods in (1, 12):
        classification.draw_confusion(counts, ["cat", "dog"], tmp_path, methods)
    whole, part = (figure.get_suptitle() for figure, _ in figures)
    assert whole == "Share of the images of each class"
    assert part == f"{whole}, for the first 1 of 12 methods"


def test_the_reliability_of_each_method_is_a_line_from_bin_to_bin(figures: list, tmp_path: Path) -> None:
    bins = {"none": np.array([[0.4, 0.5, 10], [0.9, 1.0, 30]]), "todo-2": np.array([[0.7, 0.2, 40]])}
    classification.draw_reliability(bins, tmp_path)
    [(figure, name)] = figures
    assert name == "reliability.png"
    lines = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert lines[1:] == [[[0.4, 0.5], [0.9, 1.0]], [[0.7, 0.2]]]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["No compression", "ToDo 2×"]
