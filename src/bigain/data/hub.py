"""Hugging Face data sets: an id on the Hub, a local copy of one, or a folder written by ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from bigain.data.dataset import ImageCollection, Item
from bigain.data.folder import class_indices
from bigain.images import BadImageError, Pixels, read_image

LAYOUT = "a folder written by datasets' save_to_disk, a local copy of a data set's repository, or an id on the Hub"
IMAGES = ("image", "img")
LABELS = ("label", "labels")
CAPTIONS = ("caption", "captions", "text", "prompt")
SPLITS = ("validation", "val", "valid", "test")  # the first that exists is the default


def saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def hub(location: str, split: str | None = None, class_count: int | None = None) -> ImageCollection:
    """Rows as items, ids like ``row-000123``.

    Columns: the image is ``image`` or ``img``, else the only one of the type Image. The label is ``label`` or
    ``labels``, else the only one of the type ClassLabel; a data set may have none. The caption is the first of
    ``CAPTIONS`` that holds text, or its first text where it holds several.

    Args:
        split: default: the only one, else the first of ``SPLITS``.
        class_count: number of classes, where a prompt csv tells it; used where labels are plain integers.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("the extra 'hub' must be installed for Hub data sets: pip install 'bigain[hub]'") from error
    data = _open(datasets, location, split)
    image = _column(data, "image", IMAGES, datasets.Image)
    if image is None:
        raise ValueError(f"{location} must have a column of images, not only {dict(data.features)}")
    label = next((name for name in LABELS if name in data.features), None)
    label = label or _column(data, "label", LABELS, datasets.ClassLabel)
    classes, labels = _labels(datasets, data, label, class_count, location)
    captions = _captions(data)
    # Undecoded, so that decoding and its errors are those of every other data set.
    cells = data.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    roots = _roots(datasets, location)
    entries = tuple(
        Item(f"row-{row:06d}", partial(_pixels, cells, image, row, roots, location), own, caption)
        for row, (own, caption) in enumerate(zip(labels, captions, strict=True))
    )
    name = Path(location).resolve().name if Path(location).is_dir() else location
    return ImageCollection(name, classes, entries)


def _open(datasets: ModuleType, location: str, split: str | None) -> Any:
    """One split as a ``datasets.Dataset``."""
    path = Path(location).expanduser()
    if path.is_dir() and saved(path):
        data = datasets.load_from_disk(str(path))
        if isinstance(data, datasets.DatasetDict):
            return data[_split(list(data), split, location)]
        if split not in (None, data.split):
            raise ValueError(
                f"split must be left out for {location}, which holds one split ({data.split}), not {split!r}"
            )
        return data
    if not path.is_dir() and (path.is_absolute() or location.startswith((".", "~")) or location.count("/") > 1):
        raise FileNotFoundError(f"{location} must be a folder, not missing. Expected: {LAYOUT}")
    name = str(path) if path.is_dir() else location
    return datasets.load_dataset(name, split=_split(datasets.get_dataset_split_names(name), split, location))


def _split(names: Sequence[str], split: str | None, location: str) -> str:
    if split is None:
        split = names[0] if len(names) == 1 else next((name for name in SPLITS if name in names), None)
        if split is None:
            raise ValueError(f"split must be given for {location}: one of {sorted(names)}")
    if split not in names:
        raise ValueError(f"split must be one of {sorted(names)} for {location}, not {split!r}")
    return split


def _column(data: Any, what: str, preferred: Sequence[str], kind: type) -> str | None:
    names = [name for name, feature in data.features.items() if isinstance(feature, kind)]
    usual = [name for name in preferred if name in names]
    if len(names) > 1 and not usual:
        raise ValueError(
            f"the column of the {what} must be named {preferred[0]!r} where there are more than one, not {names}"
        )
    return next(iter([*usual, *names]), None)


def _labels(
    datasets: ModuleType, data: Any, column: str | None, class_count: int | None, location: str
) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    """The classes, and the labels of each row."""
    if column is None:
        return (), [()] * len(data)
    feature, values = data.features[column], list(data[column])
    if any(not isinstance(value, str | int) for value in values):
        raise ValueError(f"{location}: the column {column!r} must hold one name or integer per image, not {feature}")
    if isinstance(feature, datasets.ClassLabel) and feature.names:
        return tuple(feature.names), [(value,) for value in values]
    sources = [f"{location}, row {row}, column {column!r}" for row in range(len(values))]
    classes, labels = class_indices(values, class_count, sources)
    return classes, [(label,) for label in labels]


def _captions(data: Any) -> list[str | None]:
    for name in CAPTIONS:
        if name in data.features:
            texts = [value[0] if isinstance(value, list) and value else value for value in data[name]]
            if all(isinstance(text, str) for text in texts):
                return texts
    return [None] * len(data)


def _roots(datasets: ModuleType, location: str) -> tuple[Path, ...]:
    """Folders that an image's path may lie in: the data set's own and the library's caches."""
    from huggingface_hub.constants import HF_HUB_CACHE

    config = datasets.config
    own = Path(location).expanduser()
    caches = (config.HF_CACHE_HOME, config.HF_DATASETS_CACHE, HF_HUB_CACHE)
    return tuple(Path(path).expanduser().resolve() for path in (*([own] if own.is_dir() else []), *caches))


def _pixels(cells: Any, column: str, row: int, roots: tuple[Path, ...], location: str) -> Pixels:
    name = f"{location}, row {row}"
    cell = cells[row][column]
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise BadImageError(f"{name} must have an image, not none")
    if cell["bytes"] is not None:
        return read_image(cell["bytes"], name)
    path = Path(cell["path"]).resolve()
    if not any(path.is_relative_to(root) for root in roots):
        raise ValueError(f"{name}: the path must lie in the data set or the library's caches, not {cell['path']!r}")
    return read_image(path, f"{name} ({path})")
