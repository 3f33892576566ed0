"""Labels as tables have them, names or integers, to class indices."""

from __future__ import annotations

from collections.abc import Sequence


def class_indices(labels: Sequence[str | int], count: int | None, source: str) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and the class index of each label.

    Where all labels are integers (also as text) they are the class indices, and their names are their digits.
    Otherwise labels are names, and the classes are those names, sorted.

    Args:
        count: number of classes, where it is known (from a prompt csv); integers must then be below it.
        source: stands for the table in errors.

    Raises:
        ValueError: an integer out of range, or, where ``count`` is ``None``, one that is left out below the largest.
    """
    texts = [str(label) for label in labels]
    if not all(text.isascii() and text.removeprefix("-").isdigit() for text in texts):
        names = sorted(set(texts))
        index = {name: position for position, name in enumerate(names)}
        return tuple(names), [index[text] for text in texts]
    indices = [int(text) for text in texts]
    present = set(indices)
    total = len(present) if count is None else count
    for position, value in enumerate(indices):
        if value < 0 or (count is not None and value >= count):
            below = "" if count is None else f" and below {count}, the number of classes in the prompt csv"
            raise ValueError(
                f"{source}: label {value} of image {position} is out of range: it must be at least 0{below}"
            )
    if count is None and max(indices) != total - 1:
        missing = next(value for value in range(total) if value not in present)
        raise ValueError(
            f"{source}: integer labels must count from 0 without a gap; {missing} is missing, the largest is "
            f"{max(indices)}. A prompt csv can name classes that have no image"
        )
    return tuple(str(value) for value in range(total)), indices
