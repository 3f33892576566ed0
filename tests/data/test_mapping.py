"""A data set's classes under the labels of a class-conditional model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bigain.data import ImageCollection, Item, load, map_classes

LETTERS = {letter: label for label, letter in enumerate("ABEGHKMRSX")}
IMAGENET = {
    "tench, Tinca tinca": 0,
    "goldfish, Carassius auratus": 1,
    "great white shark, white shark": 2,
    "crane": 134,
}


def test_a_class_gets_the_label_of_its_name_whatever_its_place() -> None:
    assert map_classes(["K", "R", "X"], LETTERS) == (5, 7, 9)
    assert map_classes(["X", "K"], LETTERS) == (9, 5)


def test_synonyms_fit_on_either_side() -> None:
    assert map_classes(["tench", "Carassius auratus", "white shark"], IMAGENET) == (0, 1, 2)
    assert map_classes(["goldfish, Carassius auratus"], {"tench": 0, "Tinca tinca": 0, "goldfish": 1}) == (1,)


def test_case_underscores_and_hyphens_do_not_matter_where_no_letter_for_letter_name_fits() -> None:
    assert map_classes(["Great_White-Shark", "TENCH"], IMAGENET) == (2, 0)
    assert map_classes(["a", "A"], {"A": 0, "a": 1}) == (1, 0)


def test_a_wnid_wins_over_the_name() -> None:
    labels = {"n02012849": 134, "n03126707": 517}
    assert map_classes(["crane", "crane"], labels, wnids=["n03126707", "n02012849"]) == (517, 134)
    assert map_classes(["tench"], IMAGENET, wnids=["n01440764"]) == (0,), "by name where the model has no wnids"


@pytest.mark.parametrize(
    ("classes", "labels", "shown"),
    [
        (["K", "Q", "Z"], LETTERS, "'Q', 'Z'"),
        (["A_b"], {"a b": 2, "A-B": 3}, "'A_b'"),
        (["crane"], {"crane, bird": 134, "crane, machine": 517}, "'crane'"),
        (["tench", "Tinca tinca"], IMAGENET, "'tench', 'Tinca tinca'"),
        (["0", "1"], LETTERS, "'0', '1'"),
        (list("0123456"), LETTERS, "'0', '1', '2', '3', '4' and 2 more"),
    ],
    ids=["no such label", "unsure", "two labels", "two classes of one label", "numbers", "many"],
)
def test_what_does_not_map_is_named_with_the_way_out(classes, labels, shown: str) -> None:
    with pytest.raises(
        ValueError, match=rf"fit one label of their own .*, not {shown}: give .* prompt,classname,classidx"
    ):
        map_classes(classes, labels)


def collection(*classes: str, **more) -> ImageCollection:
    entries = tuple(Item(str(label), bytes, (label,)) for label in range(len(classes)))  # type: ignore[arg-type]
    return ImageCollection("set", classes, entries, **more)


def test_a_model_without_names_is_asked_by_number_or_in_order_where_all_its_labels_are_meant() -> None:
    assert collection("4", "2").labels_in({}, 10) == (4, 2)
    assert collection("x", "y").labels_in({}, 2) == (0, 1)
    with pytest.raises(ValueError, match=r"fit one label of their own .*\(0, 1, 2\), not 'x', 'y'"):
        collection("x", "y").labels_in({}, 3)


def test_imagenets_thousand_stand_in_the_order_of_wnids_for_a_model_of_a_thousand() -> None:
    data = collection("crane", wnids=("n02012849",), imagenet_labels=(134,))
    assert data.labels_in({"crane": 517}, 1000) == (134,), "a pipeline keeps one label of a name that two classes share"
    assert data.labels_in({"crane": 3}, 10) == (3,)
    with pytest.raises(ValueError, match=r"set must have a LOC_synset_mapping\.txt of all 1,000 classes"):
        collection("crane", wnids=("n02012849",)).labels_in({}, 1000)


def test_a_prompt_csv_gives_the_models_names(save_image, save_text, tmp_path) -> None:
    for name in ("kay", "ex"):
        save_image(f"letters/{name}/0.png")
    data = load(tmp_path / "letters", image_size=16)
    with pytest.raises(ValueError, match="not 'ex', 'kay'"):
        data.labels_in(LETTERS, 10)
    path = save_text("p.csv", "prompt,classname,classidx\nan X,X,0\na K,K,1\n")
    assert load(tmp_path / "letters", prompts_csv=path, image_size=16).labels_in(LETTERS, 10) == (9, 5)


@pytest.mark.parametrize("room", ["bigain.data", "bigain.metrics.accuracy", "bigain.metrics.distribution"])
def test_what_reads_data_and_finished_results_imports_neither_torch_nor_scipy(room: str) -> None:
    code = (
        f"import sys, {room}; print([m for m in ('torch', 'scipy', 'torchmetrics', 'diffusers') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
