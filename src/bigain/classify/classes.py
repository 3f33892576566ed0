"""The classes that a classifier chooses among, and what the model is asked for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigain.diffusion import Conditions, Denoiser


@dataclass(frozen=True, eq=False)
class Classes:
    """Classes by name, each with one condition or several.

    Args:
        conditions: of all classes, and after them ``inner`` that belong to none.
        groups: the class of each condition that belongs to one.
        names: of the classes.
    """

    conditions: Conditions
    groups: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, denoiser: Denoiser, conditions: Any, inner: Sequence[str] = ()) -> Classes:
        """Encodes the conditions for a model, and after them ``inner`` ones; see :class:`DiffusionClassifier`."""
        names: tuple[str, ...] = ()
        if isinstance(conditions, Mapping):
            names, conditions = tuple(str(name) for name in conditions), list(conditions.values())
        if isinstance(conditions, Conditions):
            if inner:
                raise ValueError("conditions must be prompts where others are asked beside them, not ready-made")
            groups = _checked_groups(conditions.groups, len(conditions))
        else:
            flat, nested = _flat(conditions)
            groups = _checked_groups(nested, len(flat))
            conditions = denoiser.conditions([*flat, *inner])
        _check_distinct(conditions, groups)
        return cls(conditions, groups, names or _usual_names(denoiser, conditions, groups))


def _usual_names(denoiser: Denoiser, conditions: Conditions, groups: Sequence[int]) -> tuple[str, ...]:
    """Each class by its first prompt or label, or what the model calls that label."""
    called: dict[Any, str] = {}
    for name, label in getattr(denoiser, "labels", {}).items():
        called.setdefault(label, name)
    first = [conditions.names[groups.index(group)] for group in range(max(groups) + 1)]
    return tuple(called.get(condition, str(condition)) for condition in first)


def _flat(conditions: Sequence[Any]) -> tuple[list[Any], list[int] | None]:
    """Conditions in one list, and the class of each if they were nested."""
    if isinstance(conditions, str):
        raise ValueError(f"conditions must be a sequence with one prompt per class, not the string {conditions!r}")
    nested = [isinstance(c, Sequence) and not isinstance(c, str) for c in conditions]
    if not any(nested):
        return list(conditions), None
    if not all(nested):
        raise ValueError("conditions must be one per class, or a sequence per class, not both")
    for index, own in enumerate(conditions):
        if len(own) == 0:
            raise ValueError(f"conditions must hold at least one prompt or label for class {index}, not 0")
    return [c for own in conditions for c in own], [index for index, own in enumerate(conditions) for _ in own]


def _checked_groups(groups: Sequence[int] | None, conditions: int) -> tuple[int, ...]:
    if groups is None:
        return tuple(range(conditions))
    if len(groups) != conditions:
        raise ValueError(f"groups must have one entry for each of the {conditions} conditions, not {len(groups)}")
    missing = sorted(set(range(max(groups) + 1)) - set(groups))
    if min(groups) < 0 or missing:
        raise ValueError(
            f"groups must name every class from 0 to {max(groups)}; lowest is {min(groups)}, missing: {missing}"
        )
    return tuple(int(group) for group in groups)


def _check_distinct(conditions: Conditions, groups: Sequence[int]) -> None:
    """Raises a ValueError for a single class, and for classes with one condition in common: a tie at every timestep."""
    if max(groups) == 0:
        raise ValueError("conditions must hold at least two classes to tell apart, not 1")
    first: dict[Any, int] = {}
    for position, what in enumerate((conditions.read or conditions.names)[: len(groups)]):
        other = first.setdefault(what, position)
        if groups[other] != groups[position]:
            one, two = conditions.names[other], conditions.names[position]
            why = "" if one == two else f" and {two!r}, which the model reads as the same text"
            raise ValueError(
                f"conditions must differ between classes, but classes {groups[other]} and {groups[position]} "
                f"have {one!r}{why}"
            )
