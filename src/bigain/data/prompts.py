"""The sentences that stand for a class: from a template, or from a csv file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigain.data.rows import read_rows

PHOTO = "a photo of a {}."
PET = "a photo of a {}, a type of pet."
LETTER = "a photo of the letter {}"
ONE_LETTER = "a photo of a letter {}"  # there may be others

COLUMNS = ("prompt", "classname", "classidx")


@dataclass(frozen=True)
class Prompts:
    """Class names and, for each class, at least one prompt; a prediction is the class of the best prompt."""

    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]


def from_template(classes: Sequence[str], template: str) -> Prompts:
    """One prompt per class: the class name, with spaces for underscores, in place of ``{}``."""
    return Prompts(tuple(classes), tuple((template.replace("{}", name.replace("_", " ")),) for name in classes))


def read_prompts(path: Path) -> Prompts:
    """Reads a csv file with the columns prompt, classname, classidx (the convention of diffusion-classifier).

    Several rows of one class are several prompts, in the file's order. Other columns are ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, a class index that is no integer or negative, an index with two class
            names, or indices that leave one out between 0 and the largest.
    """
    names: dict[int, str] = {}
    prompts: dict[int, list[str]] = {}
    for where, (prompt, name, text) in read_rows(path, COLUMNS):
        index = _index(text, where)
        if names.setdefault(index, name) != name:
            raise ValueError(f"{where}: classidx {index} is {name!r} here, but {names[index]!r} before")
        prompts.setdefault(index, []).append(prompt)
    indices = range(len(names))
    missing = next((index for index in indices if index not in names), None)
    if missing is not None:
        raise ValueError(
            f"{path}: classidx must count from 0 without a gap; {missing} is missing, the largest is {max(names)}"
        )
    return Prompts(tuple(names[i] for i in indices), tuple(tuple(prompts[i]) for i in indices))


def check_against(prompts: Prompts, classes: Sequence[str], path: Path) -> None:
    """Refuses prompts that are not for these classes.

    Names may differ in wording ("tench" and "tench, Tinca tinca"), so they are compared only where both sides
    use the same set of names; then the order must agree, or every label would mean another class.

    Raises:
        ValueError: an index out of range, too few classes, or the same names in another order.
    """
    if len(prompts.classes) > len(classes):
        raise ValueError(
            f"{path}: classidx must lie in [0, {len(classes) - 1}] for this data set, not {len(prompts.classes) - 1}"
        )
    if len(prompts.classes) < len(classes):
        raise ValueError(
            f"{path} has prompts for {len(prompts.classes)} classes, the data set has {len(classes)}: "
            f"classidx {len(prompts.classes)} ({classes[len(prompts.classes)]!r}) is missing"
        )
    own, given = [_plain(name) for name in classes], [_plain(name) for name in prompts.classes]
    if Counter(own) == Counter(given) and own != given:
        index = next(i for i in range(len(own)) if own[i] != given[i])
        raise ValueError(
            f"{path}: class {index} is {prompts.classes[index]!r}, in the data set it is {classes[index]!r}; "
            "classidx must follow the data set's order"
        )


def shared(prompts: Prompts) -> list[tuple[str, list[int]]]:
    """Prompts that several classes have in common, with those classes; such classes cannot be told apart."""
    owners: dict[str, set[int]] = {}
    for index, own in enumerate(prompts.prompts):
        for prompt in own:
            owners.setdefault(prompt, set()).add(index)
    return [(prompt, sorted(indices)) for prompt, indices in owners.items() if len(indices) > 1]


def _index(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):  # int() would also take "1_0" and "+1"
        raise ValueError(f"{where}: classidx must be an integer from 0, not {text!r}")
    return int(text)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
