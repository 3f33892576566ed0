from __future__ import annotations

import warnings
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bigain.data import BadImageError, BadImageWarning, ImageCollection, Item, labelled, load
from bigain.data.dataset import round_robin


@pytest.fixture
def animals(save_image, tmp_path):
    """Three cats (one of them is no image), two dogs."""
    for index in range(3):
        save_image(f"animals/cat/{index}.png", grey=index)
    for index in range(2):
        save_image(f"animals/dog/{index}.png", grey=100 + index)
    (tmp_path / "animals/cat/1.png").write_text("not an image")
    return tmp_path / "animals"


def test_nothing_is_decoded_before_it_is_asked_for(animals, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    genuine = Image.open

    def recording(source, **arguments):
        opened.append(source.name)
        return genuine(source, **arguments)

    monkeypatch.setattr(Image, "open", recording)
    data = load(animals, image_size=16)
    assert len(data) == 5
    assert [entry.labels for entry in data.entries] == [(0,), (1,), (0,), (1,), (0,)]
    assert opened == []
    data[1]
    assert opened == ["0.png"]
    next(iter(data))
    assert opened == ["0.png", "0.png"], "iterating decodes one by one"


def test_a_bad_image_is_fatal_by_default(animals) -> None:
    data = load(animals, image_size=16)
    with pytest.raises(BadImageError, match=r"cat/1\.png must be a readable image"):
        list(data)
    assert data.skipped == ()


def test_a_bad_image_is_skipped_named_and_counted_once(animals) -> None:
    data = load(animals, image_size=16, on_bad_image="skip")
    with pytest.warns(BadImageWarning, match=r"skipped image 1: .*cat/1\.png must be a readable image") as caught:
        ids = [item.id for item in data]
    assert len(caught) == 1
    assert ids == ["cat/0.png", "dog/0.png", "dog/1.png", "cat/2.png"]
    assert data.skipped == ("cat/1.png",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [item.id for item in data.items([2, 4])] == ["cat/2.png"]
    assert data.skipped == ("cat/1.png",)


def test_an_index_has_no_other_image_to_give(animals) -> None:
    with pytest.raises(BadImageError, match=r"cat/1\.png"):
        load(animals, image_size=16, on_bad_image="skip")[2]


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range(index: int, animals) -> None:
    with pytest.raises(IndexError, match=rf"\[0, 5\), not {index}"):
        load(animals, image_size=16)[index]


def test_an_unknown_policy(animals) -> None:
    with pytest.raises(ValueError, match=r"on_bad_image must be one of .'raise', 'skip'., not 'ignore'"):
        load(animals, image_size=16, on_bad_image="ignore")  # type: ignore[arg-type]


def taking_turns(labels: list[int]) -> list[int]:
    """The slow reference: go round the classes until all are empty."""
    queues = {label: [i for i, own in enumerate(labels) if own == label] for label in sorted(set(labels))}
    order = []
    while any(queues.values()):
        order += [queue.pop(0) for queue in queues.values() if queue]
    return order


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=30))
def test_round_robin(labels: list[int]) -> None:
    order = round_robin(labels)
    assert order == taking_turns(labels)
    total = Counter(labels)
    for length in range(len(labels)):
        counts = Counter(labels[position] for position in order[:length])
        most = max(counts.values(), default=0)
        assert all(counts[label] >= min(most - 1, total[label]) for label in total), "a prefix is out of balance"


def entry(identity: str, *labels: int) -> Item:
    return Item(identity, bytes, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entries", "multi_label", "message"),
    [
        ((), False, "set must have at least one image, not none"),
        ((entry("a", 0), entry("a", 1)), False, "the ids of set must differ, not 'a' for 2 images"),
        ((entry("a", 2),), False, r"the label of 'a' in set must lie in \[0, 2\), not 2"),
        ((entry("a", -1),), False, r"must lie in \[0, 2\), not -1"),
        ((entry("a", 0, 2),), True, r"must lie in \[0, 2\), not 2"),
        ((entry("a", 0, 1),), False, "'a' in set must have 1 labels, not 2"),
        ((entry("a"),), False, "'a' in set must have 1 labels, not 0"),
    ],
)
def test_a_catalogue_checks_itself(entries, multi_label: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageCollection("set", ("x", "y"), entries, multi_label=multi_label)


def test_multi_label_data_keep_their_order() -> None:
    entries = (entry("a", 1), entry("b"), entry("c", 0, 1))
    assert ImageCollection("set", ("x", "y"), entries, multi_label=True).in_turns().entries == entries


def test_the_first_labelled_images_are_counted_out_and_too_many_refused() -> None:
    data = ImageCollection(
        "set", ("x", "y"), (entry("a"), entry("b", 1), entry("c"), entry("d", 0, 1)), multi_label=True
    )
    assert labelled(data, 0) == []
    assert labelled(data, 1) == [1]
    assert labelled(data, 2) == [1, 3]
    for count in (3, -1):
        with pytest.raises(ValueError, match=rf"must lie in \[0, 2\], as many as set has with a label, not {count}"):
            labelled(data, count)


def test_an_item_is_decoded_once_and_the_data_set_keeps_no_pixels(animals) -> None:
    data = load(animals, image_size=16)
    item = data[0]
    assert item.image is item.image
    assert "image" not in vars(data.entries[0])
