"""WordNet's hierarchy as a tree of classes, from the files that ImageNet published: wordnet.is_a.txt and words.txt.

A synset is known by its wnid: n, and the eight digits of its place in WordNet 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

WORDS = "words.txt"
_PAIR = re.compile(r"(n[0-9]{8})\s+(n[0-9]{8})")
_WNID = re.compile(r"n[0-9]{8}")


@dataclass(frozen=True)
class _Part:
    """A class, which has no parts, or a synset with the parts in it."""

    names: tuple[str, ...]  # what it may be called, the most usual first
    classes: tuple[str, ...]  # all in it
    parts: tuple[_Part, ...] = ()

    def within(self, most: float) -> Iterator[_Part]:
        """The largest parts of at most so many classes."""
        for part in self.parts:
            if len(part.classes) <= most:
                yield part
            else:
                yield from part.within(most)


def tree(path: Path, classes: Sequence[str], depth: int = 3) -> dict[str, Any]:
    """A tree of groups, as :meth:`Hierarchy.of` takes it, of WordNet's synsets above the classes.

    Of several parents of a synset the one with the shortest way to the top counts, and of such the one of lowest wnid.
    Synsets that hold a single part are left out. Most of the others are too large or too small to be worth a question,
    so a group of level k of ``depth`` is one of the largest with at most classes^(1 − k / (depth + 1)) classes in it:
    for ImageNet's 1,000 and 3 levels at most 177, 31 and 5.

    Args:
        path: lines "n02083346 n02084071": a synset, and one that is a kind of it. In ``words.txt`` beside it lines of a
            wnid, a tab and the synset's words; the first word is the group's name, or all words where a group beside it
            has that name.
        classes: their wnids.
        depth: levels of groups, at least 1.

    Raises:
        ValueError: for a line of another kind, a class that is no wnid or missing from the file, a cycle, and a group
            without words.
        FileNotFoundError: where one of the two files is missing.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    for wnid in classes:
        if not _WNID.fullmatch(wnid):
            raise ValueError(f"a class must be a wnid (n and 8 digits) to have a place in WordNet's tree, not {wnid!r}")
    children = _children(path, _above(path, classes))
    whole = _nested(children, classes, path.with_name(WORDS))
    sizes = [len(classes) ** (1 - level / (depth + 1)) + 1e-9 for level in range(1, depth + 1)]  # 8 ** (2 / 3) is 4
    content: dict[str, Any] = _cut(whole, sizes)
    return content


def _above(path: Path, classes: Sequence[str]) -> dict[str, set[str]]:
    """The parents of each class and of all above it."""
    everything: dict[str, set[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        pair = _PAIR.fullmatch(line.strip())
        if pair is None:
            raise ValueError(
                f"{path}, line {number}: a line must hold two wnids, such as 'n02083346 n02084071', not {line!r}"
            )
        parent, child = pair.groups()
        everything.setdefault(parent, set())
        everything.setdefault(child, set()).add(parent)
    found: dict[str, set[str]] = {}
    waiting = list(classes)
    while waiting:
        synset = waiting.pop()
        if synset not in everything:
            raise ValueError(f"{path} must hold each class, which it does not with {synset}")
        if synset not in found:
            found[synset] = everything[synset]
            waiting += found[synset]
    return found


def _children(path: Path, parents: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """What each synset holds where each has one parent; what has none is held by ""."""
    try:
        order = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        raise ValueError(f"{path} must have no cycle, not {' '.join(error.args[1])}") from None
    way = {"": 0}
    children: dict[str, list[str]] = {"": []}
    for synset in order:
        parent = min(parents[synset] or {""}, key=lambda one: (way[one], one))
        way[synset] = way[parent] + 1
        children[synset] = []
        children[parent].append(synset)
    return children


def _nested(children: Mapping[str, Sequence[str]], classes: Sequence[str], words: Path) -> _Part:
    """All classes in their synsets, less those of a single part."""
    called = {wnid: text.strip() for wnid, _, text in (line.partition("\t") for line in _lines(words))}
    own = set(classes)

    def parts(synset: str) -> list[_Part]:
        return [one for child in sorted(children[synset]) for one in part(child)]

    def part(synset: str) -> list[_Part]:
        """The synset; or its only part; or nothing, where all classes below go by another parent."""
        inside = parts(synset)
        if synset in own:
            inside.append(_Part((synset,), (synset,)))
        if len(inside) < 2:
            return inside
        text = called.get(synset)
        if not text:
            raise ValueError(f"{words} must have the words of each group, which it does not with {synset}")
        within = tuple(wnid for one in inside for wnid in one.classes)
        return [_Part((text.split(",")[0].strip(), text, synset), within, tuple(inside))]

    return _Part((), tuple(classes), tuple(parts("")))


def _cut(group: _Part, sizes: Sequence[float]) -> Any:
    """The parts of a group, level by level with at most so many classes each; at the end the classes."""
    if not sizes or not group.parts:
        return list(group.classes)
    content: dict[str, Any] = {}
    for part in group.within(sizes[0]):
        content[next(name for name in part.names if name not in content)] = _cut(part, sizes[1:])
    return content


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"WordNet's tree must be in its is_a file and in {WORDS} beside it; there is no {path}")
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
