"""How a model is asked for a class: by sentences, from a template or a csv file, or by its own label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigain.data.files import read_rows

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


def from_template(classes: Sequence[str], template: str) -> tuple[tuple[str, ...], ...]:
    """One prompt per class: the class name, with spaces for underscores, in place of ``{}``."""
    return tuple((template.replace("{}", name.replace("_", " ")),) for name in classes)


def read_prompts(path: Path) -> Prompts:
    """Reads a csv file with the columns prompt, classname, classidx (the convention of diffusion-classifier).

    Several rows of one class are several prompts, in the file's order. Other columns are ignored.
    """
    classes: dict[int, tuple[str, list[str]]] = {}  # by index: the name, and its prompts
    for where, (prompt, name, text) in read_rows(path, COLUMNS):
        if not re.fullmatch(r"[0-9]{1,9}", text):  # int() would also take "1_0" and "+1"
            raise ValueError(f"{where}: classidx must be an integer from 0, not {text!r}")
        usual, prompts = classes.setdefault(int(text), (name, []))
        if usual != name:
            raise ValueError(f"{where}: the name of classidx {int(text)} must be {usual!r} as above, not {name!r}")
        prompts.append(prompt)
    missing = next((index for index in range(len(classes)) if index not in classes), None)
    if missing is not None:
        last = max(classes)
        raise ValueError(f"{path}: classidx must count from 0 without a gap, not leave out {missing} below {last}")
    names, sentences = zip(*(classes[index] for index in range(len(classes))), strict=True)
    return Prompts(names, tuple(map(tuple, sentences)))


def check_against(prompts: Prompts, classes: Sequence[str], path: Path) -> None:
    """Refuses prompts that are not for these classes.

    Names may differ in wording ("tench" and "tench, Tinca tinca"), so they are compared only where both sides use the
    same set of names; then the order must agree, or every label would mean another class.
    """
    count = len(prompts.classes)
    if count > len(classes):
        raise ValueError(f"{path}: classidx must lie in [0, {len(classes) - 1}] for this data set, not {count - 1}")
    if count < len(classes):
        raise ValueError(
            f"{path} must have prompts for all {len(classes)} classes, not {count}: classidx {count} "
            f"({classes[count]!r}) is missing"
        )
    own, given = [_plain(name) for name in classes], [_plain(name) for name in prompts.classes]
    if Counter(own) == Counter(given) and own != given:
        index = next(i for i in range(len(own)) if own[i] != given[i])
        raise ValueError(
            f"{path}: classidx must follow the data set's order, in which class {index} is {classes[index]!r}, "
            f"not {prompts.classes[index]!r}"
        )


def shared(prompts: Sequence[Sequence[str]]) -> list[tuple[str, list[int]]]:
    """Prompts that several classes have in common, with those classes; such classes cannot be told apart."""
    owners: dict[str, set[int]] = {}
    for index, own in enumerate(prompts):
        for prompt in own:
            owners.setdefault(prompt, set()).add(index)
    return [(prompt, sorted(indices)) for prompt, indices in owners.items() if len(indices) > 1]


def map_classes(
    classes: Sequence[str], model_labels: Mapping[str, int], wnids: Sequence[str] | None = None
) -> tuple[int, ...]:
    """The label by which a class-conditional model knows each class: one per class, of which no two are equal.

    A class is looked up by its wnid where it has one, then by its whole name, then by its synonyms (the parts
    between commas, as in ImageNet's "tench, Tinca tinca"): first to the letter, then without regard to case,
    underscores and hyphens. Synonyms of the model's names count too.

    Raises:
        ValueError: a class that no label or several labels fit, or two classes that one label fits; says how to
            give the mapping.
    """
    lookups = [(spelling, _by_name(model_labels, spelling)) for spelling in (str, _plain)]
    labels: list[set[int]] = []
    for position, name in enumerate(classes):
        names = [*([] if wnids is None else [[wnids[position]]]), [name], _synonyms(name)]
        fits = (
            {label for text in texts for label in lookup.get(spelling(text), ())}
            for texts in names
            for spelling, lookup in lookups
        )
        labels.append(next(filter(None, fits), set()))
    _refuse_unmapped(classes, labels, model_labels)
    return tuple(label for (label,) in labels)


def _by_name(model_labels: Mapping[str, int], spelling: Callable[[str], str]) -> dict[str, set[int]]:
    """The labels of each name and synonym; whole names win over synonyms of the same wording."""
    whole: dict[str, set[int]] = {}
    parts: dict[str, set[int]] = {}
    for name, label in model_labels.items():
        whole.setdefault(spelling(name), set()).add(label)
        for part in _synonyms(name):
            parts.setdefault(spelling(part), set()).add(label)
    return parts | whole


def _synonyms(name: str) -> list[str]:
    return [part.strip() for part in name.split(",") if part.strip()]


def _refuse_unmapped(classes: Sequence[str], labels: Sequence[set[int]], model_labels: Mapping[str, int]) -> None:
    """Raises ValueError unless each class has one label of its own."""
    uses = Counter(label for own in labels for label in own)
    unmapped = [repr(name) for name, own in zip(classes, labels, strict=True) if [uses[k] for k in own] != [1]]
    if not unmapped:
        return
    shown = ", ".join(unmapped[:5]) + (f" and {len(unmapped) - 5} more" if len(unmapped) > 5 else "")
    offered = list(model_labels)
    listed = ", ".join(offered[:10]) + (", ..." if len(offered) > 10 else "")
    raise ValueError(
        f"classes must each fit one label of their own of the class-conditional model ({listed}), not {shown}: give a "
        f"prompts csv with the columns {','.join(COLUMNS)} whose classname is the model's name of each class"
    )


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
