"""Methods at equal cost: the strength at which a method takes no more FLOPs than another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bigain.diffusion import Denoiser
from bigain.methods import Method, TokenDownsampling, TokenMerging, parse, spec
from bigain.run.cost import flops
from bigain.search.grids import Space


def at_equal_flops(denoiser: Denoiser, methods: Iterable[str], references: Iterable[str]) -> dict[str, list[str]]:
    """Per reference the methods, each at the least strength at which a forward takes at most the reference's FLOPs.

    A ratio is searched token by token of the finest grid that takes part, a factor from 2; both by bisection, as more
    strength never takes more FLOPs than less. What the assignment costs is counted too.

    Args:
        methods: specs of one method each; the ratio or factor in them is replaced.
        references: specs of what sets the FLOPs.

    Returns:
        Canonical specs, by the reference's canonical spec.

    Raises:
        ValueError: one of ``methods`` is several methods or none, follows a schedule or a threshold, has no layer in
            this model, or takes more FLOPs at its most than a reference; a reference whose number of tokens depends on
            the image; or one of the lists is empty.
    """
    space, condition = Space.of(denoiser), denoiser.any_condition
    strengths = {text: _strengths(text, space) for text in methods}
    targets = {spec(parse(text)): flops(denoiser, _countable(text), condition) for text in references}
    if not strengths or not targets:
        raise ValueError("equal FLOPs take at least one method, and one other whose FLOPs are the measure")
    return {
        reference: [
            _cheap_enough(denoiser, text, choices, reference, target, condition) for text, choices in strengths.items()
        ]
        for reference, target in targets.items()
    }


def _cheap_enough(
    denoiser: Denoiser, text: str, choices: Sequence[Method], reference: str, target: int, condition: str | int
) -> str:
    """The first of ``choices`` that takes at most ``target`` FLOPs."""

    def cost(number: int) -> int:
        return flops(denoiser, spec(choices[number]), condition)

    last = len(choices) - 1
    least = cost(last)
    if least > target:
        raise ValueError(
            f"{spec(choices[last])} is the most that {text!r} can compress and takes {least:,} FLOPs, more than the "
            f"{target:,} of {reference}: {_way_out(choices[last])}"
        )
    return spec(choices[_first(lambda number: cost(number) <= target, last)])


def _way_out(method: Method) -> str:
    """What takes fewer FLOPs still."""
    if not isinstance(method, TokenMerging):
        return "give more levels or layers"
    queries = ", or merge the queries too" if method.queries == "full" else ""
    return f"give larger cells, more levels or layers{queries}"


def _countable(text: str) -> str:
    """A reference, if its FLOPs do not depend on the image."""
    if any(method.depends_on_image for method in parse(text)):
        raise ValueError(f"{text!r} merges what lies under a threshold, so its FLOPs depend on the image")
    return text


def _strengths(text: str, space: Space) -> list[Method]:
    """A method at all its strengths, the weakest that compresses first."""
    parsed = parse(text)
    if len(parsed) != 1:
        several = f"{len(parsed)} methods at once" if parsed else "no method"
        raise ValueError(f"{text!r} is {several}: give single ones, whose ratio or factor is to be found")
    [method] = parsed
    if method.depends_on_image:
        raise ValueError(f"{text!r} merges what lies under a threshold: leave it out, a ratio is to be found")
    if isinstance(method, TokenMerging) and method.is_scheduled:
        raise ValueError(f"{text!r} follows a schedule: give it one ratio, which is replaced")
    taking = {level for number, level in enumerate(space.levels) if method.includes(level, number)}
    grids = [space.grids[level - 1] for level in sorted(taking)]
    if not grids:
        raise ValueError(f"{text!r} takes part in no layer of this model")
    if isinstance(method, TokenDownsampling):
        longest = max(max(grid.height, grid.width) for grid in grids)
        return [replace(method, factor=factor) for factor in range(2, longest + 1)]
    assert isinstance(method, TokenMerging)
    tokens = grids[0].tokens
    most = min(method.limit(grid) / grid.tokens for grid in grids)
    found: list[Method] = [
        replace(method, ratio=count / tokens) for count in range(method.fewest_tokens, int(most * tokens + 1e-6) + 1)
    ]
    if not found:
        raise ValueError(f"{text!r} can merge no token of the model's {grids[-1].height}x{grids[-1].width} grid")
    return found


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The first number up to ``last`` for which ``holds``, which it does from there on, and for ``last``."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
