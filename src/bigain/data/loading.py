"""One function that opens every data set."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from bigain.data.annotated import coco, imagenet, pets
from bigain.data.dataset import ImageCollection, OnBadImage
from bigain.data.folder import folder, table
from bigain.data.glyphs import glyphs
from bigain.data.hub import hub, saved
from bigain.data.moving import moving
from bigain.data.prompts import Prompts, check_against, read_prompts, shared
from bigain.data.scenes import scenes

NAMES: tuple[str, ...] = (
    "glyphs",
    "glyphs-scenes",
    "glyphs-moving",
    "imagenet:PATH",
    "imagenet100:PATH",
    "pets:PATH",
    "coco:PATH",
    "folder:PATH",
    "csv:PATH",
    "hub:ID",
)
_KINDS = tuple(name.partition(":")[0] for name in NAMES)
_EMBEDDED = {"glyphs": glyphs, "glyphs-scenes": scenes, "glyphs-moving": moving}
_WITH_CLASS_LIST = ("imagenet", "imagenet100", "folder")


def load(
    name_or_path: str | Path,
    *,
    image_size: int,
    frames: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    classes: str | Path | None = None,
    prompts_csv: str | Path | None = None,
    on_bad_image: OnBadImage = "raise",
) -> ImageCollection:
    """Opens a data set; no image is decoded yet.

    The order is fixed: in class data the classes take turns, each with its images sorted by id, and multi-label data
    (scenes, COCO) is sorted by id. ``limit`` takes a prefix of that order, as balanced over the classes as may be.

    Args:
        name_or_path: one of ``NAMES``, or a plain path: a csv file, a folder that Hugging Face ``datasets`` saved, or a
            folder of class folders. The layouts are in the modules of these names.
        image_size: the model's image size in pixels. Glyphs, scenes and moving letters are drawn at it; files keep
            their own size, which ``preprocess`` brings to the model's.
        frames: of a model of videos: files are read as animations, see ``read_video``. Images if left out.
        split: default: test (embedded data, pets), val (ImageNet), val2017 (COCO), the folder itself, see ``hub``.
        limit: at most this many images, from 1 to the number there are; default: all.
        classes: a text file that restricts ImageNet to its wnids, or a folder to its class folders.
            ImageNet-100 needs one.
        prompts_csv: a csv file with the columns prompt, classname, classidx; takes the place of the prompts from the
            template and of the class names.
        on_bad_image: see ``ImageCollection``.

    Raises:
        ValueError: an unknown data set, an argument that it does not take, a limit out of range, or contents that do
            not fit the layout; names the file and the line.
        FileNotFoundError: a folder or file of the layout is missing.
        ImportError: Hugging Face data without the extra ``hub``.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, not {image_size}")
    kind, location = _kind(str(name_or_path))
    if split is not None and kind == "csv":
        raise ValueError(f"split must be left out for {kind} data, not {split!r}")
    if classes is not None and kind not in _WITH_CLASS_LIST:
        raise ValueError(f"classes must be left out for {kind} data (only {_WITH_CLASS_LIST} take it), not {classes}")
    prompts = None if prompts_csv is None else read_prompts(Path(prompts_csv))
    data = _opened(kind, location, split, None if classes is None else Path(classes), prompts, image_size).in_turns()
    if limit is not None and not 1 <= limit <= len(data):
        raise ValueError(f"limit must lie in [1, {len(data)}] for {name_or_path}, not {limit}")
    if prompts is not None:
        check_against(prompts, data.classes, Path(str(prompts_csv)))
        data = replace(data, classes=prompts.classes, prompts=prompts.prompts)
    for prompt, owners in shared(data.prompts or ()):
        warnings.warn(
            f"{data.name}: the classes {owners} share the prompt {prompt!r} and cannot be told apart by it; "
            "a prompt csv can",
            stacklevel=2,
        )
    entries = data.entries[:limit]
    if frames is not None:
        entries = tuple(entry.as_video(frames) for entry in entries)
    return replace(data, entries=entries, on_bad_image=on_bad_image)


def _kind(text: str) -> tuple[str, str]:
    """The kind of data set and its path or id."""
    kind, colon, location = text.partition(":")
    if kind in _KINDS and (colon or kind in _EMBEDDED or not Path(text).exists()):
        if (kind in _EMBEDDED) == bool(location):
            raise ValueError(f"the data set {kind!r} must be written {NAMES[_KINDS.index(kind)]!r}, not {text!r}")
        return kind, location
    path = Path(text).expanduser()
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv", text
    if path.is_dir():
        return "hub" if saved(path) else "folder", text
    raise ValueError(f"the data set must be a folder, a csv file or one of {', '.join(NAMES)}, not {text!r}")


def _opened(
    kind: str, location: str, split: str | None, classes: Path | None, prompts: Prompts | None, image_size: int
) -> ImageCollection:
    path = Path(location).expanduser()
    class_count = None if prompts is None else len(prompts.classes)
    if kind in _EMBEDDED:
        return _EMBEDDED[kind](split or "test", image_size)
    if kind in ("imagenet", "imagenet100"):
        if kind == "imagenet100" and classes is None:
            raise ValueError("classes must be a text file with one wnid per line for imagenet100, not left out")
        return imagenet(path, split or "val", classes, named=prompts is None, name=kind)
    if kind == "pets":
        return pets(path, split or "test")
    if kind == "coco":
        return coco(path, split or "val2017")
    if kind == "folder":
        return folder(path, split, classes)
    if kind == "csv":
        return table(path, class_count)
    return hub(location, split, class_count)
