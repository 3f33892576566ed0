from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from bigain.data import BadImageError, load

datasets = pytest.importorskip("datasets")


def picture(level: int) -> Image.Image:
    return Image.new("RGB", (5, 4), (level, level, level))


def table(label_feature=None, **columns):
    """Three rows: images of grey 10, 20, 30, and the given columns."""
    features = {"image": datasets.Image()} | {name: datasets.Value("string") for name in columns}
    if label_feature is not None:
        features["label"] = label_feature
    columns = {"image": [picture(10 * row) for row in (1, 2, 3)]} | columns
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def saved(tmp_path):
    data = table(datasets.ClassLabel(names=["cat", "dog"]), label=[1, 0, 1], caption=["One.", "Two.", "Three."])
    data.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_data_set(saved) -> None:
    for name in (saved, f"hub:{saved}"):
        data = load(name, image_size=16)
        assert data.name == "saved"
        assert data.classes == ("cat", "dog")
        assert data.prompts == (("a photo of a cat.",), ("a photo of a dog.",))
        assert [(item.id, item.labels, item.caption, int(item.image[0, 0, 0])) for item in data] == [
            ("row-000001", (0,), "Two.", 20),
            ("row-000000", (1,), "One.", 10),
            ("row-000002", (1,), "Three.", 30),
        ]
        assert data[0].image.shape == (4, 5, 3)


def test_a_local_copy_of_a_repository(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copy/data").mkdir(parents=True)
    table(label=["x", "y", "x"]).to_parquet(str(tmp_path / "copy/data/test-00000-of-00001.parquet"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = load(f"hub:{tmp_path / 'copy'}", image_size=16)
    assert data.classes == ("x", "y")
    assert [int(item.image[0, 0, 0]) for item in data] == [10, 20, 30]


def test_splits(tmp_path) -> None:
    names = datasets.ClassLabel(names=["cat"])
    both = datasets.DatasetDict(
        train=table(names, label=[0, 0, 0]), test=table(names, label=[0, 0, 0]).select(range(2))
    )
    both.save_to_disk(str(tmp_path / "both"))
    assert len(load(tmp_path / "both", image_size=16)) == 2, "test is the default"
    assert len(load(tmp_path / "both", split="train", image_size=16)) == 3
    with pytest.raises(ValueError, match=r"split must be one of \['test', 'train'\] for .*both, not 'val'"):
        load(tmp_path / "both", split="val", image_size=16)
    datasets.DatasetDict(a=both["train"], b=both["test"]).save_to_disk(str(tmp_path / "odd"))
    with pytest.raises(ValueError, match=r"split must be given for .*odd: one of \['a', 'b'\]"):
        load(tmp_path / "odd", image_size=16)


def test_a_split_of_a_data_set_that_has_none(saved) -> None:
    with pytest.raises(ValueError, match=r"split must be left out for .*saved, which holds one split .*, not 'test'"):
        load(saved, split="test", image_size=16)


@pytest.mark.parametrize(
    ("feature", "values", "classes"),
    [
        (datasets.Value("string"), ["dog", "cat", "dog"], ("cat", "dog")),
        (datasets.Value("int64"), [1, 0, 1], ("0", "1")),
        (None, None, ()),
    ],
)
def test_labels_of_other_types(feature, values, classes, tmp_path) -> None:
    data = table() if feature is None else table(feature, label=values)
    data.save_to_disk(str(tmp_path / "saved"))
    loaded = load(tmp_path / "saved", image_size=16)
    assert loaded.classes == classes
    assert [entry.labels for entry in loaded.entries] == ([()] * 3 if feature is None else [(0,), (1,), (1,)])
    assert (loaded.prompts is None) == (feature is None)


def test_labels_that_cannot_be_used(tmp_path) -> None:
    table(datasets.Value("float32"), label=[0.5, 0.0, 1.0]).save_to_disk(str(tmp_path / "float"))
    with pytest.raises(ValueError, match="float: the column 'label' must hold one name or integer per image"):
        load(tmp_path / "float", image_size=16)
    table(datasets.ClassLabel(names=["cat"]), label=[0, -1, 0]).save_to_disk(str(tmp_path / "hidden"))
    with pytest.raises(ValueError, match=r"the label of 'row-000001' in hidden must lie in \[0, 1\), not -1"):
        load(tmp_path / "hidden", image_size=16)


def test_columns_by_type_where_the_names_do_not_tell(tmp_path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    data = table(names, label=[1, 0, 1]).rename_columns({"image": "photo", "label": "animal"})
    data.save_to_disk(str(tmp_path / "renamed"))
    assert load(tmp_path / "renamed", image_size=16).classes == ("cat", "dog")
    data.add_column("breed", [0, 0, 0]).cast_column("breed", names).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(
        ValueError, match=r"the column of the label must be named 'label' .*, not \['animal', 'breed'\]"
    ):
        load(tmp_path / "two", image_size=16)
    data.remove_columns("photo").save_to_disk(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="none must have a column of images"):
        load(tmp_path / "none", image_size=16)


def test_a_bad_image_is_named_or_skipped(tmp_path) -> None:
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = [{"bytes": b"not an image", "path": None}, None]
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(str(tmp_path / "bad"))
    data = load(tmp_path / "bad", image_size=16, on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"bad, row [01]") as caught:
        assert list(data) == []
    assert len(caught) == 2
    assert data.skipped == ("row-000000", "row-000001")
    with pytest.raises(BadImageError, match="bad, row 0 must be a readable image"):
        data[0]


def test_a_path_out_of_the_data_set_is_refused(tmp_path, save_image, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, within = save_image("secret/a.png"), save_image("saved/inside.png", grey=77)
    rows = [{"bytes": None, "path": str(path)} for path in (outside, within)]
    data = datasets.Dataset.from_dict(
        {"image": rows}, features=datasets.Features({"image": datasets.Image(decode=False)})
    )
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: data)
    (tmp_path / "saved" / "state.json").touch()
    loaded = load(tmp_path / "saved", image_size=16)
    with pytest.raises(ValueError, match=r"row 0: the path must lie in .*, not '.*secret/a\.png'") as caught:
        loaded[0]
    assert not isinstance(caught.value, BadImageError), "not to be skipped"
    np.testing.assert_array_equal(loaded[1].image, np.full((5, 6, 3), 77))


def test_a_path_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone must be a folder, not missing. Expected: a folder written by"):
        load(f"hub:{tmp_path / 'gone'}", image_size=16)


def test_without_the_extra_the_error_says_how_to_get_it(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'bigain\[hub\]'"):
        load(saved, image_size=16)
