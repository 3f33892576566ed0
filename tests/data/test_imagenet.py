from __future__ import annotations

import pytest

from bigain.data import load
from bigain.data.annotated import class_names, read_synsets

TENCH, FISH, CRANE, MACHINE = "n01440764", "n01443537", "n02012849", "n03126707"
MAPPING = f"{TENCH} tench, Tinca tinca\n{FISH} goldfish, Carassius auratus\n{CRANE} crane\n"
IMAGES = {TENCH: (3, 8), FISH: (1, 5), CRANE: (2,)}


def file(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


@pytest.fixture
def tree(save_image, save_text, tmp_path):
    for wnid, numbers in IMAGES.items():
        for number in numbers:
            save_image(f"tree/val/{wnid}/{file(number)}.JPEG", grey=number)
    save_text("tree/LOC_synset_mapping.txt", MAPPING)
    return tmp_path / "tree"


@pytest.fixture(params=["val", "ILSVRC/Data/CLS-LOC/val"])
def flat(request, save_image, save_text, tmp_path):
    rows = []
    for wnid, numbers in IMAGES.items():
        for number in numbers:
            save_image(f"flat/{request.param}/{file(number)}.JPEG", grey=number)
            rows.append(f"{file(number)},{wnid} 85 1 499 272 {wnid} 1 2 3 4 ")
    save_text("flat/LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *reversed(rows)]))
    save_text("flat/LOC_synset_mapping.txt", MAPPING)
    return tmp_path / "flat"


def contents(data) -> list[tuple]:
    return [(item.id, item.labels, int(item.image[0, 0, 0])) for item in data]


def test_the_tree(tree) -> None:
    data = load(f"imagenet:{tree}", image_size=16)
    assert data.name == "imagenet"
    assert data.classes == ("tench", "goldfish", "crane")
    assert data.prompts == (("a photo of a tench.",), ("a photo of a goldfish.",), ("a photo of a crane.",))
    assert contents(data) == [
        (f"{TENCH}/{file(3)}.JPEG", (0,), 3),
        (f"{FISH}/{file(1)}.JPEG", (1,), 1),
        (f"{CRANE}/{file(2)}.JPEG", (2,), 2),
        (f"{TENCH}/{file(8)}.JPEG", (0,), 8),
        (f"{FISH}/{file(5)}.JPEG", (1,), 5),
    ]


def test_the_flat_layout_gives_the_same_items(tree, flat) -> None:
    from_tree, from_flat = load(f"imagenet:{tree}", image_size=16), load(f"imagenet:{flat}", image_size=16)
    assert contents(from_flat) == contents(from_tree)
    assert from_flat.classes == from_tree.classes


def test_a_list_of_wnids_restricts_either_layout(tree, flat, save_text) -> None:
    wnids = save_text("two.txt", f"{CRANE}\n{TENCH}\n")
    for root in (tree, flat):
        data = load(f"imagenet100:{root}", classes=wnids, image_size=16)
        assert data.name == "imagenet100"
        assert data.classes == ("tench", "crane"), "sorted by wnid, whatever the list's order"
        assert contents(data) == [
            (f"{TENCH}/{file(3)}.JPEG", (0,), 3),
            (f"{CRANE}/{file(2)}.JPEG", (1,), 2),
            (f"{TENCH}/{file(8)}.JPEG", (0,), 8),
        ]


def test_class_conditional_models_get_the_index_among_the_thousand(tree, save_text) -> None:
    assert load(f"imagenet:{tree}", image_size=16).imagenet_labels is None, "3 known wnids do not tell"
    others = [f"n9{number:07d}" for number in range(997)]
    save_text("tree/LOC_synset_mapping.txt", MAPPING + "".join(f"{wnid} thing {wnid}\n" for wnid in others))
    wnids = save_text("two.txt", f"{CRANE}\n{FISH}\n")
    assert load(f"imagenet:{tree}", image_size=16).imagenet_labels == (0, 1, 2)
    assert load(f"imagenet100:{tree}", classes=wnids, image_size=16).imagenet_labels == (1, 2)


def test_a_tree_of_all_thousand_needs_no_mapping_for_that(save_image, save_text, tmp_path) -> None:
    for number in range(1000):
        (tmp_path / f"tree/val/n{number:08d}").mkdir(parents=True)
        (tmp_path / f"tree/val/n{number:08d}/{file(number)}.JPEG").touch()
    wnids = save_text("two.txt", "n00000007 seven\nn00000999 last, final\n")
    data = load(f"imagenet100:{tmp_path / 'tree'}", classes=wnids, image_size=16)
    assert data.imagenet_labels == (7, 999)
    assert data.classes == ("seven", "last"), "the list's own names"


def test_names_come_from_the_mapping_the_list_or_the_prompt_csv(tree, save_text) -> None:
    (tree / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(ValueError, match=f"class {TENCH} must have a name, not none: add .*LOC_syn.* prompt csv"):
        load(f"imagenet:{tree}", image_size=16)
    named = save_text("named.txt", f"{TENCH} a fish\n{CRANE} a bird\n")
    assert load(f"imagenet:{tree}", classes=named, image_size=16).classes == ("a fish", "a bird")
    prompts = save_text("p.csv", "prompt,classname,classidx\nx,tench,0\ny,goldfish,1\nz,crane,2\nZ,crane,2\n")
    data = load(f"imagenet:{tree}", prompts_csv=prompts, image_size=16)
    assert data.classes == ("tench", "goldfish", "crane")
    assert data.prompts == (("x",), ("y",), ("z", "Z"))


def test_classes_that_share_their_first_synonym_keep_all() -> None:
    assert class_names({"a": "maillot", "b": "Maillot, tank suit", "c": "tench, Tinca tinca", "d": ""}) == (
        "maillot",
        "Maillot, tank suit",
        "tench",
        "d",
    )


def test_classes_with_the_same_prompt_are_warned_about(tree, save_image, save_text) -> None:
    save_image(f"tree/val/{MACHINE}/{file(9)}.JPEG")
    save_text("tree/LOC_synset_mapping.txt", MAPPING + f"{MACHINE} crane\n")
    with pytest.warns(UserWarning, match=r"classes \[2, 3\] share the prompt 'a photo of a crane.'"):
        load(f"imagenet:{tree}", image_size=16)


def test_another_split_of_the_tree(tree, save_image) -> None:
    save_image(f"tree/train/{TENCH}/{TENCH}_1.JPEG")
    assert load(f"imagenet:{tree}", split="train", image_size=16)[0].id == f"{TENCH}/{TENCH}_1.JPEG"


def test_what_is_missing_is_named_with_the_layout(tree, flat, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone must be a folder, not missing.*layout: <split>/<wnid>/\*.JPEG"):
        load(f"imagenet:{tmp_path / 'gone'}", image_size=16)
    with pytest.raises(FileNotFoundError, match=r"train must be a folder, not missing.*layout"):
        load(f"imagenet:{tree}", split="train", image_size=16)
    (flat / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"LOC_synset_mapping.txt must be a file, not missing.*layout"):
        load(f"imagenet:{flat}", image_size=16)
    (flat / "LOC_val_solution.csv").unlink()
    with pytest.raises(ValueError, match=r"val must have folders named by wnids, .*solution.csv, not neither"):
        load(f"imagenet:{flat}", image_size=16)
    (tree / f"val/{CRANE}/{file(2)}.JPEG").unlink()
    with pytest.raises(ValueError, match=f"class folder .*{CRANE} must have an image, not none. Expected layout"):
        load(f"imagenet:{tree}", image_size=16)


def test_imagenet_100_needs_its_list(tree) -> None:
    with pytest.raises(ValueError, match=r"classes must be a text file .* for imagenet100, not left out"):
        load(f"imagenet100:{tree}", image_size=16)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt must be a file, not missing.*layout: lines of a wn"):
        load(f"imagenet100:{tree}", classes=tree / "gone.txt", image_size=16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench\n", "line 1: a line must start with a wnid .*, not 'tench'"),
        ("# list\n../n01440764\n", "line 2: a line must start with a wnid .*, not '../n01440764'"),
        (f"{TENCH}\n{TENCH}\n", f"line 2: the wnid {TENCH} must come once"),
        ("\n", "must list a class, not none"),
    ],
)
def test_a_bad_list_of_wnids(text: str, message: str, save_text) -> None:
    with pytest.raises(ValueError, match=rf"list\.txt.*{message}"):
        read_synsets(save_text("list.txt", text))


def test_a_listed_wnid_that_is_not_there(tree, flat, save_text) -> None:
    wnids = save_text("list.txt", f"{TENCH}\n{MACHINE}\n")
    for root in (tree, flat):
        with pytest.raises(ValueError, match=f"must name classes that are in .*val, not '{MACHINE}'"):
            load(f"imagenet:{root}", classes=wnids, image_size=16)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"../../secret,{TENCH} 1 2 3 4", "line 2: the path must be relative to .*, not '../../secret.JPEG'"),
        (f"/etc/secret,{TENCH} 1 2 3 4", "line 2: the path must be relative to .*, not '/etc/secret.JPEG'"),
        (f"a,{MACHINE} 1 2 3 4", f"line 2: the class must be in LOC_synset_mapping.txt, not '{MACHINE}'"),
        ("a,", "line 2: the column 'PredictionString' must not be empty"),
    ],
)
def test_a_bad_solution_row(row: str, message: str, flat, save_text) -> None:
    save_text("flat/LOC_val_solution.csv", f"ImageId,PredictionString\n{row}\n")
    with pytest.raises(ValueError, match=message):
        load(f"imagenet:{flat}", image_size=16)
