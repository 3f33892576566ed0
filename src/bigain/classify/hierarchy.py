"""Elimination along a tree of classes: what lies under a group is asked only where the group itself does well.

After "Just Leaf It: Accelerating Diffusion Classifiers with Hierarchical Class Pruning", arXiv 2411.12073.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigain.classify import wordnet
from bigain.classify.elimination import Ask, Contest, survivors
from bigain.classify.racing import Racing

if TYPE_CHECKING:
    from bigain.classify.fitting import Fitted


@dataclass(frozen=True)
class Hierarchy:
    """Descends from the groups at the top, and lets the classes that are left race each other.

    On each level every node of the frontier, a group or a class, is evaluated at ``level_samples`` further timesteps,
    the best ``keep`` of them stay, and groups make way for what they hold. A class carries the errors of the groups
    above it, at the timesteps at which these were asked in its place, so all classes of the race compare.

    Args:
        inner: what the model is asked for each group: prompts. Group k is condition ``classes + k``.
        held: per group, the conditions that it holds: classes, or groups again.
        top: the conditions of the first level.
        keep: share of a level's nodes that stay, in (0, 1].
        level_samples: timesteps of a level.
        race: between the classes of the last level, at the timesteps that are left.
    """

    inner: tuple[str, ...]
    held: tuple[tuple[int, ...], ...]
    top: tuple[int, ...]
    keep: float = 0.5
    level_samples: int = 2
    race: Racing = field(default_factory=Racing)

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must lie above 0 and be at most 1, not {self.keep}")
        if self.level_samples < 1:
            raise ValueError(f"level_samples must be at least 1, not {self.level_samples}")
        if self.depth * self.level_samples >= self.race.n_samples:
            raise ValueError(
                f"n_samples must be more than the {self.depth} levels take, {self.depth * self.level_samples}, not "
                f"{self.race.n_samples}"
            )

    @classmethod
    def of(cls, tree: Mapping[str, Any], classes: Sequence[str], template: str = "{}", **settings: Any) -> Hierarchy:
        """From groups by name that hold groups again, or a list of classes by name.

        Args:
            tree: such as {"animal": {"dog": ["husky", "beagle"], "cat": ["tabby"]}, "vehicle": ["tram"]}. A group of
                one is replaced by what it holds.
            classes: names of all the classes, each of which the tree must have once.
            template: prompt of a group, around its name.
            settings: of the class.

        Raises:
            ValueError: for a class that is missing, unknown or there more than once, and an empty group.
        """
        places = {name: place for place, name in enumerate(classes)}
        prompts: list[str] = []
        held: list[tuple[int, ...]] = []
        met: list[str] = []

        def node(name: str, content: Any) -> int:
            if not content:
                raise ValueError(f"the group {name!r} must hold classes or groups, not none")
            own = nodes(content)
            if len(own) == 1:
                return own[0]
            prompts.append(template.format(name))
            held.append(own)
            return len(classes) + len(prompts) - 1

        def leaf(name: Any) -> int:
            if name not in places:
                raise ValueError(f"a class of the tree must be one of the classifier's, not {name!r}")
            met.append(name)
            return places[name]

        def nodes(content: Any) -> tuple[int, ...]:
            if isinstance(content, Mapping):
                return tuple(node(str(name), inside) for name, inside in content.items())
            return tuple(leaf(name) for name in content)

        top = nodes(tree)
        if sorted(met) != sorted(classes):
            wrong = sorted({name for name in classes if met.count(name) != 1})
            raise ValueError(f"the tree must hold each class once, which it does not with {', '.join(wrong[:5])}")
        return cls(tuple(prompts), tuple(held), top, **settings)

    @classmethod
    def read(
        cls,
        path: Path,
        classes: Sequence[str],
        template: str = "{}",
        wnids: Sequence[str] | None = None,
        **settings: Any,
    ) -> Hierarchy:
        """From a JSON file with what :meth:`of` takes, or WordNet's: see :func:`bigain.classify.wordnet.tree`.

        Args:
            path: of JSON; or a .txt, such as wordnet.is_a.txt, with words.txt beside it.
            classes, template, settings: as for :meth:`of`.
            wnids: of the classes, for WordNet's file; left out, the classes are called by them.

        Raises:
            ValueError: that names the file.
            FileNotFoundError: it is missing.
        """
        if path.suffix == ".txt":
            own = wnids or classes
            return cls.of(wordnet.tree(path, own), own, template, **settings)
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")), classes, template, **settings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} must be a tree of classes, as JSON: {error}") from error

    @cached_property
    def classes(self) -> int:
        """How many the tree holds."""
        inside = [node for group in (*self.held, self.top) for node in group]
        return len(inside) - len(self.held)

    @cached_property
    def depth(self) -> int:
        """Levels that hold a group."""

        def below(node: int) -> int:
            return 0 if node < self.classes else 1 + max(map(below, self.held[node - self.classes]))

        return max(map(below, self.top))

    @property
    def first(self) -> int:
        """How many timesteps the first round takes."""
        return self.level_samples

    @property
    def timesteps(self) -> int:
        """At how many timesteps a class is evaluated at most, counting those of the groups above it."""
        return self.race.n_samples

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of the race; the groups are asked under the first."""
        return self.race.methods

    def check(self, conditions: int, timesteps: int) -> None:
        """Raises a ValueError for other classes than the tree's, and for too few training timesteps."""
        if conditions != self.classes:
            raise ValueError(f"conditions must be the tree's {self.classes} classes, one each, not {conditions}")
        self.race.check(conditions, timesteps)

    def forwards(self, conditions: int) -> int:
        """Forwards of the model for one image, at most: with every level at its widest."""
        frontier, total = list(self.top), 0
        for _ in range(self.depth):
            total += len(frontier) * self.level_samples
            widest = sorted((self._held(node) for node in frontier), key=len, reverse=True)
            frontier = [node for own in widest[: math.ceil(self.keep * len(frontier))] for node in own]
        return total + len(frontier) * (self.timesteps - self.depth * self.level_samples)

    def fitted(self, fit: Fitted) -> Hierarchy:
        """The same with the fitted race."""
        return replace(self, race=self.race.fitted(fit))

    def rounds(self, contest: Contest) -> Iterator[Ask]:
        """One per level, then one per timestep of the race."""
        frontier, order, done = list(self.top), contest.order(), 0
        while any(node >= self.classes for node in frontier):
            positions = order[done : done + self.level_samples]
            yield Ask(frontier, positions)
            done += self.level_samples
            for node in frontier:  # what it holds goes by its errors
                below = self._below(node)
                contest.errors[below] = contest.errors[node]
            kept = survivors(contest.weighted, frontier, math.ceil(self.keep * len(frontier)))
            frontier = [inside for node in kept for inside in self._held(node)]
            contest.stage[[leaf for node in kept for leaf in self._below(node) if leaf < self.classes]] += 1
        yield from self.race.rounds(contest, frontier, order[done:])

    def _held(self, node: int) -> tuple[int, ...]:
        return (node,) if node < self.classes else self.held[node - self.classes]

    def _below(self, node: int) -> list[int]:
        """All nodes under a group, and a class itself."""
        if node < self.classes:
            return [node]
        return [below for inside in self.held[node - self.classes] for below in {inside, *self._below(inside)}]
